"""Removing and measuring directory trees that somebody else made: any depth, any names, no recursion, no path longer than one name."""

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Final

_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PARENT_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS = 0x80086601, 0x40086602
"""include/uapi/linux/fs.h, where long has 8 bytes; the value itself is an int."""
_FS_IMMUTABLE_FL, _FS_APPEND_FL, _FS_PROJINHERIT_FL = 0x10, 0x20, 0x20000000
_HINDERING = _FS_IMMUTABLE_FL | _FS_APPEND_FL | _FS_PROJINHERIT_FL
"""The last: into such a directory nothing of another project can be moved (EXDEV), and whoever owns a file says of which it is."""

Before = Callable[[int, bytes], None]
"""Told of each file before it is removed: its directory and its name."""


def _nothing(parent_fd: int, name: bytes) -> None:
    pass


def remove_tree(parent_fd: int, name: bytes | str, before: Before = _nothing) -> None:
    """Remove name (file or directory with all below) from the directory parent_fd; silent when it does not exist.

    Directories found inside are first moved up beside their top, so that depth costs neither stack nor
    descriptors. Can be interrupted and run again. What cannot be removed stays, the rest goes; then the first OSError is raised.
    Immutable and append-only files go too, where the caller has CAP_LINUX_IMMUTABLE.
    """
    top = os.fsencode(name)
    try:
        if not stat.S_ISDIR(os.stat(top, dir_fd=parent_fd, follow_symlinks=False).st_mode):
            before(parent_fd, top)
            _insist(parent_fd, top, lambda: os.unlink(top, dir_fd=parent_fd))
            return
        top_fd = os.open(top, _DIRECTORY_FLAGS, dir_fd=parent_fd)
    except FileNotFoundError:
        return
    try:
        _Flattening(top_fd, before).run()
    finally:
        os.close(top_fd)
    _insist(parent_fd, top, lambda: os.rmdir(top, dir_fd=parent_fd))


def remove_path(path: str | os.PathLike[str]) -> None:
    """remove_tree() by a path, the last name of which is not followed; silent when it does not exist."""
    directory, name = os.path.split(os.path.abspath(path))
    try:
        fd = os.open(directory, _PARENT_FLAGS)
    except FileNotFoundError:
        return
    try:
        remove_tree(fd, name)
    finally:
        os.close(fd)


def _insist(directory_fd: int, name: bytes, remove: Callable[[], None], target_fd: int = -1) -> None:
    """Remove (or move to another directory); when that is refused, take the flags off that forbid it. Raises OSError."""
    try:
        remove()
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EXDEV):
            raise
        _unlock(directory_fd)
        if target_fd >= 0:
            _unlock(target_fd)
        with suppress(OSError):  # what cannot be opened (a device, a socket) has no flags either
            if stat.S_IFMT(os.stat(name, dir_fd=directory_fd, follow_symlinks=False).st_mode) in (stat.S_IFREG, stat.S_IFDIR):
                fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory_fd)
                try:
                    _unlock(fd)
                finally:
                    os.close(fd)
        remove()


def _unlock(fd: int) -> None:
    with suppress(OSError):
        flags = struct.unpack("i4x", fcntl.ioctl(fd, _FS_IOC_GETFLAGS, bytes(8)))[0]
        if flags & _HINDERING:
            fcntl.ioctl(fd, _FS_IOC_SETFLAGS, struct.pack("i4x", flags & ~_HINDERING))


class _Flattening:
    """Empties one directory."""

    def __init__(self, top_fd: int, before: Before) -> None:
        self._top = top_fd
        self._before = before
        self._prefix = b".sampan-" + os.urandom(8).hex().encode() + b"-"
        self._count = 0
        self._pending: list[bytes] = []
        self._error: OSError | None = None

    def run(self) -> None:
        """Raises the first OSError once everything else is gone."""
        self._clear(self._top)
        while self._pending:
            name = self._pending.pop()
            with suppress(OSError):  # most are empty by now: one call less
                os.rmdir(name, dir_fd=self._top)
                continue
            self._attempt(self._remove, name)
        if self._error is not None:
            raise self._error

    def _attempt(self, step: Callable[..., None], *arguments: int | bytes) -> None:
        try:
            step(*arguments)
        except OSError as error:
            self._error = self._error or error

    def _remove(self, name: bytes) -> None:
        fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=self._top)
        try:
            self._clear(fd)
        finally:
            os.close(fd)
        _insist(self._top, name, lambda: os.rmdir(name, dir_fd=self._top))

    def _clear(self, directory_fd: int) -> None:
        # all names first: changing a directory while it is read may skip or repeat entries
        with os.scandir(directory_fd) as entries:
            found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_directory in found:
            if not is_directory:
                self._attempt(self._unlink, directory_fd, child)
            elif directory_fd == self._top:
                self._pending.append(child)
            else:
                self._attempt(self._move_up, directory_fd, child)

    def _unlink(self, directory_fd: int, child: bytes) -> None:
        self._before(directory_fd, child)
        try:
            os.unlink(child, dir_fd=directory_fd)
        except PermissionError:
            _insist(directory_fd, child, lambda: os.unlink(child, dir_fd=directory_fd))

    def _move_up(self, directory_fd: int, child: bytes) -> None:
        moved = self._prefix + str(self._count).encode()
        self._count += 1
        _insist(directory_fd, child, lambda: os.rename(child, moved, src_dir_fd=directory_fd, dst_dir_fd=self._top), self._top)
        self._pending.append(moved)


def measure_tree(directory_fd: int) -> tuple[int, int, int]:
    """(bytes, inodes, bytes on disk) below a directory; bytes: the sum of file sizes (a symlink's is its length), hard links once.

    The tree may change meanwhile.
    Follows no symlink and crosses no file system.
    """
    total, inodes, disk = 0, 0, 0
    linked: set[int] = set()
    device = os.fstat(directory_fd).st_dev
    stack = [os.scandir(directory_fd)]
    fds = [-1]
    try:
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop().close()
                if (fd := fds.pop()) >= 0:
                    os.close(fd)
                continue
            with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
                info = entry.stat(follow_symlinks=False)
                if info.st_dev != device or (info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode) and info.st_ino in linked):
                    continue
                inodes += 1
                disk += info.st_blocks * 512
                if not stat.S_ISDIR(info.st_mode):
                    total += info.st_size
                if stat.S_ISDIR(info.st_mode):
                    parent = fds[-1] if fds[-1] >= 0 else directory_fd
                    fd = os.open(entry.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
                    fds.append(fd)
                    stack.append(os.scandir(fd))
                elif info.st_nlink > 1:
                    linked.add(info.st_ino)
    finally:
        for scan in stack:
            scan.close()
        for fd in fds:
            if fd >= 0:
                os.close(fd)
    return total, inodes, disk


def own_tree(directory_fd: int, uid: int, gid: int) -> None:
    """Give all below a directory to a user. Follows no symlink and crosses no file system; what vanishes meanwhile is left out."""
    device = os.fstat(directory_fd).st_dev
    fds = [os.dup(directory_fd)]
    stack = [os.scandir(fds[0])]
    try:
        while stack:
            entry = next(stack[-1], None)
            if entry is None:
                stack.pop().close()
                os.close(fds.pop())
                continue
            with suppress(FileNotFoundError, NotADirectoryError):
                info = entry.stat(follow_symlinks=False)
                if info.st_dev != device:
                    continue
                os.chown(entry.name, uid, gid, dir_fd=fds[-1], follow_symlinks=False)
                if stat.S_ISDIR(info.st_mode):
                    fds.append(os.open(entry.name, _DIRECTORY_FLAGS, dir_fd=fds[-1]))
                    stack.append(os.scandir(fds[-1]))
    finally:
        for scan in stack:
            scan.close()
        for fd in fds:
            os.close(fd)
