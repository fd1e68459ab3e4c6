"""Removing and measuring directory trees that somebody else made: any depth, any names, no recursion, no path longer than one name."""

import os
import stat
from contextlib import suppress


def remove_tree(parent_fd: int, name: bytes | str) -> None:
    """Remove name (file or directory with all below) from the directory parent_fd; silent when it does not exist.

    Directories found inside are first moved up beside their top, so that depth costs neither stack nor
    descriptors. Can be interrupted and run again.
    """
    top = os.fsencode(name)
    try:
        if not stat.S_ISDIR(os.stat(top, dir_fd=parent_fd, follow_symlinks=False).st_mode):
            os.unlink(top, dir_fd=parent_fd)
            return
        top_fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
    except FileNotFoundError:
        return
    try:
        _flatten(top_fd)
    finally:
        os.close(top_fd)
    os.rmdir(top, dir_fd=parent_fd)


def _flatten(top_fd: int) -> None:
    """Empty a directory."""
    prefix = b".sampan-" + os.urandom(8).hex().encode() + b"-"
    count = 0
    pending: list[bytes] = []

    def clear(directory_fd: int) -> None:
        nonlocal count
        # all names first: changing a directory while it is read may skip or repeat entries
        with os.scandir(directory_fd) as entries:
            found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
        for child, is_directory in found:
            if not is_directory:
                os.unlink(child, dir_fd=directory_fd)
            elif directory_fd == top_fd:
                pending.append(child)
            else:
                moved = prefix + str(count).encode()
                count += 1
                os.rename(child, moved, src_dir_fd=directory_fd, dst_dir_fd=top_fd)
                pending.append(moved)

    clear(top_fd)
    while pending:
        name = pending.pop()
        with suppress(OSError):  # most are empty by now: one call less
            os.rmdir(name, dir_fd=top_fd)
            continue
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=top_fd)
        try:
            clear(fd)
        finally:
            os.close(fd)
        os.rmdir(name, dir_fd=top_fd)


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
