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
        self._buffer = b""

    def exact(self, size: int) -> bytes:
        """size bytes, or b"" at the end. Raises InvalidArchive when it ends in the middle."""
        while len(self._buffer) < size:
            compressed = self._inflate.unconsumed_tail or os.read(self._fd, _CHUNK)
            if not compressed:
                if self._buffer:
                    raise InvalidArchive("the layer's recipe is cut")
                return b""
            self._buffer += self._inflate.decompress(compressed, _CHUNK)
        piece, self._buffer = self._buffer[:size], self._buffer[size:]
        return piece


def assemble(recipe_fd: int, root_fd: int) -> Iterator[bytes]:
    """The tar in pieces, from its recipe and the layer's root. Raises InvalidArchive, OSError."""
    recipe = _Inflated(recipe_fd)
    while kind := recipe.exact(1):
        if kind == b"R":
            _, length = _RAW.unpack(kind + recipe.exact(_RAW.size - 1))
            while length:
                piece = recipe.exact(min(length, _CHUNK))
                length -= len(piece)
                yield piece
        elif kind == b"F":
            _, offset, length, name_length = _FILE.unpack(kind + recipe.exact(_FILE.size - 1))
            if name_length > _NAME_MAX:
                raise InvalidArchive("the layer's recipe is damaged")
            yield from _range_of(root_fd, recipe.exact(name_length), offset, length)
        else:
            raise InvalidArchive("the layer's recipe is damaged")


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
