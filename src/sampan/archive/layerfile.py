"""Make layer files (sampan.archive.erofs) of tars, fold several into one index, and give the tar back. Works on descriptors only."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from sampan.archive.erofs import HEAD_SIZE, Device, Head, Image, blocks_of, encode, place_data
from sampan.archive.layertree import Copy, LayerTree, Node, count_directories, walk
from sampan.archive.reader import InvalidArchive, TarReader
from sampan.archive.room import Room
from sampan.archive.source import Source, TruncatedArchive
from sampan.linux.syncfs import sync_directory

WriteAt = Callable[[bytes, int], None]
"""Writes some bytes at a position."""
_IO_MAX: Final = 1 << 20
_DISK_BLOCK: Final = 4096
_READ_AHEAD: Final = 1 << 17
"""What one posix_fadvise does at least."""
_HEADERS: Final = 1 << 14
_INDEX_ROOM: Final = 1 << 23
"""Blocks kept free for a folded index before its devices: 4 GiB."""
_ADDRESS_MAX: Final = 0xFFFFFFFF


class Written(NamedTuple):
    """A layer file's facts."""

    digest: str
    """sha256 of the tar, hexadecimal."""
    tar_size: int
    size: int
    """Sum of the sizes of its files and symlinks, bytes."""
    entries: int


def write(read: Callable[[int], bytes], output: int, room: Room | None = None) -> Written:
    """Write a tar to an empty file and index it there. Raises InvalidArchive, TruncatedArchive, NoRoom, OSError.

    room: asked before anything is written; None: the file is not of the host's disk, or a probe's own.
    """
    position = HEAD_SIZE
    write_at = _writer(output, room)

    def copied(limit: int) -> bytes:
        nonlocal position
        piece = read(limit)
        write_at(piece, position)
        position += len(piece)
        return piece

    source = Source(copied)
    tree = scan(source)
    source.drain_padding()
    order = tree.finish()
    end = place_data(order, tree.copied_blocks, source.consumed)
    _copy_fragments(output, write_at, tree.copies, source.consumed)
    _put(output, write_at, encode(order, end, os.urandom(16), source.consumed))
    return Written(source.hexdigest(), source.consumed, sum([node.size for node in order]), tree.entries)


def scan(source: Source) -> LayerTree:
    """The tree of a tar; finish() is the caller's. Raises InvalidArchive, TruncatedArchive."""
    tree = LayerTree()
    for entry in TarReader(source):
        tree.add(entry, source.consumed)
    return tree


def settle(path: Path) -> None:
    """See that a layer file and its name are on disk, and out of the page cache: EROFS caches what is used itself. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
        cool(fd)
    finally:
        os.close(fd)
    sync_directory(path.parent)


def cool(layer: int) -> None:
    """Give back the page cache of a layer file's tar: EROFS caches its files itself, but not its metadata. Raises OSError."""
    head = Head.unpack(os.pread(layer, HEAD_SIZE, 0))
    if head.tar_size:
        os.posix_fadvise(layer, HEAD_SIZE, head.metadata - HEAD_SIZE, os.POSIX_FADV_DONTNEED)


def warm(layer: int) -> None:
    """Have the kernel read a layer file's metadata, which EROFS would read page by page. Does not wait. Raises OSError."""
    position = Head.unpack(os.pread(layer, HEAD_SIZE, 0)).metadata
    size = os.fstat(layer).st_size
    while position < size:
        os.posix_fadvise(layer, position, _READ_AHEAD, os.POSIX_FADV_WILLNEED)
        position += _READ_AHEAD


def tar_size(layer: int) -> int:
    """Bytes of the tar in a layer file. Raises InvalidArchive, OSError."""
    return Head.unpack(os.pread(layer, HEAD_SIZE, 0)).tar_size


def tar_of(layer: int) -> Iterator[bytes]:
    """The tar in a layer file, in pieces. Raises InvalidArchive, OSError."""
    left = tar_size(layer)
    position = HEAD_SIZE
    while left:
        piece = os.pread(layer, min(left, _IO_MAX), position)
        if not piece:
            raise InvalidArchive("the layer file is cut")
        position, left = position + len(piece), left - len(piece)
        yield piece


def fold(layers: Sequence[int], output: int, room: Room | None, uuid: bytes, kept: frozenset[bytes] = frozenset()) -> int:
    """Write one index of layer files, top first, to an empty file. Returns the entries read. Raises InvalidArchive, NoRoom, OSError.

    Mounted with the layer files as its devices, in this order, it shows what overlayfs shows of them stacked. Nothing may lie below
    them but a tree with no more than the names in kept: whiteouts of others are dropped.
    """
    address = _INDEX_ROOM
    devices: list[Device] = []
    merged: Node | None = None
    entries = 0
    for layer in layers:
        size = os.fstat(layer).st_size
        length = tar_size(layer)
        tree = scan(_SeekingSource(layer, length))
        place_data(tree.finish(), tree.copied_blocks, length, address)
        entries += tree.entries
        devices.append(Device(address, blocks_of(size)))
        address += blocks_of(size)
        if address > _ADDRESS_MAX:
            raise InvalidArchive("the layers' files take more than 2 TiB")
        merged = tree.root if merged is None else _stack(merged, tree.root)
    if merged is None:
        raise InvalidArchive("no layers")
    _drop_whiteouts(merged, kept)
    order = list(walk(merged))
    count_directories(order)
    image = encode(order, blocks_of(HEAD_SIZE), uuid, devices=tuple(devices))
    if image.size > _INDEX_ROOM << 9:
        raise InvalidArchive("the index of these layers takes more than 4 GiB")
    _put(output, _writer(output, room), image)
    os.fdatasync(output)
    return entries


def _stack(upper: Node, lower: Node) -> Node:
    """Put a layer's tree below what is already stacked, by overlayfs's rules; whiteouts stay, they may hide what comes further down."""
    pending = [(upper, lower)]
    while pending:
        above, below = pending.pop()
        assert above.children is not None
        assert below.children is not None
        for name, node in below.children.items():
            there = above.children.get(name)
            if there is None:
                above.children[name] = node
            elif there.children is not None and not there.is_opaque:
                if node.children is not None:
                    pending.append((there, node))
                else:
                    # what is no directory ends the stack below it
                    there.make_opaque()
        if below.is_opaque and above is not upper:
            above.make_opaque()
    return upper


def _drop_whiteouts(root: Node, kept: frozenset[bytes]) -> None:
    """Overlayfs hides them only where directories merge; in others they would be listed."""
    pending = [(b"", root)]
    while pending:
        path, node = pending.pop()
        assert node.children is not None
        for name, child in list(node.children.items()):
            if child.is_whiteout and path + name not in kept:
                del node.children[name]
            elif child.children is not None:
                pending.append((path + name + b"/", child))


class _SeekingSource(Source):
    """A tar inside a layer file: what is skipped is not read, nothing is hashed."""

    def __init__(self, layer: int, size: int) -> None:
        super().__init__(lambda _limit: b"")
        self._layer = layer
        self._size = size

    def _fill(self) -> bool:
        piece = os.pread(self._layer, min(_HEADERS, self._size - self.consumed), HEAD_SIZE + self.consumed)
        self._buffer = memoryview(piece)
        return bool(piece)

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Skips, and gives nothing."""
        if size > self._size - self.consumed:
            raise TruncatedArchive("unexpected EOF")
        self._buffer = self._buffer[size:]
        self.consumed += size
        return iter(())


def _copy_fragments(output: int, write_at: WriteAt, copies: list[Copy], tar_size: int) -> None:
    """Lay sparse files' data behind the tar, at their real distances: what is between stays a hole."""
    base = HEAD_SIZE + (blocks_of(tar_size) << 9)
    for copy in copies:
        for at, offset, length in copy.fragments:
            target = base + (copy.block << 9) + at
            source = HEAD_SIZE + offset
            while length:
                piece = os.pread(output, min(length, _IO_MAX), source)
                write_at(piece, target)
                source, target, length = source + len(piece), target + len(piece), length - len(piece)


def _put(output: int, write_at: WriteAt, image: Image) -> None:
    """Write the metadata and the superblock. The file has no name that counts before it is on disk."""
    os.ftruncate(output, max(image.size, os.fstat(output).st_size))
    write_at(b"".join(image.metadata), image.offset)
    write_at(image.head, 0)


def _writer(fd: int, room: Room | None) -> WriteAt:
    """The only way in which a layer file is written: what it takes of the disk is asked for first, in whole blocks."""

    def write_at(data: bytes, position: int) -> None:
        if room is not None:
            room.take(-(-len(data) // _DISK_BLOCK) * _DISK_BLOCK, 0)
        view = memoryview(data)
        while view:
            written = os.pwrite(fd, view, position)
            view = view[written:]
            position += written

    return write_at
