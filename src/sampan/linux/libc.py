"""The C library by ctypes: declared once, errors as OSError. No policy here.

Numbers of syscalls above 423 are the same on every architecture; the few older ones differ and are in NR.
"""

import ctypes
import errno
import os

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

MACHINE = os.uname().machine
_OLD = {
    "x86_64": {"seccomp": 317, "bpf": 321, "keyctl": 250, "capget": 125, "capset": 126, "pivot_root": 155, "renameat2": 316},
    "aarch64": {"seccomp": 277, "bpf": 280, "keyctl": 219, "capget": 90, "capset": 91, "pivot_root": 41, "renameat2": 276},
}
NR: dict[str, int] = {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "close_range": 436,
    "clone3": 435,
    "openat2": 437,
    "mount_setattr": 442,
    "quotactl_fd": 443,
    "fchmodat2": 452,
    **_OLD.get(MACHINE, _OLD["x86_64"]),
}

Argument = int | bytes | None | ctypes.Array[ctypes.c_char]


def oserror(call: str, path: str = "") -> OSError:
    """The OSError of the last failed call; `call` says which, ENOSYS in words a user can act on."""
    number = ctypes.get_errno()
    reason = "not supported by this kernel" if number == errno.ENOSYS else os.strerror(number)
    return OSError(number, f"{call}: {reason}", path) if path else OSError(number, f"{call}: {reason}")


def syscall(name: str, *arguments: Argument, path: str = "") -> int:
    """A raw syscall by name. Raises OSError naming the call and path."""
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_syscall(ctypes.c_long(NR[name]), *converted))
    if result < 0:
        raise oserror(name, path)
    return result


def unshare(flags: int) -> None:
    """unshare(2)."""
    if _libc.unshare(flags) < 0:
        raise oserror("unshare")


def setns(fd: int, flags: int) -> None:
    """setns(2); fd is a namespace or, since 5.8, a pidfd with several flags."""
    if _libc.setns(fd, flags) < 0:
        raise oserror("setns")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2), the old call: for propagation and for kernels without a new-API equivalent."""
    words = [value.encode() if value is not None else None for value in (source, target, kind)]
    data = options.encode() if options is not None else None
    if _libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), data) < 0:
        raise oserror("mount", target)


def umount2(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    if _libc.umount2(target.encode(), flags) < 0:
        raise oserror("umount2", target)


def rename_to_free(source_fd: int, name: str, target_fd: int) -> None:
    """Move an entry to another directory, where nothing of its name may be (renameat2(2), RENAME_NOREPLACE). Raises FileExistsError."""
    encoded = os.fsencode(name)
    syscall("renameat2", source_fd, encoded, target_fd, encoded, 1, path=name)


def prctl(option: int, *arguments: int) -> int:
    """prctl(2) with integer arguments."""
    values = [ctypes.c_ulong(value) for value in (*arguments, 0, 0, 0, 0)[:4]]
    result = int(_libc.prctl(option, *values))
    if result < 0:
        raise oserror("prctl")
    return result


def tid_address() -> int:
    """Where this thread's clear_child_tid points. Raises OSError where the kernel does not tell (CONFIG_CHECKPOINT_RESTORE)."""
    address = ctypes.c_ulong()
    if _libc.prctl(40, ctypes.byref(address), 0, 0, 0) < 0:
        raise oserror("prctl")
    return address.value


def share_malloc_arena() -> None:
    """One heap for all threads (mallopt): what one has freed, another uses. For programs whose threads take turns anyway."""
    _libc.mallopt(-8, 1)  # M_ARENA_MAX


def trim_heap() -> None:
    """Give the pages that malloc holds but does not need back to the kernel (malloc_trim)."""
    _libc.malloc_trim(ctypes.c_size_t(0))


def set_name(name: str) -> None:
    """The thread's name as ps and top show it (15 bytes)."""
    _libc.prctl(15, ctypes.c_char_p(name.encode()[:15]), 0, 0, 0)


def sethostname(name: str) -> None:
    """sethostname(2)."""
    data = name.encode()
    if _libc.sethostname(data, ctypes.c_size_t(len(data))) < 0:
        raise oserror("sethostname")


def setdomainname(name: str) -> None:
    """setdomainname(2)."""
    data = name.encode()
    if _libc.setdomainname(data, ctypes.c_size_t(len(data))) < 0:
        raise oserror("setdomainname")


def close_range(first: int, last: int) -> None:
    """Close every descriptor from first to last, both included."""
    if first <= last:
        syscall("close_range", first, last, 0)
