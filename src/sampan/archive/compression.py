"""Which compression a stream has (by its first bytes, never by its name) and reading it with bounded memory.

isal and zstandard are used where they are installed; without zstandard a zstd stream is refused with a message that says so.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Any, Final, Literal

_inflate: Any
try:
    from isal import isal_zlib as _inflate
except ImportError:  # pragma: no cover - depends on the installation
    _inflate = zlib
try:
    import zstandard
except ImportError:  # pragma: no cover - depends on the installation
    zstandard = None  # type: ignore[assignment]

Read = Callable[[int], bytes]
Compression = Literal["", "gzip", "bzip2", "xz", "zstd"]

MAGIC_LENGTH: Final = 10
MEMBERS_FREE: Final = 1000
MEMBER_MIN: Final = 64
"""Plain bytes for which each compressed stream beyond the first MEMBERS_FREE has to stand, on the average: each costs a decoder. Where each
file begins one (eStargz) they are 512 and more. The frames of zstd cost next to nothing, and are not counted."""
_INPUT: Final = 1 << 17
_OUTPUT: Final = 1 << 20
_MEMORY_MAX: Final = 1 << 28
"""Bytes an xz dictionary may ask for; `xz -9` needs 65 MiB."""
_WINDOW_MAX: Final = 1 << 27
_MAGIC: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)


RATIO_MAX: Final = 2000
"""Plain bytes of one compressed byte, once there is 1 GiB of them: gzip cannot exceed 1032, and real files never come near."""
_RATIO_FREE = 1 << 30


class CompressionError(ValueError):
    """The compressed stream is damaged, or its kind cannot be read here."""


def detect(head: bytes) -> Compression:
    """The compression of a stream that begins with head; "" for none known."""
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if len(head) >= 4 and head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return "zstd"  # a skippable frame comes first
    return ""


def prefixed(head: bytes, read: Read) -> Read:
    """A stream that gives head first, then what read gives."""
    pending = [head] if head else []

    def combined(limit: int) -> bytes:
        if not pending:
            return read(limit)
        piece = pending.pop()
        if len(piece) > limit:
            pending.append(piece[limit:])
        return piece[:limit]

    return combined


def peek(read: Read) -> tuple[bytes, Read]:
    """The first bytes of a stream, and the whole stream again."""
    head = b""
    while len(head) < MAGIC_LENGTH and (piece := read(MAGIC_LENGTH - len(head))):
        head += piece
    return head, prefixed(head, read)


class _Members:
    """Decompress a sequence of gzip members or bzip2/xz streams. What follows the last one is ignored, as gzip(1) does."""

    def __init__(self, read: Read, new: Callable[[], Any], magic: bytes) -> None:
        self._read, self._new, self._magic = read, new, magic
        self._decoder = new()
        self._input = b""
        self._done = False
        self._members, self._plain = 1, 0

    def read(self, limit: int) -> bytes:
        """1..limit bytes, b"" at the end."""
        while not self._done:
            if self._decoder.eof and not self._next_member():
                break
            needs_input = getattr(self._decoder, "needs_input", not self._input)
            if needs_input and not self._input:
                self._input = self._read(_INPUT)
                if not self._input:
                    raise CompressionError("unexpected EOF")
            piece: bytes = self._decoder.decompress(self._input, min(limit, _OUTPUT))
            self._input = getattr(self._decoder, "unconsumed_tail", b"")
            if piece:
                self._plain += len(piece)
                return piece
        return b""

    def _next_member(self) -> bool:
        padding = b"" if self._magic == b"\x1f\x8b" else b"\0"
        rest = self._decoder.unused_data.lstrip(padding)
        while len(rest) < len(self._magic) and (piece := self._read(_INPUT)):
            rest = (rest + piece).lstrip(padding)
        if not rest.startswith(self._magic):
            self._done = True
            while self._read(_INPUT):  # or the writer of a pipe would be killed by SIGPIPE
                pass
            return False
        self._members += 1
        if (self._members - MEMBERS_FREE) * MEMBER_MIN > self._plain:
            raise CompressionError(f"{self._members} compressed streams hold {self._plain} bytes: this is not a real archive")
        self._decoder, self._input = self._new(), rest
        return True


def _guarded(read: Read) -> Read:
    """Turn each library's own errors into CompressionError."""

    def guarded(limit: int) -> bytes:
        try:
            return read(limit)
        except CompressionError:
            raise
        except OSError as error:
            if error.errno is not None:  # read's own: bz2 raises OSError too, but without a number
                raise
            raise CompressionError(f"invalid compressed data: {error}") from error
        except Exception as error:  # each library has classes of its own, some only importable when it is installed
            raise CompressionError(f"invalid compressed data: {error}") from error

    return guarded


class _File:
    """What zstandard wants to read from."""

    def __init__(self, read: Read) -> None:
        self.read = read


class Counted:
    """A stream that counts what it gives."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self.total = 0

    def read(self, limit: int) -> bytes:
        """As the stream's own."""
        piece = self._read(limit)
        self.total += len(piece)
        return piece


def decompress_bounded(compression: Compression, read: Read) -> Read:
    """As decompress(), but a stream that grows without end is refused as a bomb."""
    source = Counted(read)
    plain = Counted(decompress(compression, source.read))

    def bounded(limit: int) -> bytes:
        piece = plain.read(limit)
        if plain.total > _RATIO_FREE and plain.total > RATIO_MAX * source.total:
            raise CompressionError(f"{source.total} compressed bytes have become {plain.total}: this is not a real archive")
        return piece

    return bounded


def decompress(compression: Compression, read: Read) -> Read:
    """A reader of the plain bytes of a compressed stream. Reading raises CompressionError, and what read itself raises of OSErrors."""
    if compression == "":
        return read
    if compression == "gzip":
        return _guarded(_Members(read, lambda: _inflate.decompressobj(31), b"\x1f\x8b").read)
    if compression == "bzip2":
        return _guarded(_Members(read, bz2.BZ2Decompressor, b"BZh").read)
    if compression == "xz":
        return _guarded(_Members(read, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MEMORY_MAX), b"\xfd7zXZ\0").read)
    if zstandard is None:
        raise CompressionError(
            "this archive is compressed with zstd, which needs the Python package zstandard: pip install 'sampan[compression]'"
        )
    decoder = zstandard.ZstdDecompressor(max_window_size=_WINDOW_MAX)
    return _guarded(decoder.stream_reader(_File(read), read_size=_INPUT, read_across_frames=True).read)  # type: ignore[arg-type]
