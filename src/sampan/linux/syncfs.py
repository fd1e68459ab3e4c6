"""syncfs(2): write a whole file system to disk."""

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)


def syncfs(fd: int) -> None:
    """Write everything of the file system that fd is on. Raises OSError, also for an earlier write that failed (Linux 5.8+)."""
    if _libc.syncfs(ctypes.c_int(fd)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"syncfs: {os.strerror(number)}")
