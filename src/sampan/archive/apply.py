"""Extract a layer's tar into a directory, in the form overlayfs wants: whiteouts as 0/0 devices, opaque directories as an xattr.

The rules are docker's overlay2 (moby pkg/archive/archive.go Unpack, archive_linux.go overlayWhiteoutConverter):
missing parents are root's, 0755; a directory merges into one that is there, anything else is replaced; the root's own attributes stay;
a symlinked parent made by the same tar is followed inside the root; a hard link to what the tar does not have is an error.
The caller has changed its root to the directory as well: each parent is also resolved with RESOLVE_IN_ROOT.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from typing import ClassVar, Final, Protocol

from sampan import errors
from sampan.archive.latelinks import ROUNDS_MAX, Waiting, in_order
from sampan.archive.reader import BLOCKDEV, CHAR, DIRECTORY, FIFO, HARDLINK, REGULAR, SYMLINK, Entry, InvalidArchive
from sampan.archive.recipe import RecipeWriter
from sampan.archive.room import Room
from sampan.archive.trees import measure_tree, remove_tree
from sampan.linux.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2

NAME_MAX: Final = 255
"""Bytes of one component (the kernel's NAME_MAX)."""
_PATH_MAX: Final = 4094
"""Bytes of a whole name: what a program in the container can name with its leading slash (the kernel's PATH_MAX)."""
_SHOWN: Final = 200
"""Bytes of a name that is too long, in an error's message."""
WHITEOUT: Final = b".wh."
WHITEOUT_META: Final = b".wh..wh."
OPAQUE: Final = b".wh..wh..opq"
OPAQUE_XATTR: Final = "trusted.overlay.opaque"
ACCESS_ACL, DEFAULT_ACL = b"system.posix_acl_access", b"system.posix_acl_default"
OWN_XATTRS: Final = (b"trusted.overlay.", b"user.overlay.")
ID_MAX: Final = 0xFFFFFFFF
_MAJOR_MAX, _MINOR_MAX = 0xFFF, 0xFFFFF
_BLOCK: Final = 4096
"""What a file system gives at least, bytes."""
_RECORD: Final = 32
"""Bytes of a recipe's record, but for its name."""
_ARCHIVES: Final = frozenset(
    (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EINVAL, errno.ERANGE, errno.E2BIG, errno.ENOENT,
     errno.EMLINK, errno.EFBIG, errno.EOVERFLOW)
)  # fmt: skip
"""Errors that an archive can cause: by names, links, attributes, sizes."""
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_NODE_TYPE = {CHAR: stat.S_IFCHR, BLOCKDEV: stat.S_IFBLK, FIFO: stat.S_IFIFO}


def clean(name: bytes) -> bytes:
    """The name relative to the root, `.` and empty components removed; b"" is the root itself.

    Raises InvalidArchive for one that leads out or is too long.
    """
    plain = (name[2:] if name[:2] == b"./" else name).strip(b"/")
    if b"//" not in plain and b"/." not in plain and plain[:1] != b"." and len(plain) <= NAME_MAX:  # nearly always
        return plain
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidArchive(f"{_shortened(name)!r} is outside of the root: breakout")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    cleaned = b"/".join(parts)
    if len(cleaned) > _PATH_MAX or any(len(part) > NAME_MAX for part in parts):
        raise InvalidArchive(f"{_shortened(name)}: File name too long")
    return cleaned


def link_target(entry: Entry) -> bytes:
    """What a hard link names, as clean() has it. Raises InvalidArchive, which names the link too."""
    try:
        target = clean(entry.link)
    except InvalidArchive as error:
        raise InvalidArchive(f"invalid hardlink {printable(entry.name)!r}: {error}") from None
    if not target:
        raise InvalidArchive(f"invalid hardlink {printable(entry.name)!r} -> {printable(entry.link)!r}")
    return target


def printable(name: bytes) -> str:
    """A name for an error message, which may be read on a terminal: nothing in it moves the cursor or turns the direction of writing."""
    return errors.printable(name.decode("utf-8", "backslashreplace"))


def _shortened(name: bytes) -> str:
    """The same of a name of any length."""
    return printable(name) if len(name) <= _SHOWN else printable(name[:_SHOWN]) + "..."


class Reader(Protocol):
    """A tar reader, or what stands before one (reader.TarReader)."""

    def __iter__(self) -> Iterator[Entry]:
        """The entries."""

    def data(self) -> Iterator[memoryview]:
        """The current one's stored bytes."""

    def moved(self, file: int, limit: int) -> int:
        """See reader.TarReader."""


def check_owner(entry: Entry) -> None:
    """Raises InvalidArchive for owners that the kernel cannot have."""
    if entry.uid >= ID_MAX or entry.gid >= ID_MAX:
        raise InvalidArchive(f"{printable(entry.name)}: invalid owner {entry.uid}:{entry.gid}")


def check_device(entry: Entry) -> None:
    """Raises InvalidArchive for device numbers that the kernel cannot have."""
    if entry.major > _MAJOR_MAX or entry.minor > _MINOR_MAX:
        raise InvalidArchive(f"{printable(entry.name)}: invalid device {entry.major}:{entry.minor}")


def hidden_by(entry: Entry, base: bytes) -> bytes | None:
    """The name that a whiteout hides; None for aufs' own bookkeeping. Raises InvalidArchive."""
    if base.startswith(WHITEOUT_META):
        return None
    hidden = base[len(WHITEOUT) :]
    if hidden in (b"", b".", b".."):
        raise InvalidArchive(f"invalid whiteout {printable(entry.name)!r}")
    return hidden


def hard_link_missing(entry: Entry) -> InvalidArchive:
    """The error for a hard link to what the tar does not have."""
    return InvalidArchive(f"link {printable(entry.link)} {printable(entry.name)}: no such file or directory")


def _refusal(entry: Entry, error: OSError) -> InvalidArchive | OSError:
    """The error for an entry: what is wrong with the archive, or how the machine has failed."""
    number = error.errno or 0
    links = number == errno.EPERM and entry.type == HARDLINK  # to a directory; else a right is missing that the engine should have
    if number in _ARCHIVES or links or (number == errno.EACCES and entry.xattrs):  # a default ACL of something else than a directory
        return InvalidArchive(f"{printable(entry.name)}: {os.strerror(number)}")
    return OSError(number, os.strerror(number), entry.name)


class Applied:
    """What one tar came to."""

    def __init__(self) -> None:
        self.entries = 0
        self.size = 0
        """Sum of the sizes of regular files and of the lengths of symlinks, as docker counts (moby pkg/directory), bytes."""


class LayerApplier:
    """Extracts entries below root_fd. Use `with`, then apply()."""

    whiteouts: ClassVar[bool] = True
    """Whether `.wh.` names hide what lower layers have."""
    resolve: int = RESOLVE_IN_ROOT
    """How names of parents are followed (linux/openat2)."""

    def __init__(self, root_fd: int, room: Room | None, recipe: RecipeWriter | None = None) -> None:
        """room: asked before anything is made; None: the disk is the caller's own to fill.

        recipe: told which bytes of the tar became which file; its raw() is to be the source's tee.
        """
        self._room = room
        self._ours = os.geteuid(), os.getegid()
        """The owner of what is made here"""
        self._parents_owner = self._ours
        """Whose parents that are missing are to be; -1 leaves that to the file system"""
        self._root = root_fd
        self._recipe = recipe
        self._parent_name: bytes | None = None
        self._parent = -1
        self._directory_times: dict[bytes, int] = {}
        self._waiting: list[Waiting] = []
        self._removed = False
        """Whether something counted was replaced later"""
        self._symlinks = False
        """Whether there may be any"""
        self._heirs = False
        """Whether this tar has made directories with a default ACL, which it says itself of all that is to have one"""
        self.result = Applied()

    def __enter__(self) -> "LayerApplier":
        return self

    def __exit__(self, *_: object) -> None:
        self._forget_parent()

    def apply(self, reader: Reader) -> Applied:
        """Extract everything. Raises InvalidArchive, TruncatedArchive, OSError(errno, ..., name)."""
        for entry in reader:
            self.result.entries += 1
            if self._room is not None and entry.stored > self._room.capacity:
                raise InvalidArchive(
                    f"{_shortened(entry.name)}: no space left on device: {entry.stored} bytes, more than there are on the whole disk"
                )
            # a file of any kind may take an inode and a block for its attributes or, a directory, its names
            self._take(entry.stored + -entry.stored % _BLOCK + _BLOCK)
            try:
                self._one(entry, reader)
            except OSError as error:
                raise _refusal(entry, error) from error
        self._late_links()
        for name, mtime_ns in self._directory_times.items():
            parent, _, base = name.rpartition(b"/")
            # what a later entry removed or replaced has no time to set
            with suppress(FileNotFoundError, NotADirectoryError):
                fd = openat2(self._root, parent or b".", _DIRECTORY_FLAGS, resolve=self.resolve)
                try:
                    if stat.S_ISDIR(os.stat(base, dir_fd=fd, follow_symlinks=False).st_mode):
                        self._set_time(fd, base, mtime_ns)
                finally:
                    os.close(fd)
        if self._removed and self.whiteouts:
            self.result.size = measure_tree(self._root)[0]
        return self.result

    def _take(self, size: int, entries: int = 1) -> None:
        if self._room is not None:
            self._room.take(size, entries)

    def _one(self, entry: Entry, reader: Reader) -> None:
        name = clean(entry.name)
        if not name:
            return
        check_owner(entry)
        parent_name, _, base = name.rpartition(b"/")
        parent = self._open_parent(parent_name)
        if self.whiteouts and base.startswith(WHITEOUT):
            self._whiteout(entry, parent, base)
            return
        if entry.type == REGULAR:
            self._regular(entry, parent, base, reader)
            return
        made = not self._make_room(entry, parent, base)
        if made:
            os.mkdir(base, 0o700, dir_fd=parent)
        if entry.type == SYMLINK:
            os.symlink(entry.link, base, dir_fd=parent)
            self._symlinks = True
            self.result.size += len(entry.link)
        elif entry.type == HARDLINK:
            self._hard_link(entry, name, parent, base)
            return
        elif entry.type in _NODE_TYPE:
            check_device(entry)
            os.mknod(base, _NODE_TYPE[entry.type] | 0o600, os.makedev(entry.major, entry.minor), dir_fd=parent)
        elif entry.type != DIRECTORY:
            raise InvalidArchive(f"unhandled tar header type {entry.type[0]}")
        if made or entry.type != DIRECTORY:
            self._disinherit(parent, base)
        self._attributes(entry, parent, base)
        if entry.type == DIRECTORY:
            # written at the end: making the children changes it
            self._directory_times[name] = entry.mtime_ns
        else:
            self._set_time(parent, base, entry.mtime_ns)

    def _open_parent(self, name: bytes) -> int:
        """The parent directory, made where it is missing. Valid until the next call."""
        if name == self._parent_name:
            return self._parent
        self._forget_parent()
        self._parent = os.dup(self._root) if not name else self._open_directory(name)
        self._parent_name = name
        return self._parent

    def _open_directory(self, name: bytes) -> int:
        try:
            return openat2(self._root, name, _DIRECTORY_FLAGS, resolve=self.resolve)
        except FileNotFoundError:
            pass
        fd, missing = self._deepest(name.split(b"/"))
        for part in missing:
            try:
                self._take(_BLOCK)
                os.mkdir(part, 0o755, dir_fd=fd)
                child = openat2(fd, part, _DIRECTORY_FLAGS | os.O_NOFOLLOW)
            finally:
                os.close(fd)
            fd = child
            self._disinherit(fd)
            os.fchown(fd, *self._parents_owner)  # a set-GID directory passes on its group, too
            os.fchmod(fd, 0o755)
        return fd

    def _deepest(self, parts: list[bytes]) -> tuple[int, list[bytes]]:
        """The last directory of a path that is there, and the names below it that are missing: at least the last one."""
        there, missing = 0, len(parts)
        fd = os.dup(self._root)
        try:
            # by halves: each look costs the path's whole length
            while missing - there > 1:
                middle = (there + missing) // 2
                try:
                    deeper = openat2(self._root, b"/".join(parts[:middle]), _DIRECTORY_FLAGS, resolve=self.resolve)
                except FileNotFoundError:
                    missing = middle
                else:
                    os.close(fd)
                    fd, there = deeper, middle
        except BaseException:
            os.close(fd)
            raise
        return fd, parts[there:]

    def _forget_parent(self) -> None:
        if self._parent >= 0:
            os.close(self._parent)
        self._parent, self._parent_name = -1, None

    def _make_room(self, entry: Entry, parent: int, base: bytes) -> bool:
        """Remove what is in the way. False when a directory is still to be made."""
        try:
            there = os.stat(base, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return entry.type != DIRECTORY
        if stat.S_ISDIR(there.st_mode) and entry.type == DIRECTORY:
            return True
        if self._recipe is None:
            remove_tree(parent, base)
        else:
            if not stat.S_ISREG(there.st_mode):  # a symlink goes, or perhaps one inside of a directory
                self._recipe.keep_indirect(self._root, self._take_more)
            remove_tree(parent, base, self._keep)
        self._removed = True
        return entry.type != DIRECTORY

    def _keep(self, parent: int, base: bytes) -> None:
        """The tar is to be made again: also what of it is to be replaced now."""
        assert self._recipe is not None
        self._recipe.keep(self._root, parent, base, self._take_more)

    def _take_more(self, size: int) -> None:
        self._take(size, 0)

    def _is_indirect(self, name: bytes) -> bool:
        """Whether a directory's name leads through symlinks. It is there."""
        if not name or not self._symlinks:
            return False
        try:
            os.close(openat2(self._root, name, os.O_PATH, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS))
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
            return True
        return False

    def _whiteout(self, entry: Entry, parent: int, base: bytes) -> None:
        if base == OPAQUE:
            os.setxattr(parent, OPAQUE_XATTR, b"y")
            return
        hidden = hidden_by(entry, base)
        if hidden is None:
            return
        try:
            there = os.stat(hidden, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
            self._disinherit(parent, hidden)
            os.chown(hidden, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
            return
        # a whiteout hides what lower layers have; this layer's own entry of the name stays (image-spec layer.md)
        if stat.S_ISDIR(there.st_mode):
            fd = os.open(hidden, _DIRECTORY_FLAGS | os.O_NOFOLLOW, dir_fd=parent)
            try:
                os.setxattr(fd, OPAQUE_XATTR, b"y")
            finally:
                os.close(fd)

    def _regular(self, entry: Entry, parent: int, base: bytes, reader: Reader) -> None:
        owner = self._owner_of(entry)
        ours = owner in (self._ours, (-1, -1))
        fd = self._create(entry, parent, base, entry.mode & 0o777 if ours else 0o600)
        try:
            if self._recipe is not None:
                name = clean(entry.name)
                self._take((len(name) + _RECORD) * (1 if entry.sparse is None else len(entry.sparse)), 0)
                self._recipe.file(fd, name, entry.size, entry.sparse, indirect=self._is_indirect(name.rpartition(b"/")[0]))
            if entry.sparse is None:
                self._fill(fd, entry, reader)
            else:
                os.ftruncate(fd, entry.size)
                _write_fragments(fd, entry.sparse, reader)
            self._disinherit(fd)
            made = os.fstat(fd)  # most files are as they should be, and changing an attribute costs the file system a transaction
            if owner not in ((made.st_uid, made.st_gid), (-1, -1)):
                os.fchown(fd, *owner)
            for key, value in entry.xattrs.items():
                _set_xattr(fd, key, value)
            if entry.xattrs or stat.S_IMODE(made.st_mode) != entry.mode:
                os.fchmod(fd, entry.mode)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)
        self.result.size += entry.size

    def _create(self, entry: Entry, parent: int, base: bytes, mode: int) -> int:
        """A new file; what is in the way is removed."""
        try:
            return os.open(base, _NEW_FILE, mode, dir_fd=parent)
        except FileExistsError:
            self._make_room(entry, parent, base)
        return os.open(base, _NEW_FILE, mode, dir_fd=parent)

    def _fill(self, fd: int, entry: Entry, reader: Reader) -> None:
        """Write an ordinary file's content."""
        for piece in reader.data():
            write_all(fd, piece)

    def _hard_link(self, entry: Entry, name: bytes, parent: int, base: bytes) -> None:
        target = link_target(entry)
        if self._link(entry, parent, base):
            self._link_attributes(entry, parent, base)
        else:
            self._waiting.append(Waiting(name, target, entry))

    def _link(self, entry: Entry, parent: int, base: bytes) -> bool:
        """Make a hard link; False when its target is not there (yet)."""
        target_parent, _, target = clean(entry.link).rpartition(b"/")
        try:
            fd = openat2(self._root, target_parent or b".", _DIRECTORY_FLAGS, resolve=self.resolve)
        except FileNotFoundError:
            return False
        try:
            os.link(target, base, src_dir_fd=fd, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        finally:
            os.close(fd)
        return True

    def _late_links(self) -> None:
        """Links to later entries. A later entry of the link's own name has won."""
        rounds = 0
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            for link in in_order(waiting):
                parent_name, _, base = link.name.rpartition(b"/")
                try:
                    if not self._link(link.entry, self._open_parent(parent_name), base):
                        self._waiting.append(link)
                except FileExistsError:
                    continue
                except OSError as error:
                    raise _refusal(link.entry, error) from error
            rounds += 1
            if len(self._waiting) == len(waiting) or rounds == ROUNDS_MAX:
                raise hard_link_missing(self._waiting[0].entry)

    def _owner_of(self, entry: Entry) -> tuple[int, int]:
        """(uid, gid) an entry is to have; -1 leaves it as it is."""
        return entry.uid, entry.gid

    def _attributes(self, entry: Entry, parent: int, base: bytes) -> None:
        os.chown(base, *self._owner_of(entry), dir_fd=parent, follow_symlinks=False)
        self._set_xattrs(entry, parent, base)
        if entry.type != SYMLINK:
            self._chmod(parent, base, entry.mode)

    def _link_attributes(self, entry: Entry, parent: int, base: bytes) -> None:
        """What a hard link's entry says of the file it links to, as docker has it. A link to a later entry says nothing of that."""
        info = os.stat(base, dir_fd=parent, follow_symlinks=False)
        owner = self._owner_of(entry)
        if owner not in ((info.st_uid, info.st_gid), (-1, -1)):  # else it would cost the file its capabilities, which tars name only once
            os.chown(base, *owner, dir_fd=parent, follow_symlinks=False)
        self._set_xattrs(entry, parent, base)
        if not stat.S_ISLNK(info.st_mode):
            self._chmod(parent, base, entry.mode)
            self._set_time(parent, base, entry.mtime_ns)

    def _chmod(self, parent: int, base: bytes, mode: int) -> None:
        """Nobody else is at a layer's tree yet: the name is what was just made."""
        os.chmod(base, mode, dir_fd=parent)

    def _disinherit(self, target: int, base: bytes | None = None) -> None:
        """Take the ACLs off what was just made: a descriptor, or a name in a directory. Only the entry itself says which it has."""
        if not self._heirs:
            return
        if base is not None:
            os.fchdir(target)
        for key in (ACCESS_ACL, DEFAULT_ACL):
            try:
                if base is None:
                    os.removexattr(target, key)
                else:
                    os.removexattr(base, key, follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.ENODATA, errno.ENOTSUP):
                    raise

    def _set_xattrs(self, entry: Entry, parent: int, base: bytes) -> None:
        self._heirs = self._heirs or DEFAULT_ACL in entry.xattrs
        if entry.xattrs:
            os.fchdir(parent)  # setxattr(2) knows no directory descriptor
            for key, value in entry.xattrs.items():
                _set_xattr(base, key, value)

    @staticmethod
    def _set_time(parent: int, base: bytes, mtime_ns: int) -> None:
        os.utime(base, ns=(mtime_ns, mtime_ns), dir_fd=parent, follow_symlinks=False)


def _set_xattr(target: int | bytes, key: bytes, value: bytes) -> None:
    """Set one; those that the file system does not have are left out, as docker does. overlayfs' own are never taken from an archive."""
    if key.startswith(OWN_XATTRS):
        return
    try:
        if isinstance(target, int):
            os.setxattr(target, key, value)
        else:
            os.setxattr(target, key, value, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.ENOTSUP, errno.EPERM):
            raise


def write_all(fd: int, piece: memoryview) -> None:
    """Write everything, however many calls it takes."""
    while piece:
        piece = piece[os.write(fd, piece) :]


def _write_fragments(fd: int, fragments: list[tuple[int, int]], reader: Reader) -> None:
    """Lay the stored bytes of a sparse file where they belong."""
    pending = iter(fragments)
    offset = left = 0
    for piece in reader.data():
        while piece:
            if not left:
                offset, left = next(pending)
            written = os.pwrite(fd, piece[:left], offset)
            piece = piece[written:]
            offset, left = offset + written, left - written
