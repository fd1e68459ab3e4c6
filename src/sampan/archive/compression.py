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
_GZIP: Final = b"\x1f\x8b"
_GZIP_FIXED: Final = 10
"""Bytes of a header without options"""
_GZIP_SUM, _GZIP_EXTRA, _GZIP_TEXTS, _GZIP_RESERVED = 0x02, 0x04, 0x18, 0xE0
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
        self._begun = False
        """Whether the decoder has been given something"""
        self._members, self._plain = 1, 0

    def read(self, limit: int) -> bytes:
        """1..limit bytes, b"" at the end."""
        while not self._done:
            if self._decoder.eof and not self._next_member():
                break
            if not self._begun:
                self._begin()
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

    def _begin(self) -> None:
        """Have a gzip header as a whole: in pieces isal takes only one of its optional fields."""
        self._begun = True
        while self._magic == _GZIP and not _has_header(self._input) and (piece := self._read(_INPUT)):
            self._input += piece

    def _next_member(self) -> bool:
        padding = b"" if self._magic == _GZIP else b"\0"
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
        self._decoder, self._input, self._begun = self._new(), rest, False
        return True


def _has_header(data: bytes) -> bool:
    """Whether a gzip header is there to its end (RFC 1952, 2.3.1), or too long. Raises CompressionError for one of some other version."""
    if len(data) < _GZIP_FIXED:
        return False
    flags, end = data[3], _GZIP_FIXED
    if flags & _GZIP_RESERVED:
        raise CompressionError("invalid compressed data: unknown header flags set")
    if flags & _GZIP_EXTRA:
        end += 2 + int.from_bytes(data[end : end + 2], "little")
    for _ in range((flags & _GZIP_TEXTS).bit_count()):
        end = data.find(b"\0", end) + 1 or _INPUT
    if flags & _GZIP_SUM:
        end += 2
    return len(data) >= min(end, _INPUT)


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
        return _guarded(_Members(read, lambda: _inflate.decompressobj(31), _GZIP).read)
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
