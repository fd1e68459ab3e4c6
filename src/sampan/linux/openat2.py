"""openat2(2): open with rules for how the path is resolved."""

import ctypes
import os

SYS_OPENAT2 = 437
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_IN_ROOT = 0x10

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(dir_fd: int, path: bytes, flags: int, mode: int = 0, resolve: int = RESOLVE_IN_ROOT) -> int:
    """Open path relative to dir_fd; with RESOLVE_IN_ROOT dir_fd is its `/`: neither `..` nor a symlink leads out.

    The descriptor is close-on-exec. Raises OSError(errno, ..., path).
    """
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve)
    while True:
        fd: int = _libc.syscall(
            ctypes.c_long(SYS_OPENAT2), ctypes.c_int(dir_fd), ctypes.c_char_p(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
        )
        if fd >= 0:
            return fd
        error = ctypes.get_errno()
        # EAGAIN: a rename raced with `..`; the kernel asks to try again
        if error not in (4, 11):
            raise OSError(error, os.strerror(error), path)
