"""The places where builds keep what they are given, for as long as they run.

<data root>/build/<24 hex>/     one build; whatever of these is there at sampand's start is left from a kill
    tree/                       its context
    sums                        the hashes of what is in the context
    fetched/                    what ADD has fetched
    sandboxes/<container ID>    an empty file: a container of this build that is to go when the build ends
<data root>/build/void/         a directory with nothing in it, beside the snapshots': overlayfs wants two
"""

import asyncio
import os
import posixpath
import stat
from collections.abc import AsyncIterator, Iterable
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from sampan.archive.sources import ListedNames
from sampan.engine.background import Background
from sampan.engine.pipes import feed, through_pipe
from sampan.errors import InvalidArgument, SystemFailure
from sampan.image.store import Image
from sampan.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from sampan.worker.client import WorkerPool

DOCKERFILE_MAX: Final = 16 << 20
DEFAULT_DOCKERFILE: Final = "Dockerfile"
_VOID = "void"


class Tree(NamedTuple):
    """Where files come from: a directory (and the file of its hashes, -1: none), or an image, None being one without layers."""

    directory: int = -1
    sums: int = -1
    names: ListedNames | None = None
    """All there is in the directory, where that is known."""
    image: Image | None = None


class Workspace:
    """One build's place. Its descriptors are closed with it."""

    def __init__(self, path: Path, workers: WorkerPool, nowhere: int, stack: ExitStack) -> None:
        """Made empty. nowhere: a directory with nothing in it. Raises OSError."""
        self.path = path
        self._workers = workers
        self._stack = stack
        self.names: ListedNames | None = None
        """Of a small context: all there is in it."""
        self.sandboxes: set[str] = set()
        """The containers that are to go when the build ends."""
        self.nowhere = nowhere
        for name in ("tree", "fetched", "sandboxes"):
            (path / name).mkdir(mode=0o755)
        self.tree = os.open(path / "tree", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, self.tree)
        self.sums = os.open(path / "sums", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        stack.callback(os.close, self.sums)

    async def take_in(self, source: AsyncIterator[bytes], dockerfile: str) -> bytes:
        """Unpack a context, compressed or not. Returns its Dockerfile. Raises InvalidArgument, SystemFailure, and what source raises."""

        async def take(archive: int) -> dict[str, Any]:
            return await self._workers.stream("context_in", {"dockerfile": dockerfile}, [archive, self.tree, self.sums, self.nowhere])

        result = await through_pipe(feed(source), take)
        withheld = result["withheld"]
        if result["entries"] is not None:
            self.names = ListedNames(tuple(entry) for entry in result["entries"])
        data = await asyncio.to_thread(self.read_dockerfile, dockerfile)
        if withheld:
            await self._workers.run("context_withhold", {"names": withheld}, [self.tree])
        return data

    def read_dockerfile(self, name: str) -> bytes:
        """Raises InvalidArgument when it is not there, SystemFailure when it is no file."""
        if posixpath.normpath(name).startswith("../"):
            raise InvalidArgument(f"forbidden path outside the build context: {name} ()")
        try:
            fd = self._open(name)
        except OSError as error:
            if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
                raise SystemFailure(f"unexpected error reading Dockerfile: open {name}: {os.strerror(error.errno or 0).lower()}") from None
            if name == DEFAULT_DOCKERFILE:
                with suppress(OSError):
                    return self._read(self._open(name.lower()), name)
            raise InvalidArgument(f"Cannot locate specified Dockerfile: {name}") from None
        return self._read(fd, name)

    def _open(self, name: str) -> int:
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        return openat2(self.tree, os.fsencode(name), flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)

    @staticmethod
    def _read(fd: int, name: str) -> bytes:
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                what = "is a directory" if stat.S_ISDIR(info.st_mode) else "is no regular file"
                raise InvalidArgument(f"unexpected error reading Dockerfile: read {name}: {what}")
            if info.st_size > DOCKERFILE_MAX:
                raise InvalidArgument(f"the Dockerfile ({name}) has more than {DOCKERFILE_MAX} bytes")
            return b"".join(iter(lambda: os.read(fd, 1 << 20), b""))
        finally:
            os.close(fd)

    @property
    def context(self) -> Tree:
        """The context as COPY sees it."""
        return Tree(self.tree, self.sums, self.names)

    def keep(self, fd: int) -> None:
        """Close a descriptor when the build ends."""
        self._stack.callback(os.close, fd)

    def path_of(self, name: str) -> str:
        """The host's path of something in the context, which no symlink leads to. Raises InvalidArgument."""
        flags = os.O_PATH | os.O_CLOEXEC
        try:
            fd = openat2(self.tree, os.fsencode(name) or b".", flags, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS)
        except OSError as error:
            raise InvalidArgument(f"{name}: {os.strerror(error.errno or 0).lower()}") from None
        os.close(fd)
        return f"{self.path}/tree/{name}".rstrip("/")

    def note_sandbox(self, container_id: str) -> None:
        """A container of this build is about to be made: a kill of sampand must not leave it."""
        (self.path / "sandboxes" / container_id).touch()
        self.sandboxes.add(container_id)

    def forget_sandbox(self, container_id: str) -> None:
        """It is gone, or is to stay."""
        (self.path / "sandboxes" / container_id).unlink(missing_ok=True)
        self.sandboxes.discard(container_id)


class BuildSpool:
    """All builds' places."""

    def __init__(self, root: Path, empty: Path, workers: WorkerPool, background: Background) -> None:
        """root: made here. empty: a directory with nothing in it. Raises OSError."""
        self._root = root
        self._workers = workers
        self._background = background
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        root.chmod(0o700)
        (root / _VOID).mkdir(mode=0o700, exist_ok=True)
        self.empty = (str(empty), str(root / _VOID))

    @asynccontextmanager
    async def workspace(self) -> AsyncIterator[Workspace]:
        """A place for one build. Raises SystemFailure."""
        path = self._root / os.urandom(12).hex()
        with ExitStack() as stack:
            try:
                path.mkdir(mode=0o700)
                nowhere = os.open(self.empty[0], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, nowhere)
                workspace = Workspace(path, self._workers, nowhere, stack)
            except OSError as error:
                raise SystemFailure(f"cannot make a place for the build: {error}") from error
            try:
                yield workspace
            finally:
                self._background.spawn(self._remove(path))  # nobody waits for 50,000 files to go

    async def _remove(self, path: Path) -> None:
        """What a context holds was made by strangers: a worker empties it."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await self._workers.run("empty", {}, [fd])
        finally:
            os.close(fd)
        with suppress(OSError):
            await asyncio.to_thread(path.rmdir)

    def left(self) -> Iterable[str]:
        """At start: the containers of builds that a kill has ended."""
        for path in self._root.iterdir():
            with suppress(OSError):
                yield from os.listdir(path / "sandboxes")

    async def repair(self) -> None:
        """At start, after left(): remove what a kill has left."""
        for path in list(self._root.iterdir()):
            if path.name not in (_VOID, "mounts"):
                await self._remove(path)
