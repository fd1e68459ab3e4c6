"""Capability sets: names, capset, the bounding set."""

import struct

from sampan.linux.libc import prctl, syscall
from sampan.linux.prctl import capbset_drop, capbset_read

NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
NUMBERS = {f"CAP_{name}": number for number, name in enumerate(NAMES)}

_VERSION_3 = 0x20080522
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4


def mask_of(names: list[str]) -> int:
    """The bit mask of CAP_ names. Raises KeyError."""
    mask = 0
    for name in names:
        mask |= 1 << NUMBERS[name]
    return mask


def names_of(mask: int) -> list[str]:
    """The CAP_ names in a mask, in numeric order."""
    return [name for name, number in NUMBERS.items() if mask >> number & 1]


def bounding_set() -> int:
    """This process's bounding set, from /proc/self/status."""
    with open("/proc/self/status") as file:
        for line in file:
            if line.startswith("CapBnd:"):
                return int(line.split()[1], 16)
    return 0


def bounding_now() -> int:
    """This process's bounding set without /proc: for who is in a container already."""
    mask = 0
    for number in range(64):
        try:
            mask |= capbset_read(number) << number
        except OSError:  # the kernel has no more of them
            break
    return mask


def limit_bounding(keep: int, current: int) -> None:
    """Drop from the bounding set everything of `current` that is not in `keep`. Needs CAP_SETPCAP."""
    for number in range(64):
        if current >> number & 1 and not keep >> number & 1:
            capbset_drop(number)


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2) on this thread."""
    header = struct.pack("Ii", _VERSION_3, 0)
    low, high = 0xFFFFFFFF, 32
    data = struct.pack("6I", effective & low, permitted & low, inheritable & low, effective >> high, permitted >> high, inheritable >> high)
    syscall("capset", header, data)


def clear_ambient() -> None:
    """Empty the ambient set."""
    prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
