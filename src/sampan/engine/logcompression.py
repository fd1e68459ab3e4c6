"""json-file's `compress`: rotated files are compressed here, and put in their places by the keeper, who alone renames files of logs.

The keeper is told which file a copy was made of, and finds it wherever rotations have moved it since. Whoever is killed: a file goes only
once its copy is in its place, of a file and its copy side by side the file counts, and copies that nobody has taken are removed here.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import threading
from typing import NamedTuple

from sampan.engine.containerlogs import ContainerLogs
from sampan.engine.containerstore import Container
from sampan.errors import EngineError, Unavailable
from sampan.linux.syncfs import sync_directory
from sampan.logs import rotated
from sampan.runtime.client import KeeperClient

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
_COPY = ".copy"


class _Copy(NamedTuple):
    """path: of the copy. source: the file it was made of, held open so that no other gets its inode. number: which that was then."""

    source: int
    number: int
    path: str
    made_of: rotated.Origin


class _Look(NamedTuple):
    """number: where the youngest file is that may not be compressed yet; files only move up. 0: nobody has looked yet."""

    container: Container
    number: int = 0


class LogCompression:
    """One file at a time, of one container after the other: a container that prints without end keeps no other waiting."""

    def __init__(self, keeper: KeeperClient, logs: ContainerLogs) -> None:
        self._keeper, self._logs = keeper, logs
        self._waiting: dict[str, _Look] = {}
        self._task: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        """Held while a file is compressed: self._at's."""
        self._at = ""
        self._stop = threading.Event()

    def look(self, container: Container) -> None:
        """Have what is not compressed yet be so, if the container's log is to be. Never raises."""
        if not self._logs.compressed_path(container) or container.state.status == "removing":
            return
        self._waiting[container.id] = _Look(container)
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._work())

    async def leave(self, container: Container) -> None:
        """Leave a container's directory alone: it is about to be removed."""
        self._waiting.pop(container.id, None)
        if self._at == container.id:
            self._stop.set()
            async with self._turn:
                self._waiting.pop(container.id, None)

    async def close(self) -> None:
        """Leave; the next sampand goes on."""
        self._waiting.clear()
        self._stop.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _work(self) -> None:
        while self._waiting:
            look = self._waiting.pop(next(iter(self._waiting)))
            async with self._turn:
                self._at = look.container.id
                self._stop.clear()
                number, pause = await self._try(look)
                self._at = ""
            if number is not None and not self._stop.is_set():
                self._waiting.setdefault(look.container.id, _Look(look.container, number))
            await asyncio.sleep(pause)

    async def _try(self, look: _Look) -> tuple[int | None, float]:
        """Where there may be more to do, None: nowhere, and after how many seconds."""
        try:
            return await self._compress_one(self._logs.compressed_path(look.container), look.number), 0
        except Unavailable:
            return 0, RETRY_SECONDS
        except FileNotFoundError:  # it never ran, or is gone
            return None, 0
        except Exception as error:
            expected = isinstance(error, EngineError | OSError)
            log.warning("a rotated log of %s is not compressed for now: %s", look.container.id, error, exc_info=not expected)
            return None, 0

    async def _compress_one(self, path: str, number: int) -> int | None:
        """Which file it was, None: there is none from number on. Raises Unavailable, RequestRefused, OSError."""
        self._require_keeper()
        work = asyncio.get_running_loop().run_in_executor(None, _copy_youngest, path, number, self._stop)
        try:
            copy = await asyncio.shield(work)
        except asyncio.CancelledError:
            self._stop.set()
            copy = await work
            if copy is not None:
                _give_up(copy)
            raise
        if copy is None:
            return None
        try:
            self._require_keeper()
            await self._keeper.compressed(path, copy.number, copy.made_of, copy.path)
        except BaseException:
            _give_up(copy)
            raise
        await asyncio.to_thread(os.close, copy.source)  # its end, which takes a while when it is large
        return copy.number

    def _require_keeper(self) -> None:
        if not self._keeper.link.is_up:  # not waited for: who removes the container waits for us
            raise Unavailable("the keeper is away")


def _give_up(copy: _Copy) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(copy.path)
    os.close(copy.source)


def _copy_youngest(path: str, number: int, stop: threading.Event) -> _Copy | None:
    """A compressed copy of the youngest file that has none: it is kept longest. None: there is none, or stop was set. Raises OSError.

    number: see _Look.
    """
    directory = os.path.dirname(path)
    if not number:
        _remove_stale(path)
    number, source = _youngest(path, max(1, number))
    if source < 0:
        return None
    # Of a name of its own: the keeper may yet do what a former sampand asked for.
    copy = f"{path}.{secrets.token_hex(4)}{_COPY}"
    try:
        target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            made_of = rotated.compress(source, target, stop)
            if made_of is not None:  # on the disk, name and all, before the keeper takes the file away
                os.fsync(target)
                sync_directory(directory)
        except OSError:
            os.unlink(copy)
            raise
        finally:
            os.close(target)
        if made_of is not None:
            return _Copy(source, number, copy, made_of)
        os.unlink(copy)
    except OSError:
        os.close(source)
        raise
    os.close(source)
    return None


def _remove_stale(path: str) -> None:
    """Copies that a former sampand has left."""
    directory, name = os.path.split(path)
    for stale in os.listdir(directory):
        if stale.startswith(f"{name}.") and stale.endswith(_COPY):
            with contextlib.suppress(FileNotFoundError):  # the keeper may yet do what it asked for
                os.unlink(f"{directory}/{stale}")


def _youngest(path: str, number: int) -> tuple[int, int]:
    """The first rotated file from number on that is not compressed: which, and a descriptor of it, -1: there is none."""
    while True:
        try:
            return number, os.open(f"{path}.{number}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            if not os.path.lexists(f"{path}.{number}.gz"):
                return number, -1
        number += 1
