"""Blobs by digest: written under a temporary name, verified, synced, renamed. What is visible is complete."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from sampan.content import paths
from sampan.digest import Digest, is_sha256
from sampan.errors import InvalidArgument, NotFound


class BlobWriter(Protocol):
    """One blob being written. Leaving the `with` block without commit() drops it."""

    def write(self, data: bytes | memoryview) -> int:
        """Append; returns the length of data."""

    def commit(self, expected: Digest | None = None, size: int | None = None) -> Digest:
        """Verify, sync and make visible; ends the writer even on error.

        Raises InvalidArgument when digest or size (bytes) differ from what is expected.
        """

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None: ...


class Blobs(Protocol):
    """A store of blobs."""

    def ingest(self) -> BlobWriter:
        """Begin a blob."""

    def open(self, digest: Digest) -> BinaryIO:
        """Read a blob. Raises NotFound."""

    def size(self, digest: Digest) -> int | None:
        """Bytes, or None when it is not there."""

    def remove(self, digest: Digest) -> None:
        """Drop a blob; silent when it is not there."""

    def digests(self) -> Iterator[Digest]:
        """All complete blobs, in no order."""


def verify(actual: Digest, length: int, expected: Digest | None, size: int | None) -> None:
    """Raise InvalidArgument when a blob is not what was asked for."""
    if size is not None and length != size:
        raise InvalidArgument(f"unexpected blob size: got {length} bytes, expected {size}")
    if expected is not None and actual != expected:
        raise InvalidArgument(f"unexpected blob digest: got {actual}, expected {expected}")


class _FileWriter:
    def __init__(self, root: Path) -> None:
        self._root = root
        self._temporary = paths.ingest_dir(root) / os.urandom(16).hex()
        self._file = self._temporary.open("xb")
        self._hash = hashlib.sha256()
        self._length = 0

    def write(self, data: bytes | memoryview) -> int:
        self._hash.update(data)
        self._file.write(data)
        self._length += len(data)
        return len(data)

    def commit(self, expected: Digest | None = None, size: int | None = None) -> Digest:
        actual = Digest("sha256:" + self._hash.hexdigest())
        try:
            verify(actual, self._length, expected, size)
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            os.rename(self._temporary, paths.blob_path(self._root, actual))
            sync_directory(paths.blobs_dir(self._root))
        finally:
            self._discard()
        return actual

    def _discard(self) -> None:
        self._file.close()
        with contextlib.suppress(FileNotFoundError):
            self._temporary.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._discard()


def sync_directory(path: Path) -> None:
    """fsync a directory, so that a rename inside it survives a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


class FileBlobs:
    """Blobs in files below a data root."""

    def __init__(self, root: Path) -> None:
        """Use (and make) the directories below root; blobs half-written by an earlier process are dropped."""
        self._root = root
        paths.blobs_dir(root).mkdir(mode=0o700, parents=True, exist_ok=True)
        paths.ingest_dir(root).mkdir(mode=0o700, exist_ok=True)
        for stray in paths.ingest_dir(root).iterdir():
            stray.unlink()

    def ingest(self) -> BlobWriter:
        """Begin a blob."""
        return _FileWriter(self._root)

    def open(self, digest: Digest) -> BinaryIO:
        """Read a blob. Raises NotFound."""
        if not is_sha256(digest):
            raise NotFound(f"content {digest}: not found")
        try:
            return paths.blob_path(self._root, digest).open("rb")
        except FileNotFoundError:
            raise NotFound(f"content {digest}: not found") from None

    def size(self, digest: Digest) -> int | None:
        """Bytes, or None when it is not there."""
        try:
            return paths.blob_path(self._root, digest).stat().st_size if is_sha256(digest) else None
        except FileNotFoundError:
            return None

    def remove(self, digest: Digest) -> None:
        """Drop a blob; silent when it is not there."""
        if is_sha256(digest):
            with contextlib.suppress(FileNotFoundError):
                paths.blob_path(self._root, digest).unlink()

    def digests(self) -> Iterator[Digest]:
        """All complete blobs, in no order."""
        for entry in os.scandir(paths.blobs_dir(self._root)):
            yield Digest("sha256:" + entry.name)
