"""A layer's tar as a tree in memory: what sampan.archive.apply would extract, without extracting it. Pure; the data stays in the tar.

The rules are those of apply, step by step; tests hold the two against each other.
"""

import errno
import os
import stat
import struct
from collections.abc import Iterator
from typing import Final

from sampan.archive.apply import (
    ID_MAX,
    NAME_MAX,
    OPAQUE,
    OPAQUE_XATTR,
    OWN_XATTRS,
    check_device,
    check_owner,
    clean,
    hard_link_missing,
    hidden_by,
    link_target,
    printable,
)
from sampan.archive.latelinks import ROUNDS_MAX, Waiting, in_order
from sampan.archive.reader import BLOCKDEV, CHAR, DIRECTORY, FIFO, HARDLINK, REGULAR, SYMLINK, Entry, InvalidArchive
from sampan.archive.room import ENTRIES_MAX, NoRoom

_PATH_MAX = 4095
_XATTR_NAME_MAX = 255
_LINKS_MAX = 40
_XATTR_MAX = 65535
"""EROFS has 16 bits for the length of a value: one byte less than the kernel takes elsewhere."""
_XATTR_TOTAL_MAX = 65536
"""What listxattr can give (XATTR_LIST_MAX); also keeps an inode's attributes far below EROFS's 256 KiB."""
_NODE_TYPE = {CHAR: stat.S_IFCHR, BLOCKDEV: stat.S_IFBLK, FIFO: stat.S_IFIFO}
_CAPABILITY: Final = b"security.capability"
_USER, _TRUSTED, _SECURITY = b"user.", b"trusted.", b"security."
_ACLS: Final = (b"system.posix_acl_access", b"system.posix_acl_default")
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_USER_OBJ, _ACL_USER, _ACL_GROUP_OBJ, _ACL_GROUP, _ACL_MASK, _ACL_OTHER = _ACL_TAGS = (0x01, 0x02, 0x04, 0x08, 0x10, 0x20)
_ACL_ONCE: Final = [_ACL_USER_OBJ, _ACL_GROUP_OBJ, _ACL_OTHER]


_NONE: Final[dict[bytes, bytes]] = {}


class Node:
    """An inode. Where its data is: `block` (counted in 512 bytes from the tar's start) of the tar, or of the copies behind it."""

    __slots__ = ("block", "children", "copy", "gid", "link", "mode", "mtime_ns", "nid", "nlink", "rdev", "size", "uid", "xattrs")

    def __init__(self, mode: int, mtime_ns: int = 0) -> None:
        self.mode = mode
        self.uid = self.gid = 0
        self.mtime_ns = mtime_ns
        self.size = self.block = self.nid = self.nlink = 0
        self.copy = False
        self.rdev = (0, 0)
        self.link = b""
        self.xattrs: dict[bytes, bytes] = _NONE
        self.children: dict[bytes, Node] | None = {} if stat.S_ISDIR(mode) else None

    @property
    def is_whiteout(self) -> bool:
        """Whether overlayfs takes it as one."""
        return stat.S_ISCHR(self.mode) and self.rdev == (0, 0)

    def make_opaque(self) -> None:
        """Hide lower directories of its name."""
        self.xattrs = {**self.xattrs, OPAQUE_XATTR.encode(): b"y"}

    @property
    def is_opaque(self) -> bool:
        """Whether overlayfs shows nothing of lower directories in it."""
        return OPAQUE_XATTR.encode() in self.xattrs


class Copy:
    """Data of a sparse file that has to lie at its real offsets: fragments (offset in the file, in the tar, length), bytes."""

    __slots__ = ("block", "fragments")

    def __init__(self, block: int, fragments: list[tuple[int, int, int]]) -> None:
        self.block, self.fragments = block, fragments


class _Dangling(FileNotFoundError):
    """A symlink on the way leads to nowhere."""


class LayerTree:
    """Takes entries in order by add(); then finish()."""

    def __init__(self, *, entries_max: int = ENTRIES_MAX) -> None:
        """An entry takes about 600 bytes of memory until it is written."""
        self._entries_max = entries_max
        self.root = Node(stat.S_IFDIR | 0o755)
        self.entries = self._nodes = 0
        self.copies: list[Copy] = []
        self.copied_blocks = 0
        self._parent_name: bytes | None = None
        self._parent = self.root
        self._waiting: list[Waiting] = []

    def add(self, entry: Entry, offset: int) -> None:
        """One entry whose stored data begins offset bytes into the tar. Raises InvalidArchive, NoRoom for too many."""
        self.entries += 1
        self._count(1)
        try:
            self._one(entry, offset)
        except OSError as error:
            raise InvalidArchive(f"{printable(entry.name)}: {os.strerror(error.errno or 0)}") from error

    def _count(self, nodes: int) -> None:
        """Parents that no entry names cost as much as those that one does."""
        self._nodes += nodes
        if self._nodes > self._entries_max:
            raise NoRoom(f"the archive has more than {self._entries_max} entries")

    def finish(self) -> list[Node]:
        """Resolve what waited, count links. Returns every inode once, parents before children. Raises InvalidArchive."""
        self._late_links()
        order = list(walk(self.root))
        for node in order:
            if node.children is not None:
                for child in node.children.values():
                    child.nlink += 1
        count_directories(order)
        return order

    def _one(self, entry: Entry, offset: int) -> None:
        name = clean(entry.name)
        if not name:
            return
        if entry.uid >= ID_MAX or entry.gid >= ID_MAX:
            check_owner(entry)
        parent_name, _, base = name.rpartition(b"/")
        children = self._open_parent(parent_name, entry)
        if base.startswith(b".wh."):
            self._whiteout(entry, base)
            return
        kind = entry.type
        there = children.get(base)
        merges = kind == DIRECTORY and there is not None and there.children is not None
        if there is not None and not merges:
            del children[base]
        if kind == HARDLINK:
            self._hard_link(entry, name, children, base)
            return
        if merges and there is not None:
            node = there
            node.mode = stat.S_IFDIR | entry.mode
        elif kind == REGULAR:
            node = Node(stat.S_IFREG | entry.mode)
            self._data(node, entry, offset)
        elif kind == DIRECTORY:
            node = Node(stat.S_IFDIR | entry.mode)
        elif kind == SYMLINK:
            if not 0 < len(entry.link) <= _PATH_MAX:
                raise OSError(errno.ENAMETOOLONG if entry.link else errno.ENOENT, "")
            node = Node(stat.S_IFLNK | 0o777)
            node.link = entry.link
            node.size = len(entry.link)
        elif kind in _NODE_TYPE:
            check_device(entry)
            node = Node(_NODE_TYPE[kind] | entry.mode)
            node.rdev = (entry.major, entry.minor)
        else:
            raise InvalidArchive(f"unhandled tar header type {kind[0]}")
        node.uid, node.gid, node.mtime_ns = entry.uid, entry.gid, entry.mtime_ns
        _set_xattrs(node, entry)
        children[base] = node

    def _open_parent(self, name: bytes, entry: Entry) -> dict[bytes, Node]:
        if name != self._parent_name:
            self._parent = self._directory(name, entry.mtime_ns)
            self._parent_name = name
        children = self._parent.children
        assert children is not None
        return children

    def _find(self, path: bytes) -> Node:
        """A directory by its path, symlinks followed inside the root. Raises OSError as openat2 does."""
        node, missing = self._descend(path)
        if missing:
            raise FileNotFoundError(errno.ENOENT, "")
        return node

    def _descend(self, path: bytes) -> tuple[Node, list[bytes]]:
        """The last directory of a path that is there, and the names that are missing below it. Raises OSError as openat2 does."""
        if len(path) > _PATH_MAX:
            raise OSError(errno.ENAMETOOLONG, "")
        stack = [self.root]
        pending = path.split(b"/")[::-1]
        own = len(pending)
        """How many of the pending are the path's own names, not a symlink's"""
        links = 0
        while pending:
            part = pending.pop()
            is_own = len(pending) < own
            own = min(own, len(pending))
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(stack) > 1:
                    stack.pop()
                continue
            if len(part) > NAME_MAX:
                raise OSError(errno.ENAMETOOLONG, "")
            children = stack[-1].children
            assert children is not None
            child = children.get(part)
            if child is None:
                if not is_own:
                    raise _Dangling(errno.ENOENT, "")
                return stack[-1], [part, *pending[::-1]]
            if child.children is not None:
                stack.append(child)
            elif child.link:
                links += 1
                if links > _LINKS_MAX:
                    raise OSError(errno.ELOOP, "")
                if child.link.startswith(b"/"):
                    del stack[1:]
                pending += child.link.split(b"/")[::-1]
            else:
                raise NotADirectoryError(errno.ENOTDIR, "")
        return stack[-1], []

    def _directory(self, path: bytes, mtime_ns: int) -> Node:
        """The same, made where it is missing: root's, 0755, as old as what is in it."""
        try:
            node, missing = self._descend(path)
        except _Dangling:
            raise FileExistsError(errno.EEXIST, "") from None
        self._count(len(missing))
        for part in missing:
            assert node.children is not None
            child = Node(stat.S_IFDIR | 0o755, mtime_ns)
            node.children[part] = child
            node = child
        return node

    def _whiteout(self, entry: Entry, base: bytes) -> None:
        if base == OPAQUE:
            self._parent.make_opaque()
            return
        hidden = hidden_by(entry, base)
        if hidden is None:
            return
        assert self._parent.children is not None
        there = self._parent.children.get(hidden)
        if there is None:
            node = Node(stat.S_IFCHR, entry.mtime_ns)
            node.uid, node.gid = entry.uid, entry.gid
            self._parent.children[hidden] = node
        elif there.children is not None:
            there.make_opaque()

    def _hard_link(self, entry: Entry, name: bytes, children: dict[bytes, Node], base: bytes) -> None:
        target = link_target(entry)
        node = self._target(target)
        if node is None:
            self._waiting.append(Waiting(name, target, entry))
        else:
            children[base] = _linkable(node)
            _link_attributes(node, entry)

    def _target(self, path: bytes) -> Node | None:
        """What a hard link names, or None when it is not there (yet)."""
        parent, _, base = path.rpartition(b"/")
        try:
            children = self._find(parent).children
        except FileNotFoundError:
            return None
        assert children is not None
        return children.get(base)

    def _late_links(self) -> None:
        rounds = 0
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            for link in in_order(waiting):
                try:
                    if not self._late_link(link):
                        self._waiting.append(link)
                except OSError as error:
                    raise InvalidArchive(f"{printable(link.entry.name)}: {os.strerror(error.errno or 0)}") from error
            rounds += 1
            if len(self._waiting) == len(waiting) or rounds == ROUNDS_MAX:
                raise hard_link_missing(self._waiting[0].entry)

    def _late_link(self, link: Waiting) -> bool:
        node = self._target(link.target)
        if node is None:
            return False
        parent_name, _, base = link.name.rpartition(b"/")
        children = self._open_parent(parent_name, link.entry)
        if base not in children:  # a later entry of the name wins
            children[base] = _linkable(node)
        return True

    def _data(self, node: Node, entry: Entry, offset: int) -> None:
        node.size = entry.size
        if entry.sparse is None:
            node.block = offset >> 9
            return
        node.copy, node.block = True, self.copied_blocks
        fragments: list[tuple[int, int, int]] = []
        for at, length in entry.sparse:
            fragments.append((at, offset, length))
            offset += length
        self.copies.append(Copy(node.block, fragments))
        self.copied_blocks += -(-entry.size >> 9)


def _linkable(node: Node) -> Node:
    """A node that may get another name. Raises PermissionError for a directory, as link(2)."""
    if node.children is not None:
        raise PermissionError(errno.EPERM, "")
    return node


def walk(root: Node) -> Iterator[Node]:
    """Every inode once, parents before children."""
    seen = set()
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        if node.children is not None:
            for child in node.children.values():
                if child.children is not None:
                    stack.append(child)
                elif id(child) not in seen:
                    seen.add(id(child))
                    stack.append(child)


def count_directories(order: list[Node]) -> None:
    """Set the nlink of directories; find(1) and others draw conclusions from it."""
    for node in order:
        if node.children is not None:
            node.nlink = 2 + sum([child.children is not None for child in node.children.values()])


def _link_attributes(node: Node, entry: Entry) -> None:
    """What a hard link's entry says of the file it links to. Raises OSError."""
    symlink = stat.S_ISLNK(node.mode)
    if (node.uid, node.gid) != (entry.uid, entry.gid):
        node.uid, node.gid = entry.uid, entry.gid
        if _CAPABILITY in node.xattrs:  # as chown(2)
            node.xattrs = {key: value for key, value in node.xattrs.items() if key != _CAPABILITY}
    if not symlink:
        node.mode = stat.S_IFMT(node.mode) | entry.mode
        node.mtime_ns = entry.mtime_ns
    _set_xattrs(node, entry)


def _set_xattrs(node: Node, entry: Entry) -> None:
    """Those of an entry, as setxattr(2) and then chmod(2) would have them. Raises OSError for what they would refuse."""
    if entry.xattrs:
        _merge_xattrs(node, entry.xattrs)
    if _ACLS[0] in node.xattrs:
        node.xattrs[_ACLS[0]] = _acl_with_mode(node.xattrs[_ACLS[0]], entry.mode)


def _merge_xattrs(node: Node, xattrs: dict[bytes, bytes]) -> None:
    """What setxattr(2) would keep; others are left out, as docker does. Raises OSError for what it would refuse."""
    node.xattrs = dict(node.xattrs)
    ordinary = stat.S_ISREG(node.mode) or stat.S_ISDIR(node.mode)
    for key, value in xattrs.items():
        if key.startswith(OWN_XATTRS):
            continue
        if key in _ACLS:
            if stat.S_ISLNK(node.mode):
                _acl_entries(value)  # read first, then not supported
                continue
            kept = _check_acl(value) if key == _ACLS[0] else _check_acl(value) or len(value) > 4
            if key == _ACLS[1] and kept and not stat.S_ISDIR(node.mode):
                raise PermissionError(errno.EACCES, "")
            if not kept:
                node.xattrs.pop(key, None)
                continue
        elif key.startswith(_USER):
            if not ordinary:
                continue
        elif not key.startswith((_TRUSTED, _SECURITY)):
            continue
        name = key.partition(b".")[2]
        if (not name and key not in _ACLS) or len(key) > _XATTR_NAME_MAX:
            raise OSError(errno.ERANGE if name else errno.EINVAL, "")
        if len(value) > _XATTR_MAX:
            raise OSError(errno.E2BIG, "")
        if key == _CAPABILITY:
            _check_capability(value)
        node.xattrs[key] = value
    if sum(len(key) + len(value) + 8 for key, value in node.xattrs.items()) > _XATTR_TOTAL_MAX:
        raise OSError(errno.ENOSPC, "")


def _acl_entries(value: bytes) -> list[tuple[int, int, int]]:
    """(tag, permissions, ID) of each entry. Raises OSError for what posix_acl_from_xattr refuses."""
    entries = list(_ACL_ENTRY.iter_unpack(value[4:])) if len(value) % 8 == 4 else [(0, 0, 0)]
    named = (_ACL_USER, _ACL_GROUP)
    known = all(tag in _ACL_TAGS and not (tag in named and number == 0xFFFFFFFF) for tag, _, number in entries)
    if value[:4] != b"\2\0\0\0" or not known:
        raise OSError(errno.EINVAL, "")
    return entries


def _check_acl(value: bytes) -> bool:
    """Whether the kernel would keep an ACL: not an empty one, nor one that says no more than a mode. Raises OSError for a wrong one.

    As posix_acl_valid: with a wrong one every access to the file would fail.
    """
    entries = _acl_entries(value)
    tags = [tag for tag, _, _ in entries]
    named = any(tag in (_ACL_USER, _ACL_GROUP) for tag in tags)
    valid = (
        all(perm <= 7 for _, perm, _ in entries)
        and tags == sorted(tags)
        and [tag for tag in tags if tag in _ACL_ONCE] == (_ACL_ONCE if entries else [])
        and tags.count(_ACL_MASK) <= 1
        and (not named or _ACL_MASK in tags)
    )
    if not valid:
        raise OSError(errno.EINVAL, "")
    return len(entries) > len(_ACL_ONCE)


def _acl_with_mode(value: bytes, mode: int) -> bytes:
    """An access ACL after chmod (posix_acl_chmod): the mode's group bits are the mask's."""
    changed = bytearray(value)
    for at in range(4, len(value), 8):
        tag, perm, number = _ACL_ENTRY.unpack_from(value, at)
        if tag == _ACL_USER_OBJ:
            perm = mode >> 6 & 7
        elif tag == _ACL_MASK:
            perm = mode >> 3 & 7
        elif tag == _ACL_OTHER:
            perm = mode & 7
        _ACL_ENTRY.pack_into(changed, at, tag, perm, number)
    return bytes(changed)


def _check_capability(value: bytes) -> None:
    """File capabilities of revision 2 or 3 (cap_convert_nscap)."""
    revision = {20: 2, 24: 3}.get(len(value))
    if revision is None or value[3] != revision:
        raise OSError(errno.EINVAL, "")
