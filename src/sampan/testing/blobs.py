"""An in-memory twin of content.store.FileBlobs, held to the same contract (tests/contracts/blobs.py)."""

import io
from collections.abc import Iterator
from types import TracebackType
from typing import BinaryIO, Self

from sampan.content.store import BlobWriter, verify
from sampan.digest import Digest, sha256_of
from sampan.errors import NotFound


class _MemoryWriter:
    def __init__(self, blobs: dict[Digest, bytes]) -> None:
        self._blobs = blobs
        self._data = bytearray()

    def write(self, data: bytes | memoryview) -> int:
        self._data += data
        return len(data)

    def commit(self, expected: Digest | None = None, size: int | None = None) -> Digest:
        actual = Digest(sha256_of(bytes(self._data)))
        verify(actual, len(self._data), expected, size)
        self._blobs[actual] = bytes(self._data)
        return actual

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self._data.clear()


class MemoryBlobs:
    """Implements content.store.Blobs."""

    def __init__(self) -> None:
        self._blobs: dict[Digest, bytes] = {}

    def ingest(self) -> BlobWriter:
        """Begin a blob."""
        return _MemoryWriter(self._blobs)

    def open(self, digest: Digest) -> BinaryIO:
        """Read a blob. Raises NotFound."""
        if digest not in self._blobs:
            raise NotFound(f"content {digest}: not found")
        return io.BytesIO(self._blobs[digest])

    def size(self, digest: Digest) -> int | None:
        """Bytes, or None when it is not there."""
        return len(self._blobs[digest]) if digest in self._blobs else None

    def remove(self, digest: Digest) -> None:
        """Drop a blob; silent when it is not there."""
        self._blobs.pop(digest, None)

    def digests(self) -> Iterator[Digest]:
        """All complete blobs, in no order."""
        yield from tuple(self._blobs)
