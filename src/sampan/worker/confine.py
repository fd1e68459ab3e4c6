"""What a worker gives up before it looks at hostile bytes."""

import os
import resource
import signal
from contextlib import suppress

from sampan.linux import capabilities, libc, prctl, seccomp, seccomp_bpf
from sampan.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNET

_NOBODY = 65534
_MEMORY_MAX = 2 << 30
_EXTRACT = ["CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_SETFCAP", "CAP_SYS_ADMIN"]
"""CAP_SYS_ADMIN is for the trusted.* xattrs overlayfs reads."""
_NEVER = (
    "socket socketpair connect bind listen accept accept4 execve execveat ptrace process_vm_readv process_vm_writev process_madvise kcmp "
    "pidfd_getfd mount umount umount2 pivot_root chroot move_mount open_tree "
    "fsopen fsconfig fsmount fspick mount_setattr unshare setns bpf "
    "perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register add_key request_key keyctl init_module finit_module "
    "delete_module kexec_load kexec_file_load reboot swapon swapoff open_by_handle_at name_to_handle_at iopl ioperm quotactl quotactl_fd "
    "acct settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname syslog fanotify_init memfd_secret personality"
)
"""System calls that no job makes once it is confined: they fail with EPERM."""
_filters: list[bytes] = []
"""The filter, where this machine has one; compiled once, by the zygote."""


def close_others(keep: list[int]) -> None:
    """Close every descriptor from 3 on that is not kept."""
    first = 3
    for fd in sorted({fd for fd in keep if fd >= 3}):
        if fd > first:
            os.closerange(first, fd)
        first = fd + 1
    libc.close_range(first, 0x7FFFFFFF)


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends. To be said again after a change of the user: the kernel forgets."""
    libc.prctl(prctl.PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def cut_off() -> None:
    """A network of one's own, without any interface, for this process and all it will fork."""
    if os.geteuid() == 0:
        with suppress(OSError):  # a sandbox may forbid it; the jobs do without a network anyway
            libc.unshare(CLONE_NEWNET | CLONE_NEWIPC)


def compile_filter() -> None:
    """Make the filter that all jobs forked from this process will put on."""
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": _NEVER.split(), "action": "SCMP_ACT_ERRNO", "errnoRet": 1}]}
    with suppress(KeyError, ValueError):  # an architecture without a table
        _filters[:] = [seccomp_bpf.compile_profile(profile, (), libc.MACHINE, (0, 0))]


def _filter() -> None:
    """No new privileges, and the filter; a kernel without seccomp does without."""
    prctl.set_no_new_privs()
    for program in _filters:
        with suppress(OSError):
            seccomp.install(program)


def be_expendable() -> None:
    """Let the kernel's OOM killer take this process before any container; it may have so much memory and no more."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("800")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_MAX, _MEMORY_MAX))


def into_root(root_fd: int) -> None:
    """Make a directory this process's root, keep only what extracting needs. Without root's rights: as far as it goes."""
    os.fchdir(root_fd)
    if os.geteuid() != 0:
        return
    bounding = capabilities.bounding_set()  # read from /proc, which is about to be out of reach
    os.chroot(".")
    keep = capabilities.mask_of(_EXTRACT) & bounding
    capabilities.limit_bounding(keep, bounding)
    capabilities.capset(keep, keep, 0)
    _filter()


def into_nothing(root_fd: int, *, writes: bool = False) -> None:
    """Give up everything: another root, user nobody, no capability. For jobs that need no more than the descriptors they have.

    writes: whether one of them is a file to be written.
    """
    parent = os.getppid()
    os.fchdir(root_fd)
    if os.geteuid() == 0:
        os.chroot(".")
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        die_with(parent)
    _filter()
    if not writes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
