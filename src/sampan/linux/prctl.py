"""prctl(2): the process attributes containers and their supervisor need."""

from sampan.linux.libc import prctl, set_name, tid_address

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

__all__ = [
    "capbset_drop",
    "capbset_read",
    "keep_rights_on_setuid",
    "set_child_subreaper",
    "set_dumpable",
    "set_keepcaps",
    "set_name",
    "set_no_new_privs",
    "tid_address",
]


def set_dumpable(enabled: bool) -> None:
    """Whether others of our uid may ptrace us and read our /proc entries."""
    prctl(PR_SET_DUMPABLE, int(enabled))


def set_keepcaps(enabled: bool) -> None:
    """Whether permitted capabilities outlive setuid from 0."""
    prctl(PR_SET_KEEPCAPS, int(enabled))


def keep_rights_on_setuid() -> None:
    """No change of the user takes capabilities away, until a user namespace is entered (SECBIT_NO_SETUID_FIXUP)."""
    prctl(PR_SET_SECUREBITS, 1 << 2)


def set_child_subreaper() -> None:
    """Orphaned descendants become our children instead of PID 1's."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)


def set_no_new_privs() -> None:
    """execve never grants privileges any more."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def capbset_read(number: int) -> bool:
    """Whether the bounding set has the capability. Raises OSError EINVAL for one the kernel does not know."""
    return bool(prctl(PR_CAPBSET_READ, number))


def capbset_drop(number: int) -> None:
    """Drop a capability from the bounding set for good."""
    prctl(PR_CAPBSET_DROP, number)
