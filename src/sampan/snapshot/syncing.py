"""New layers written to disk beside the workers: a worker that only waits for the disk keeps nobody from the processor."""

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sampan.errors import SystemFailure
from sampan.linux.syncfs import syncfs

_THREADS = 4
"""Of our own: whoever starts a container meanwhile does not wait for those that wait for the disk."""


class Syncing:
    """Waits for the disk, in threads. Used from the event loop's thread only."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="sync")
        self._current: asyncio.Future[None] | None = None
        self._next: asyncio.Future[None] | None = None

    async def run(self, write: Callable[[Path], None], path: Path) -> None:
        """write(path), which waits for the disk; it opens what it needs, since it goes on when this is cancelled. Raises SystemFailure."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, write, path)
        except OSError as error:
            raise SystemFailure(f"{path} cannot be written to disk: {(error.strerror or str(error)).lower()}") from error

    async def everything(self, path: Path) -> None:
        """Write the whole file system of path. Those who ask while it is being written share the next run. Raises SystemFailure."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._after(self._current, path))
        await asyncio.shield(self._next)

    async def _after(self, former: asyncio.Future[None] | None, path: Path) -> None:
        if former is not None:
            await asyncio.wait({former})
        self._current, self._next = self._next, None
        await self.run(_sync_all, path)

    def close(self) -> None:
        """End the threads; what they are at goes on."""
        self._threads.shutdown(wait=False)


def _sync_all(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        syncfs(fd)
    finally:
        os.close(fd)
