"""Setting a file's mode without ever following a symlink: chmod(2) follows, and whoever owns the directory can put one there in between."""

import ctypes
import errno
import os
import stat

from sampan.linux import libc

_AT_SYMLINK_NOFOLLOW = 0x100
_NOT_THERE = (errno.ENOSYS, errno.EPERM)
"""EPERM: a sandbox that does not know the call."""


class Permissions:
    """chmod for names in directories that others may write to. Made while /proc is in reach: kernels before 6.6 need it. Use `with`."""

    def __init__(self) -> None:
        """Raises OSError."""
        self._proc = -1 if _has_fchmodat2() else os.open("/proc/self/fd", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> "Permissions":
        return self

    def __exit__(self, *_: object) -> None:
        if self._proc >= 0:
            os.close(self._proc)
            self._proc = -1

    def set(self, directory: int, name: bytes, mode: int) -> None:
        """Raises OSError; ELOOP or EOPNOTSUPP when the name is a symlink's."""
        if self._proc < 0:
            libc.syscall("fchmodat2", directory, name, mode, _AT_SYMLINK_NOFOLLOW)
            return
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        try:
            if stat.S_ISLNK(os.fstat(fd).st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
            os.chmod(str(fd), mode, dir_fd=self._proc)
        finally:
            os.close(fd)


def _has_fchmodat2() -> bool:
    try:
        libc.syscall("fchmodat2", -1, ctypes.create_string_buffer(b"x"), 0, _AT_SYMLINK_NOFOLLOW)
    except OSError as error:
        return error.errno not in _NOT_THERE
    return True
