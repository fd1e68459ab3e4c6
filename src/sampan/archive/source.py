"""A byte source for the tar reader: exact reads from something that gives pieces, every byte hashed on its way if that is wanted."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator

CHUNK = 1 << 20
_MOVED_MIN = 1 << 16
"""Bytes that are worth a system call of their own."""
_SAMPLE = 4096
"""Bytes read after bytes were moved unseen; four times as many with each further read."""


TRAILING_MAX = 4 << 20
"""Bytes that may follow an archive's end: tars are padded to the size of a tape's record, not always with zeros."""


class TrailingData(ValueError):
    """Far more follows the archive's end than a padding."""


class TruncatedArchive(ValueError):
    """The stream ended inside an entry."""


class Source:
    """Reads by exact amounts. `hexdigest` covers what was taken from the stream so far, not what the caller has consumed."""

    def __init__(self, read: Callable[[int], bytes], *, hashed: bool = True) -> None:
        """read(n) gives 1..n bytes, b"" at the end. hashed=False: nobody will ask for the digest."""
        self._read = read
        self._hashed = hashed
        self._hash = hashlib.sha256()
        self._buffer = memoryview(b"")
        self.consumed = 0
        self.tee: Callable[[memoryview], object] | None = None
        """Called with all that is consumed, while it is set"""

    def _fill(self) -> bool:
        piece = self._read(CHUNK)
        if self._hashed:
            self._hash.update(piece)
        self._buffer = memoryview(piece)
        return bool(piece)

    def some(self, limit: int) -> memoryview:
        """1..limit bytes, or nothing at the end of the stream. Valid until the next call."""
        if not self._buffer and not self._fill():
            return self._buffer
        piece = self._buffer[:limit]
        self._buffer = self._buffer[len(piece) :]
        self.consumed += len(piece)
        if self.tee is not None:
            self.tee(piece)
        return piece

    def exact(self, size: int) -> bytes:
        """size bytes. Raises TruncatedArchive; the caller bounds size."""
        piece = self.some(size)
        if len(piece) == size:
            return bytes(piece)
        joined = bytearray(piece)
        while len(joined) < size:
            piece = self.some(size - len(joined))
            if not piece:
                raise TruncatedArchive("unexpected EOF")
            joined += piece
        return bytes(joined)

    def pieces(self, size: int) -> Iterator[memoryview]:
        """size bytes in pieces. Raises TruncatedArchive."""
        while size:
            piece = self.some(size)
            if not piece:
                raise TruncatedArchive("unexpected EOF")
            size -= len(piece)
            yield piece

    def skip(self, size: int) -> None:
        """Pass over size bytes. Raises TruncatedArchive."""
        for _ in self.pieces(size):
            pass

    def moved(self, file: int, limit: int) -> int:
        """Move bytes to where a file stands without reading them. Returns how many: 0 where some() has to be used, but for limit too."""
        del file, limit
        return 0

    def drain(self) -> None:
        """Read (and hash) to the end of the stream."""
        while self.some(CHUNK):
            pass

    def drain_padding(self) -> None:
        """The same where all of it is kept: but for zeros only so much may follow. Raises TrailingData."""
        other = 0
        while piece := self.some(CHUNK):
            if piece[0] or piece[-1] or bytes(piece).strip(b"\0"):
                other += len(piece)
                if other > TRAILING_MAX:
                    raise TrailingData(f"more than {TRAILING_MAX} bytes follow the archive's end")

    def hexdigest(self) -> str:
        """sha256 of all bytes the stream has given."""
        return self._hash.hexdigest()


class PipeSource(Source):
    """What a pipe gives, not hashed; the kernel moves what nobody has to look at."""

    def __init__(self, pipe: int, read: Callable[[int], bytes], passed: Callable[[int], object]) -> None:
        """read: as for Source; it may hold bytes of the pipe's beginning, a tar's first block at most. passed: told what is moved."""
        super().__init__(read, hashed=False)
        self._pipe = pipe
        self._passed = passed
        self._size = CHUNK
        self._splices = True

    def _fill(self) -> bool:
        self._buffer = memoryview(self._read(self._size))
        self._size = min(self._size * 4, CHUNK)
        return bool(self._buffer)

    def moved(self, file: int, limit: int) -> int:
        """See Source.moved. All of limit, unless that is little or the stream ends before. Raises OSError."""
        if limit < _MOVED_MIN or self._buffer or not self.consumed or not self._splices:
            return 0
        left = limit
        try:
            while left and (count := os.splice(self._pipe, file, left)):
                left -= count
                self._passed(count)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            self._splices = False  # a file system without splice
        self.consumed += limit - left
        self._size = _SAMPLE
        return limit - left
