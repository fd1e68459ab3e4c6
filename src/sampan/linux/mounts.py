"""The new mount API, openat2 and pivot_root: mounts as descriptors. Thin; needs Linux 5.12."""

import errno
import os
import struct
from collections.abc import Callable

from sampan.linux import namespaces
from sampan.linux.libc import mount, syscall, umount2

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_SET_FD = 5
FSCONFIG_CMD_CREATE = 6
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x100000
ATTRIBUTES = {
    "ro": MOUNT_ATTR_RDONLY,
    "nosuid": MOUNT_ATTR_NOSUID,
    "nodev": MOUNT_ATTR_NODEV,
    "noexec": MOUNT_ATTR_NOEXEC,
    "noatime": MOUNT_ATTR_NOATIME,
    "strictatime": MOUNT_ATTR_STRICTATIME,
    "nodiratime": MOUNT_ATTR_NODIRATIME,
}
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
PROPAGATION = {"private": MS_PRIVATE, "slave": MS_SLAVE, "shared": MS_SHARED}
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8
MAX_LINKS = 40
"""Symlinks followed in one path: the kernel's own limit (namei.c MAXSYMLINKS)."""
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10
_RETRIES = 1000

__all__ = ["mount", "umount2"]


def fsopen(kind: str) -> int:
    """A file-system context of the kind, as a descriptor."""
    return syscall("fsopen", kind.encode(), 1, path=kind)


def fsconfig_string(fd: int, key: str, value: str) -> None:
    """Set an option; the kernel takes at most 255 bytes of value."""
    syscall("fsconfig", fd, FSCONFIG_SET_STRING, key.encode(), value.encode(), 0, path=f"{key}={value}")


def fsconfig_flag(fd: int, key: str) -> None:
    """Set an option without a value."""
    syscall("fsconfig", fd, FSCONFIG_SET_FLAG, key.encode(), None, 0, path=key)


def fsconfig_fd(fd: int, key: str, value: int) -> None:
    """Set an option to a descriptor."""
    syscall("fsconfig", fd, FSCONFIG_SET_FD, key.encode(), None, value, path=f"{key}={value}")


def fsconfig_create(fd: int) -> None:
    """Make the superblock."""
    syscall("fsconfig", fd, FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(fd: int, attributes: int = 0) -> int:
    """A detached mount of a created context."""
    return syscall("fsmount", fd, 1, attributes)


def new_mount(kind: str, options: list[str], attributes: int = 0, source: str = "") -> int:
    """A detached mount of a new file system; options are `key=value` or flags. Raises OSError."""
    context = fsopen(kind)
    try:
        if source:
            fsconfig_string(context, "source", source)
        for option in options:
            key, equals, value = option.partition("=")
            if equals:
                fsconfig_string(context, key, value)
            else:
                fsconfig_flag(context, key)
        fsconfig_create(context)
        return fsmount(context, attributes)
    finally:
        os.close(context)


def clone_tree(dirfd: int, path: str, recursive: bool) -> int:
    """A detached copy of the mount at path (with submounts if recursive): a bind mount that is nowhere yet."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    return syscall("open_tree", dirfd, path.encode(), flags, path=path)


def clone_of(process: int, path: str) -> int:
    """A detached copy of a mount that another process (a pidfd) has at path. Raises OSError. Not for a process with threads.

    open_tree(2) clones mounts of the caller's own namespace only.
    """
    own = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.setns(process, namespaces.CLONE_NEWNS)
        try:
            return clone_tree(AT_FDCWD, path, False)
        finally:
            namespaces.setns(own, namespaces.CLONE_NEWNS)
    finally:
        os.close(own)


def move_mount(mount_fd: int, target_fd: int, path: str = "") -> None:
    """Attach a detached mount on an O_PATH descriptor; path is for the error only."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH
    syscall("move_mount", mount_fd, b"", target_fd, b"", flags, path=path)


def mount_setattr(fd: int, *, attributes: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False, userns: int = 0) -> None:
    """Change attributes and propagation of the mount at fd. userns: the user namespace of MOUNT_ATTR_IDMAP."""
    argument = struct.pack("QQQQ", attributes, clear, propagation, userns)
    syscall("mount_setattr", fd, b"", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), argument, len(argument))


def clone_below(directory: str, subpath: str, recursive: bool) -> int:
    """clone_tree of what is at a path beneath a directory: what leads out of it, by `..` or by a symlink, is EXDEV. Raises OSError.

    subpath "": of the directory (or file) itself.
    """
    if not subpath:
        return clone_tree(AT_FDCWD, directory, recursive)
    directory_fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _clone_beneath(directory_fd, subpath, recursive)
    except OSError as error:
        error.filename = f"{directory}/{subpath}"
        raise
    finally:
        os.close(directory_fd)


def _clone_beneath(directory_fd: int, subpath: str, recursive: bool) -> int:
    fd = _openat2(directory_fd, subpath, os.O_PATH, 0, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS)
    try:
        return clone_tree(fd, "", recursive)
    finally:
        os.close(fd)


def cut_down(mount_fd: int, subpath: str, place_fd: int) -> int:
    """A detached mount of what is at a path beneath a detached mount. Both descriptors are closed. Raises OSError.

    Kernels before 6.15 copy attached mounts only: it is attached for a moment at place_fd, where nobody else may see it. The current
    directory is `/` afterwards.
    """
    try:
        move_mount(mount_fd, place_fd)
        try:
            return _clone_beneath(mount_fd, subpath, False)
        finally:
            os.fchdir(mount_fd)
            umount2(".", MNT_DETACH)
            os.chdir("/")
    finally:
        os.close(mount_fd)
        os.close(place_fd)


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """openat2 with RESOLVE_IN_ROOT: no symlink and no `..` leads out of root_fd. Raises OSError."""
    return _openat2(root_fd, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def _openat2(directory_fd: int, path: str, flags: int, mode: int, resolve: int) -> int:
    argument = struct.pack("QQQ", flags | os.O_CLOEXEC, mode, resolve)
    for attempt in range(_RETRIES):
        try:
            return syscall("openat2", directory_fd, path.encode(), argument, len(argument), path=path)
        except BlockingIOError:
            # `..` beside a rename or mount anywhere on the host cannot be proven safe: the kernel asks to try again (openat2(2), EAGAIN).
            if attempt == _RETRIES - 1:
                raise
    raise AssertionError("unreachable")


def ensure_in_root(
    root_fd: int, path: str, directory: bool, links: int = 0, may_make: Callable[[os.stat_result], bool] | None = None
) -> int:
    """An O_PATH descriptor of path inside the root, made (with its parents, 0755) if missing. Raises OSError.

    A dangling symlink is followed inside the root, as docker does: what it points to is made. may_make: whether in a directory.
    """
    try:
        return open_in_root(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        pass
    here = os.dup(root_fd)
    parts = [part for part in path.split("/") if part]
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        prefix = "/" + "/".join(parts[: depth + 1])
        try:
            below = open_in_root(root_fd, prefix, os.O_PATH)
        except FileNotFoundError:
            target = _link_target(part, here)
            if target is not None:
                os.close(here)
                if links > MAX_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from None
                joined = os.path.join(os.path.dirname(prefix), target, *parts[depth + 1 :])
                return ensure_in_root(root_fd, os.path.normpath(joined), directory, links + 1, may_make)
            if may_make is not None and not may_make(os.fstat(here)):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path) from None
            if last and not directory:
                os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_WRONLY | os.O_CLOEXEC, 0o755, dir_fd=here))
            else:
                os.mkdir(part, 0o755, dir_fd=here)
            below = open_in_root(root_fd, prefix, os.O_PATH)
        os.close(here)
        here = below
    return here


def _link_target(name: str, directory_fd: int) -> str | None:
    try:
        return os.readlink(name, dir_fd=directory_fd)
    except OSError:
        return None


def mount_points() -> list[str]:
    """Every mount point of this mount namespace (proc_pid_mountinfo(5): blanks and the like are octal)."""
    with open("/proc/self/mountinfo", "rb") as file:
        return [os.fsdecode(line.split(b" ", 5)[4].decode("unicode_escape").encode("latin-1")) for line in file]


def propagation_of(path: str) -> tuple[str, list[str]]:
    """(mount point, its optional fields, `shared:12` or `master:3`) of what an absolute path without symlinks lies on."""
    found, fields = "/", list[str]()
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            words = line.split(b" - ", 1)[0].split()
            point = os.fsdecode(words[4].decode("unicode_escape").encode("latin-1"))
            # of several at one place the last is the one to be seen
            if (path == point or path.startswith(point.rstrip("/") + "/")) and len(point) >= len(found):
                found, fields = point, [word.decode() for word in words[6:]]
    return found, fields


def pivot_into(root_fd: int) -> None:
    """Make the mount at root_fd our root and drop the old one (pivot_root(".", "."), pivot_root(2) NOTES)."""
    os.fchdir(root_fd)
    syscall("pivot_root", b".", b".", path="/")
    # The old root is now stacked under the new one: no mount event may reach the host while it goes.
    mount(None, ".", None, MS_SLAVE | MS_REC)
    umount2(".", MNT_DETACH)
    os.chdir("/")
