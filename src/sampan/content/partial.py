"""Blobs on their way in, by digest. What has come stays, whoever is killed, so that the next fetch goes on from there."""

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from sampan.digest import Digest, is_sha256, verify
from sampan.errors import InvalidArgument

KEEP_SECONDS = 7 * 86400
_BLOCK = 1 << 20


class PartialBlob:
    """One blob's file. One writer appends, readers follow; close() keeps the file."""

    def __init__(self, path: Path, digest: Digest, length: int) -> None:
        """Open or make it. length: of the whole blob, in bytes. Raises OSError."""
        self.digest, self.length = digest, length
        self.size = 0
        """Bytes that are there and hashed."""
        self._path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._hash = hashlib.sha256()
        self._grown, self._completed = asyncio.Event(), asyncio.Event()

    async def load(self) -> None:
        """Hash what an earlier fetch left. More than there can be is dropped."""
        while self.size < self.length:
            block = os.pread(self.fd, min(_BLOCK, self.length - self.size), self.size)
            if not block:
                break
            self._hash.update(block)
            self.size += len(block)
            await asyncio.sleep(0)
        os.ftruncate(self.fd, self.size)
        self._wake()

    def append(self, data: bytes) -> None:
        """The next bytes. Raises InvalidArgument when they are more than the blob can have, OSError when the disk is full."""
        if self.size + len(data) > self.length:
            raise InvalidArgument(f"unexpected blob size: got more than the {self.length} bytes of {self.digest}")
        view = memoryview(data)
        at = self.size
        while view:
            written = os.pwrite(self.fd, view, at)
            view, at = view[written:], at + written
        self._hash.update(data)
        self.size = at
        self._wake()

    def restart(self) -> None:
        """Begin again: what came was not the blob, or cannot be continued."""
        os.ftruncate(self.fd, 0)
        self._hash = hashlib.sha256()
        self.size = 0

    def finish(self) -> None:
        """All has come: verify it. Raises InvalidArgument, and then begins again."""
        try:
            verify(Digest("sha256:" + self._hash.hexdigest()), self.size, self.digest, self.length)
        except InvalidArgument:
            self.restart()
            raise
        self._completed.set()
        self._wake()

    @property
    def complete(self) -> bool:
        """Whether all is there, and verified."""
        return self._completed.is_set()

    async def completed(self) -> None:
        """Wait until all is there."""
        await self._completed.wait()

    async def follow(self, give: Callable[[int, int], Awaitable[int]]) -> None:
        """Give out the bytes as they come, by calls of give(offset, count) → how many it took (0: enough). At the end all are verified."""
        at = 0
        while at < self.length or not self.complete:
            if at < self.size:
                taken = await give(at, self.size - at)
                if not taken:
                    return
                at += taken
            else:
                await self._grown.wait()

    def _wake(self) -> None:
        """Wake every follower; the next event is for those who wait from now on."""
        self._grown.set()
        self._grown = asyncio.Event()

    def close(self) -> None:
        """Let go of the file; an empty one is removed."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            if not self.size:
                self.remove()

    def remove(self) -> None:
        """Drop the file."""
        with suppress(FileNotFoundError):
            self._path.unlink()


class PartialBlobs:
    """The directory of partial blobs."""

    def __init__(self, root: Path) -> None:
        """root: the data root. What nobody went on with for a week is dropped. Raises OSError."""
        self._directory = root / "content" / "partial"
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file in self._directory.iterdir():
            if time.time() - file.stat().st_mtime > KEEP_SECONDS:
                file.unlink()

    def open(self, digest: str, length: int) -> PartialBlob:
        """The blob's file, made if missing. Raises InvalidArgument for what is no digest, OSError."""
        if not is_sha256(digest):
            raise InvalidArgument(f"unsupported digest algorithm: {digest}")
        return PartialBlob(self._directory / digest.removeprefix("sha256:"), Digest(digest), length)
