"""Installing a seccomp filter that was compiled elsewhere (seccomp_bpf.py)."""

import ctypes
import struct

from sampan.linux.libc import syscall

_SET_MODE_FILTER = 1


def install(program: bytes) -> None:
    """Filter this thread's syscalls for good; needs CAP_SYS_ADMIN or no_new_privs. Raises OSError."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    syscall("seccomp", _SET_MODE_FILTER, 0, header)
