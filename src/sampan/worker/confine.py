"""What a worker gives up before it looks at hostile bytes."""

import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.machinery import BuiltinImporter, FrozenImporter
from typing import Final

from sampan.linux import capabilities, libc, prctl, seccomp, seccomp_bpf
from sampan.linux.namespaces import CLONE_NEWIPC, CLONE_NEWNET

_NOBODY = 65534
MEMORY_MAX: Final = 2 << 30
"""Bytes that one job may have where there is much: an index of three million files."""
_MEMORY_MIN: Final = 256 << 20
READ: Final = ("CAP_DAC_OVERRIDE",)
"""Files of whatever owner."""
COMPARE: Final = (*READ, "CAP_SYS_ADMIN")
"""With the trusted.* xattrs that overlayfs writes."""
REMOVE: Final = (*READ, "CAP_FOWNER", "CAP_LINUX_IMMUTABLE")
WRITE: Final = (*READ, "CAP_CHOWN", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_SETFCAP")
EXTRACT: Final = (*WRITE, "CAP_SYS_ADMIN")
"""With trusted.* xattrs."""
_NEVER = (
    "socket socketpair connect bind listen accept accept4 execve execveat ptrace process_vm_readv process_vm_writev process_madvise kcmp "
    "pidfd_getfd mount umount umount2 pivot_root chroot move_mount open_tree "
    "fsopen fsconfig fsmount fspick mount_setattr unshare setns bpf "
    "perf_event_open userfaultfd io_uring_setup io_uring_enter io_uring_register add_key request_key keyctl init_module finit_module "
    "delete_module kexec_load kexec_file_load reboot swapon swapoff open_by_handle_at name_to_handle_at iopl ioperm quotactl quotactl_fd "
    "acct settimeofday clock_settime clock_adjtime adjtimex sethostname setdomainname syslog fanotify_init memfd_secret personality "
    # others of our user, whom no capability protects from us
    "kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal pidfd_open process_mrelease setpriority ioprio_set "
    "sched_setaffinity sched_setattr sched_setparam sched_setscheduler migrate_pages move_pages setpgid"
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
        try:
            libc.unshare(CLONE_NEWNET | CLONE_NEWIPC)
        except OSError as error:  # a sandbox may forbid it; the jobs do without a network anyway
            print(f"worker: not cut off from the network: {error}", file=sys.stderr, flush=True)


def compile_filter() -> None:
    """Make the filter that all jobs forked from this process will put on, and try it once. Where there is none, a line says so."""
    denied = {"action": "SCMP_ACT_ERRNO", "errnoRet": 1}
    rules = [
        {"names": _NEVER.split(), **denied},
        {"names": ["prlimit64"], "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_NE"}], **denied},  # 0 is the caller itself
    ]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    try:
        program = seccomp_bpf.compile_profile(profile, (), libc.MACHINE, (0, 0))
    except (KeyError, ValueError) as error:  # an architecture without a table
        print(f"worker: no seccomp filter: {error!r}", file=sys.stderr, flush=True)
        return
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            prctl.set_no_new_privs()
            seccomp.install(program)
            status = 0
        except OSError as error:  # a kernel without seccomp
            print(f"worker: no seccomp filter: {error}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
        _filters[:] = [program]


def _filter() -> None:
    """No new privileges, and the filter, if this machine has one. Raises OSError."""
    prctl.set_no_new_privs()
    for program in _filters:
        seccomp.install(program)


def limit(keep: Sequence[str], bounding: int) -> None:
    """Keep some capabilities of those in the bounding set, put on the filter. Raises OSError."""
    kept = capabilities.mask_of(list(keep)) & bounding
    capabilities.limit_bounding(kept, bounding)
    capabilities.capset(kept, kept, 0)
    _filter()


def share_of_memory(parallel: int) -> int:
    """Bytes that each of some jobs may have, so that all together take no more than half of this machine's memory."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(max(total // 2 // parallel, _MEMORY_MIN), MEMORY_MAX)


def forget_modules() -> None:
    """Import nothing from now on but what is in the interpreter itself: `/` is about to be somebody else's."""
    sys.path[:] = []
    sys.path_importer_cache.clear()
    sys.meta_path[:] = [finder for finder in sys.meta_path if finder in (BuiltinImporter, FrozenImporter)]


def be_expendable(memory: int) -> None:
    """Let the kernel's OOM killer take this process before any container; it may have so much memory (bytes) and no more."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("800")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))


def into_root(root_fd: int, keep: Sequence[str]) -> None:
    """Make a directory this process's root, keep only these capabilities. Without root's rights: as far as it goes."""
    os.fchdir(root_fd)
    if os.geteuid() != 0:
        return
    bounding = capabilities.bounding_set()  # read from /proc, which is about to be out of reach
    os.chroot(".")
    limit(keep, bounding)


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
