"""Write EROFS metadata for trees whose file data lies elsewhere: in tars, uncompressed, where they are. Pure.

A layer file:

    0       Head: what we are, the length of the tar, where the metadata begins
    1024    EROFS superblock
    4096    the tar, byte for byte
    then, at multiples of 512: copies of sparse files' data, inodes, directories

A folded index has no tar: its files lie in layer files, which are EROFS "extra devices" at addresses of one flat space.
All inodes are 64 bytes ("extended"): whole owners, nanoseconds. Data is FLAT_PLAIN, so a file is one run of blocks; a symlink is inline
where it fits into its inode's block.
Source: Linux Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h (the format is stable).
"""

import stat
import struct
from typing import Final, NamedTuple

from sampan.archive.layertree import Node
from sampan.archive.reader import InvalidArchive

BITS: Final = 9
BLOCK: Final = 1 << BITS
HEAD_SIZE: Final = 4096
_SUPER_AT: Final = 1024
_MAGIC: Final = b"sampan layer 1\n\0"
_HEAD = struct.Struct("<16sQQ")
_SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHHBBIQB23x")
_SUPER_MAGIC = 0xE0F5E1E2
_DEVICE_TABLE = 0x08
_INODE = struct.Struct("<HHHHQIIIIqII16x")
_DIRENT = struct.Struct("<QHBB")
_SLOT = struct.Struct("<64sII56x")
_XATTR_HEAD = struct.Struct("<IB7x")
_XATTR = struct.Struct("<BBH")
_FLAT_INLINE = 2 << 1
_EXTENDED = 1
_TYPE = {
    stat.S_IFREG: 1, stat.S_IFDIR: 2, stat.S_IFCHR: 3, stat.S_IFBLK: 4, stat.S_IFIFO: 5, stat.S_IFSOCK: 6, stat.S_IFLNK: 7,
}  # fmt: skip
_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)
_BLOCKS_MAX = 0xFFFFFFFF


class Head(NamedTuple):
    """The start of a layer file."""

    tar_size: int
    metadata: int
    """Offset in the file."""

    def pack(self) -> bytes:
        """Its bytes."""
        return _HEAD.pack(_MAGIC, *self)

    @staticmethod
    def unpack(data: bytes) -> "Head":
        """Raises InvalidArchive for what is not a layer file."""
        if len(data) < _HEAD.size:
            raise InvalidArchive("not a layer file")
        magic, tar_size, metadata = _HEAD.unpack_from(data)
        if magic != _MAGIC:
            raise InvalidArchive("not a layer file")
        return Head(tar_size, metadata)


class Device(NamedTuple):
    """A layer file under a folded index: its place in the flat space, in blocks."""

    address: int
    blocks: int


def blocks_of(size: int) -> int:
    """Blocks that size bytes take."""
    return -(-size >> BITS)


def place_data(order: list[Node], copied_blocks: int, tar_size: int, address: int = 0) -> int:
    """Turn blocks counted from the tar's start into addresses. Returns the first block behind the layer's data.

    order: what LayerTree.finish gave. address: of the layer file's own first block.
    """
    tar = address + (HEAD_SIZE >> BITS)
    copies = tar + blocks_of(tar_size)
    end = copies + copied_blocks
    if end > _BLOCKS_MAX:
        raise InvalidArchive("the layer's files take more than 2 TiB")
    for node in order:
        if stat.S_ISREG(node.mode):
            node.block += copies if node.copy else tar
    return end


class Image(NamedTuple):
    """What to write: the superblock's region at offset 0, the metadata at `offset`; the file is `size` bytes long."""

    head: bytes
    offset: int
    metadata: list[bytes]
    size: int


def encode(order: list[Node], first_block: int, uuid: bytes, tar_size: int = 0, devices: tuple[Device, ...] = ()) -> Image:
    """The metadata of a tree whose data is placed and whose links are counted.

    order: its inodes, each once, the root first. first_block: where metadata may begin.

    Raises InvalidArchive when there is too much.
    """
    root = order[0]
    parents = {id(child): node for node in order if node.children for child in node.children.values() if child.children is not None}
    table = blocks_of(_SLOT.size * len(devices))
    start = first_block + table
    inode_bytes = _number_inodes(order)
    directories = start + blocks_of(inode_bytes)
    inodes = bytearray(blocks_of(inode_bytes) << BITS)
    blobs: list[bytes] = []
    block = directories
    for number, node in enumerate(order, 1):
        data = b""
        if node.children is not None:
            data = _directory(node, parents.get(id(node), root))
        elif node.link and not _is_inline(node):
            data = node.link
        _put_inode(inodes, node, number, block if data else node.block, len(data) or node.size)
        if data:
            blobs.append(data + bytes(-len(data) % BLOCK))
            block += len(blobs[-1]) >> BITS
    if block > _BLOCKS_MAX:
        raise InvalidArchive("the layer's files take more than 2 TiB")
    size = -(-(block << BITS) // 4096) * 4096
    super_block = _SUPER.pack(
        _SUPER_MAGIC, 0, 0, BITS, 0, root.nid, len(order), 0, 0, size >> BITS, start, 0, uuid, b"sampan", _DEVICE_TABLE if devices else 0,
        0, len(devices), (first_block << BITS) // _SLOT.size if devices else 0, 0, 0, 0, 0, 0,
    )  # fmt: skip
    slots = b"".join(_SLOT.pack(b"layer", device.blocks, device.address) for device in devices)
    slots += bytes((table << BITS) - len(slots))
    front = (Head(tar_size, first_block << BITS).pack().ljust(_SUPER_AT, b"\0") + super_block).ljust(HEAD_SIZE, b"\0")
    return Image(front, first_block << BITS, [slots, bytes(inodes), *blobs], size)


def _number_inodes(order: list[Node]) -> int:
    """Give each inode its place (nid: in units of 32 bytes). Returns the bytes they take. The root's is not 0, which means "none"."""
    position = 32
    for node in order:
        need = 64 + (_xattr_size(node) if node.xattrs else 0)
        if node.link and _is_inline(node):
            need += len(node.link)
            if position % BLOCK + need > BLOCK:  # inline data must not cross a block
                position += -position % BLOCK
        node.nid = position >> 5
        position += need + -need % 32
    return position


def _is_inline(node: Node) -> bool:
    """Whether a symlink's target fits behind its inode, within the block that the inode begins."""
    return bool(node.link) and 64 + _xattr_size(node) + len(node.link) <= BLOCK


def _xattr_size(node: Node) -> int:
    if not node.xattrs:
        return 0
    return _XATTR_HEAD.size + sum(_padded(_XATTR.size + len(_split(key)[1]) + len(value)) for key, value in node.xattrs.items())


def _padded(size: int) -> int:
    return size + -size % 4


def _split(key: bytes) -> tuple[int, bytes]:
    for prefix, index in _PREFIXES:
        if key.startswith(prefix):
            return index, key[len(prefix) :]
    raise AssertionError(key)


def _xattr_body(node: Node) -> bytes:
    body = bytearray(_XATTR_HEAD.pack(0, 0))
    for key in sorted(node.xattrs):
        index, name = _split(key)
        value = node.xattrs[key]
        entry = _XATTR.pack(len(name), index, len(value)) + name + value
        body += entry + bytes(_padded(len(entry)) - len(entry))
    return bytes(body)


def _put_inode(inodes: bytearray, node: Node, number: int, place: int, size: int) -> None:
    kind = stat.S_IFMT(node.mode)
    layout = _EXTENDED | (_FLAT_INLINE if node.link and _is_inline(node) else 0)
    if kind in (stat.S_IFCHR, stat.S_IFBLK):
        major, minor = node.rdev
        place = (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
    elif kind == stat.S_IFIFO or not size:
        place = 0
    seconds, nanoseconds = divmod(node.mtime_ns, 1_000_000_000)
    xattrs = _xattr_body(node) if node.xattrs else b""
    count = (len(xattrs) - _XATTR_HEAD.size) // 4 + 1 if xattrs else 0
    at = node.nid << 5
    _INODE.pack_into(
        inodes, at, layout, count, node.mode, 0, size, place, number, node.uid, node.gid, seconds, nanoseconds, node.nlink
    )  # fmt: skip
    if xattrs:
        inodes[at + 64 : at + 64 + len(xattrs)] = xattrs
    if layout & _FLAT_INLINE:
        begin = at + 64 + len(xattrs)
        inodes[begin : begin + len(node.link)] = node.link


def _directory(node: Node, parent: Node) -> bytes:
    """A directory's blocks: entries sorted by name, in each block first the records, then the names. The last block is not filled up."""
    assert node.children is not None
    entries = [(b".", node.nid, 2), (b"..", parent.nid, 2)]
    entries += [(name, child.nid, _TYPE[stat.S_IFMT(child.mode)]) for name, child in node.children.items()]
    entries.sort()
    blocks: list[bytes] = []
    begin = used = 0
    for index, (name, _, _) in enumerate(entries):
        need = _DIRENT.size + len(name)
        if used + need > BLOCK:
            blocks.append(_directory_block(entries[begin:index]).ljust(BLOCK, b"\0"))
            begin, used = index, 0
        used += need
    blocks.append(_directory_block(entries[begin:]))
    return b"".join(blocks)


def _directory_block(entries: list[tuple[bytes, int, int]]) -> bytes:
    at = _DIRENT.size * len(entries)
    records: list[bytes] = []
    for name, nid, kind in entries:
        records.append(_DIRENT.pack(nid, at, kind, 0))
        at += len(name)
    return b"".join(records) + b"".join([name for name, _, _ in entries])
