"""How to make a layer's tar again, byte for byte, from its extracted files (what moby keeps as tar-split).

A recipe is zlib-compressed: records of bytes as they were (headers, padding, what was not extracted) and of ranges of extracted files.

    "R" <u32 length> <bytes>
    "F" <u64 offset> <u64 length> <u32 name length> <name relative to the layer's root>

Numbers are little-endian. The reader of a recipe checks the tar's digest: a file that a later entry of the same tar replaced cannot be
given back.
"""

import os
import struct
import zlib
from collections.abc import Iterator

from sampan.archive.reader import InvalidArchive
from sampan.linux.openat2 import openat2

_RAW = struct.Struct("<cI")
_FILE = struct.Struct("<cQQI")
_CHUNK = 1 << 20
_NAME_MAX = 4096


class RecipeWriter:
    """Writes a recipe to a descriptor, which stays the caller's. Ended by finish()."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._deflate = zlib.compressobj(1)

    def raw(self, piece: memoryview | bytes) -> None:
        """Bytes of the tar itself."""
        self._put(_RAW.pack(b"R", len(piece)))
        self._put(piece)

    def file(self, name: bytes, offset: int, length: int) -> None:
        """Bytes of the tar that are a range of an extracted file."""
        if length:
            self._put(_FILE.pack(b"F", offset, length, len(name)) + name)

    def finish(self) -> None:
        """Write what is buffered."""
        self._write(self._deflate.flush())

    def _put(self, piece: memoryview | bytes) -> None:
        self._write(self._deflate.compress(piece))

    def _write(self, piece: bytes) -> None:
        view = memoryview(piece)
        while view:
            view = view[os.write(self._fd, view) :]


class _Inflated:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._inflate = zlib.decompressobj()
        self._buffer = memoryview(b"")

    def _more(self) -> bool:
        """Fill the empty buffer; False at the end."""
        while not self._buffer:
            compressed = self._inflate.unconsumed_tail or os.read(self._fd, _CHUNK)
            if not compressed:
                return False
            self._buffer = memoryview(self._inflate.decompress(compressed, _CHUNK))
        return True

    def some(self, limit: int) -> memoryview:
        """1..limit bytes. Raises InvalidArchive at the end."""
        if not self._more():
            raise InvalidArchive("the layer's recipe is cut")
        piece, self._buffer = self._buffer[:limit], self._buffer[limit:]
        return piece

    def exact(self, size: int) -> bytes:
        """size bytes. Raises InvalidArchive."""
        piece = bytearray()
        while len(piece) < size:
            piece += self.some(size - len(piece))
        return bytes(piece)

    def kind(self) -> bytes:
        """The next record's first byte, or b"" at the end."""
        return bytes(self.some(1)) if self._more() else b""

    def skip(self, size: int) -> None:
        """Pass over size bytes. Raises InvalidArchive."""
        while size:
            size -= len(self.some(size))


def assemble(recipe_fd: int, root_fd: int) -> Iterator[memoryview | bytes]:
    """The tar in pieces, from its recipe and the layer's root. Raises InvalidArchive, OSError."""
    recipe = _Inflated(recipe_fd)
    while kind := recipe.kind():
        if kind == b"R":
            _, length = _RAW.unpack(kind + recipe.exact(_RAW.size - 1))
            while length:
                piece = recipe.some(length)
                length -= len(piece)
                yield piece
        elif kind == b"F":
            _, offset, length, name_length = _FILE.unpack(kind + recipe.exact(_FILE.size - 1))
            if name_length > _NAME_MAX:
                raise InvalidArchive("the layer's recipe is damaged")
            yield from _range_of(root_fd, recipe.exact(name_length), offset, length)
        else:
            raise InvalidArchive("the layer's recipe is damaged")


def archive_size(recipe_fd: int) -> int:
    """Bytes of the tar, from its recipe alone. Raises InvalidArchive, OSError."""
    recipe = _Inflated(recipe_fd)
    size = 0
    while kind := recipe.kind():
        if kind == b"R":
            _, length = _RAW.unpack(kind + recipe.exact(_RAW.size - 1))
            size += length
            recipe.skip(length)
        elif kind == b"F":
            _, _, length, name_length = _FILE.unpack(kind + recipe.exact(_FILE.size - 1))
            size += length
            recipe.skip(name_length)
        else:
            raise InvalidArchive("the layer's recipe is damaged")
    return size


def _range_of(root_fd: int, name: bytes, offset: int, length: int) -> Iterator[bytes]:
    fd = openat2(root_fd, name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        while length:
            piece = os.pread(fd, min(length, _CHUNK), offset)
            if not piece:
                raise InvalidArchive(f"{name.decode('utf-8', 'backslashreplace')}: shorter than it was")
            offset, length = offset + len(piece), length - len(piece)
            yield piece
    finally:
        os.close(fd)
