"""What is to be on the disk: a whole file system by syncfs(2), the names in a directory by fsync(2)."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def syncfs(fd: int) -> None:
    """Write everything of the file system that fd is on. Raises OSError, also for an earlier write that failed (Linux 5.8+)."""
    if _libc.syncfs(ctypes.c_int(fd)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"syncfs: {os.strerror(number)}")


def sync_directory(path: str | os.PathLike[str]) -> None:
    """Make what was renamed into a directory last. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
