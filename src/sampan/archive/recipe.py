"""How to make a layer's tar again, byte for byte, from its extracted files (what moby keeps as tar-split).

A recipe is zlib-compressed: records of bytes as they were (headers, padding, what was not extracted) and of ranges of extracted files.

    "R" <u32 length> <bytes>
    "F" <u64 offset> <u64 length> <u32 name length> <name relative to the layer's root>

Behind them, as they are, the ranges of files that are not at their name any more: a later entry of the same tar replaced them, or a
symlink that led there. Then where these begin.

    <u64 which F, from 0> <u64 length> <bytes>
    "sampan-k" <u64 offset in the recipe>

Numbers are little-endian. The reader of a recipe checks the tar's digest.
"""

import os
import stat
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence

from sampan.archive.reader import InvalidArchive
from sampan.linux.openat2 import openat2

_RAW = struct.Struct("<cI")
_FILE = struct.Struct("<cQQI")
_KEPT = struct.Struct("<QQ")
_END = struct.Struct("<8sQ")
_MARK = b"sampan-k"
_CHUNK = 1 << 20
_NAME_MAX = 4096


class RecipeWriter:
    """Writes a recipe to a descriptor, which stays the caller's. Ended by finish()."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._deflate = zlib.compressobj(1)
        self._size = 0
        """Bytes written"""
        self._ranges = 0
        self._first: dict[int, int] = {}
        """Inode number of each file with content, as long as it is at its name -> the first of its F records"""
        self._sparse: dict[int, Sequence[tuple[int, int]]] = {}
        """The ranges of those that are not one"""
        self._indirect: dict[int, bytes] = {}
        """The names of those below a symlink"""
        self._kept = -1
        """A file without a name"""

    def raw(self, piece: memoryview | bytes) -> None:
        """Bytes of the tar itself."""
        self._put(_RAW.pack(b"R", len(piece)))
        self._put(piece)

    def file(self, fd: int, name: bytes, size: int, sparse: Sequence[tuple[int, int]] | None, *, indirect: bool) -> None:
        """Bytes of the tar that become an extracted file: all of it or, sparse, each (offset, length).

        indirect: a symlink is among the directories of its name.
        """
        ranges = [(offset, length) for offset, length in ([(0, size)] if sparse is None else sparse) if length]
        if not ranges:
            return
        inode = os.fstat(fd).st_ino
        self._first[inode] = self._ranges
        if sparse is not None:
            self._sparse[inode] = ranges
        if indirect:
            self._indirect[inode] = name
        for offset, length in ranges:
            self._put(_FILE.pack(b"F", offset, length, len(name)) + name)
        self._ranges += len(ranges)

    def keep(self, root_fd: int, parent: int, base: bytes, take: Callable[[int], None]) -> None:
        """Copy what the tar needs of a file that is about to be removed or to lose its name. take: asked for each length twice, for the
        copy and the recipe. Other kinds of files are let go. Raises OSError."""
        info = os.stat(base, dir_fd=parent, follow_symlinks=False)
        if stat.S_ISREG(info.st_mode) and info.st_ino in self._first:
            fd = os.open(base, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
            try:
                self._keep(root_fd, fd, take)
            finally:
                os.close(fd)

    def keep_indirect(self, root_fd: int, take: Callable[[int], None]) -> None:
        """The same for all files whose names lead through a symlink, before one is removed. Each is copied once only."""
        for name in list(self._indirect.values()):
            fd = openat2(root_fd, name, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                self._keep(root_fd, fd, take)
            finally:
                os.close(fd)

    def _keep(self, root_fd: int, fd: int, take: Callable[[int], None]) -> None:
        info = os.fstat(fd)
        number = self._first.pop(info.st_ino)
        self._indirect.pop(info.st_ino, None)
        if self._kept < 0:
            name = f".sampan-{os.urandom(8).hex()}"
            self._kept = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=root_fd)
            os.unlink(name, dir_fd=root_fd)
        for offset, length in self._sparse.pop(info.st_ino, ((0, info.st_size),)):
            take(2 * (_KEPT.size + length))
            _write_all(self._kept, _KEPT.pack(number, length))
            for piece in _pieces(fd, offset, length):
                _write_all(self._kept, piece)
            number += 1

    def finish(self) -> None:
        """Write what is buffered."""
        self._write(self._deflate.flush())
        begin = self._size
        if self._kept >= 0:
            for piece in _pieces(self._kept, 0, os.fstat(self._kept).st_size):
                self._write(piece)
            os.close(self._kept)
            self._kept = -1
        self._write(_END.pack(_MARK, begin))

    def _put(self, piece: memoryview | bytes) -> None:
        self._write(self._deflate.compress(piece))

    def _write(self, piece: bytes) -> None:
        _write_all(self._fd, piece)
        self._size += len(piece)


def _write_all(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view) :]


def _pieces(fd: int, offset: int, length: int) -> Iterator[bytes]:
    """A range of a file. Raises InvalidArchive when it is shorter, OSError."""
    while length:
        piece = os.pread(fd, min(length, _CHUNK), offset)
        if not piece:
            raise InvalidArchive("shorter than it was")
        offset, length = offset + len(piece), length - len(piece)
        yield piece


class _Inflated:
    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._inflate = zlib.decompressobj()
        self._buffer = memoryview(b"")

    def _more(self) -> bool:
        """Fill the empty buffer; False at the end."""
        while not self._buffer:
            if self._inflate.eof:
                return False
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
    recipe, kept, number = _Inflated(recipe_fd), _kept_in(recipe_fd), 0
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
            name = recipe.exact(name_length)
            if number in kept:
                yield from _pieces(recipe_fd, kept[number], length)
            else:
                yield from _range_of(root_fd, name, offset, length)
            number += 1
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
        yield from _pieces(fd, offset, length)
    except InvalidArchive as error:
        raise InvalidArchive(f"{name.decode('utf-8', 'backslashreplace')}: {error}") from error
    finally:
        os.close(fd)


def _kept_in(recipe_fd: int) -> dict[int, int]:
    """Which ranges lie in the recipe itself, and where. Raises InvalidArchive, OSError."""
    end = os.fstat(recipe_fd).st_size - _END.size
    mark, offset = _END.unpack(os.pread(recipe_fd, _END.size, end)) if end > 0 else (b"", 0)
    if mark != _MARK:  # of an engine that did not keep any
        return {}
    found: dict[int, int] = {}
    while offset < end:
        head = os.pread(recipe_fd, _KEPT.size, offset)
        if len(head) < _KEPT.size:
            raise InvalidArchive("the layer's recipe is damaged")
        number, length = _KEPT.unpack(head)
        found[number] = offset + _KEPT.size
        offset = found[number] + length
    return found
