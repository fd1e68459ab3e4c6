"""Storage in a directory. Small reads are made in the event loop, which takes less than to hand them over; all else in threads.

A link's directories come and go with it, in one rename: whoever lists a directory, after a crash too, sees no link that is not there.
"""

import asyncio
import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from sampan.linux.syncfs import sync_directory
from sampan.registry import paths
from sampan.registry.names import ALGORITHMS, is_digest
from sampan.registry.storage import Missing, Stat

PIECE = 256 * 1024
DIRECTORY_MODE = 0o755
_TRIES = 20
"""Of making a file whose directory another one's removal takes away at the same time."""


class StoredFile:
    """See storage.Stored."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd: int | None = fd
        self.size = size

    def file(self) -> int | None:
        """See storage.Stored."""
        return self._fd

    async def pieces(self, start: int, length: int) -> AsyncIterator[bytes]:
        """See storage.Stored. Raises OSError when the file ends early."""
        while length > 0 and self._fd is not None:
            piece = await asyncio.to_thread(os.pread, self._fd, min(PIECE, length), start)
            if not piece:
                raise OSError("the file ended early")
            start, length = start + len(piece), length - len(piece)
            yield piece

    def close(self) -> None:
        """See storage.Stored."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class FileSystem:
    """See storage.Storage. root exists, and nobody but us writes below it."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        for directory in (paths.BLOBS, paths.REPOSITORIES, paths.UPLOADS, paths.TEMPORARY):
            os.makedirs(f"{root}/{directory}", DIRECTORY_MODE, exist_ok=True)
        for entry in os.scandir(f"{root}/{paths.TEMPORARY}"):  # of a life before this one
            shutil.rmtree(entry) if entry.is_dir(follow_symlinks=False) else os.unlink(entry)

    @property
    def uploads(self) -> Path:
        """A directory for uploads from which ingest() only has to rename."""
        return Path(self._root, paths.UPLOADS)

    def _path(self, key: str) -> str:
        return f"{self._root}/{key}"

    async def read(self, key: str) -> bytes:
        """See storage.Storage."""
        return self._read(key)

    def _read(self, key: str) -> bytes:
        try:
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(key) from None
        try:
            content = os.read(fd, os.fstat(fd).st_size + 1)
        finally:
            os.close(fd)
        return content

    async def read_all(self, keys: Iterable[str]) -> list[bytes | None]:
        """See storage.Storage."""

        def read_each() -> list[bytes | None]:
            found: list[bytes | None] = []
            for key in keys:
                try:
                    found.append(self._read(key))
                except Missing:
                    found.append(None)
            return found

        return await asyncio.to_thread(read_each)

    async def write(self, key: str, content: bytes) -> None:
        """See storage.Storage."""
        await asyncio.to_thread(self._write, key, content)

    def _write(self, key: str, content: bytes) -> None:
        temporary = self._temporary()
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            try:
                view = memoryview(content)
                while view:  # a disk that is nearly full takes a part, and says so only the next time
                    view = view[os.write(fd, view) :]
                os.fsync(fd)
            finally:
                os.close(fd)
            self._put_in_place(temporary, key)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise

    def _temporary(self) -> str:
        return f"{self._root}/{paths.TEMPORARY}/{uuid.uuid4().hex}"

    def _put_in_place(self, source: str, key: str) -> None:
        """Rename a file to its key, the directories that are missing with it."""
        target = self._path(key)
        for _ in range(_TRIES):
            try:
                os.rename(source, target)
                changed = os.path.dirname(target)
            except FileNotFoundError:
                changed = self._put_with_directories(source, key)
            if changed:
                with contextlib.suppress(FileNotFoundError):  # removed again already
                    sync_directory(changed)
                return
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), target)

    def _put_with_directories(self, source: str, key: str) -> str:
        """The directory that has changed; "": others were quicker, try again."""
        missing = os.path.dirname(key)
        if os.path.exists(self._path(missing)):
            return ""
        while not os.path.exists(self._path(os.path.dirname(missing))):
            missing = os.path.dirname(missing)
        temporary = self._temporary()
        file = temporary + key.removeprefix(missing)
        os.makedirs(os.path.dirname(file), DIRECTORY_MODE)
        os.rename(source, file)
        sync_directory(os.path.dirname(file))
        try:
            os.rename(temporary, self._path(missing))
        except OSError as error:
            os.rename(file, source)
            shutil.rmtree(temporary)
            if error.errno not in (errno.ENOENT, errno.EEXIST, errno.ENOTEMPTY):
                raise
            return ""
        return os.path.dirname(self._path(missing))

    async def ingest(self, file: Path, key: str) -> None:
        """See storage.Storage. The file is on the same file system."""

        def take() -> None:
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            self._put_in_place(str(file), key)

        await asyncio.to_thread(take)

    async def stat(self, key: str) -> Stat:
        """See storage.Storage."""
        return self._stat(key)

    def _stat(self, key: str) -> Stat:
        try:
            found = os.lstat(self._path(key))
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(key) from None
        return Stat(found.st_size, found.st_mtime)

    async def touch(self, key: str) -> None:
        """See storage.Storage."""
        try:
            os.utime(self._path(key), follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(key) from None

    async def open(self, key: str) -> StoredFile:
        """See storage.Storage."""
        try:
            fd = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(key) from None
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            os.close(fd)
            raise Missing(key)
        return StoredFile(fd, found.st_size)

    async def remove(self, key: str) -> None:
        """See storage.Storage."""

        if key.endswith("/link"):
            await self.remove_all(os.path.dirname(key))
            return

        def take_away() -> None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                os.unlink(self._path(key))
            self._prune(key)

        await asyncio.to_thread(take_away)

    async def remove_all(self, key: str) -> None:
        """See storage.Storage. What is read meanwhile is there or not, nothing in between: the directory goes at once."""

        def take_away() -> None:
            moved = self._temporary()
            try:
                os.rename(self._path(key), moved)
            except (FileNotFoundError, NotADirectoryError):
                return
            shutil.rmtree(moved)
            self._prune(key)

        await asyncio.to_thread(take_away)

    def _prune(self, key: str) -> None:
        """Remove the directories above a key that are empty, up to those that are always there."""
        directory = os.path.dirname(key)
        while len(directory) > max(len(paths.BLOBS), len(paths.REPOSITORIES)):
            try:
                os.rmdir(self._path(directory))
            except FileNotFoundError:
                pass
            except OSError:
                return
            directory = os.path.dirname(directory)

    async def names(self, key: str) -> list[str]:
        """See storage.Storage."""
        return await asyncio.to_thread(self._names, key)

    def _names(self, key: str) -> list[str]:
        try:
            return sorted(os.listdir(self._path(key)))
        except (FileNotFoundError, NotADirectoryError):
            return []

    async def links(self, key: str) -> list[str]:
        """See storage.Storage."""

        def look() -> list[str]:
            found = [f"{algorithm}:{name}" for algorithm in ALGORITHMS for name in self._names(f"{key}/{algorithm}")]
            return [digest for digest in found if is_digest(digest)]

        return await asyncio.to_thread(look)

    async def has_links(self, key: str) -> bool:
        """See storage.Storage."""
        for algorithm in ALGORITHMS:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(self._path(f"{key}/{algorithm}")) as entries:
                if any(is_digest(f"{algorithm}:{entry.name}") for entry in entries):
                    return True
        return False

    async def repositories(self) -> list[str]:
        """See storage.Storage."""
        return await asyncio.to_thread(self._repositories)

    def _repositories(self) -> list[str]:
        found = []
        waiting = [""]
        while waiting:
            name = waiting.pop()
            entries = self._names(f"{paths.REPOSITORIES}/{name}")
            if name and any(mark in entries for mark in paths.MARKS):
                found.append(name)
            waiting += [f"{name}/{entry}" if name else entry for entry in entries if not entry.startswith("_")]
        return sorted(found)

    async def blobs(self) -> list[tuple[str, Stat]]:
        """See storage.Storage."""
        return await asyncio.to_thread(self._blobs)

    def _blobs(self) -> list[tuple[str, Stat]]:
        found = []
        for algorithm in ALGORITHMS:
            for first in self._names(f"{paths.BLOBS}/{algorithm}"):
                for encoded in self._names(f"{paths.BLOBS}/{algorithm}/{first}"):
                    if is_digest(f"{algorithm}:{encoded}"):
                        with contextlib.suppress(Missing):
                            found.append((f"{algorithm}:{encoded}", self._stat(f"{paths.BLOBS}/{algorithm}/{first}/{encoded}/data")))
        return found
