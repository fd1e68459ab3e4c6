"""fork(2) into a cgroup: clone3(2) with CLONE_INTO_CGROUP (kernel 5.7).

A process that is moved into a cgroup v2 waits for an RCU grace period, 5 to 20 ms on a machine that does not move processes all the time;
one that is born there waits for nothing.
"""

import array
import ctypes
import os
import signal

from sampan.linux import libc, prctl

CLONE_CHILD_CLEARTID = 0x00200000
CLONE_CHILD_SETTID = 0x01000000
CLONE_INTO_CGROUP = 0x200000000

# Unlike CDLL's, its calls keep the interpreter's lock: the child must own it, as after os.fork().
_python = ctypes.PyDLL(None, use_errno=True)
_python.syscall.restype = ctypes.c_long


def fork_into(cgroup: int) -> int:
    """os.fork() whose child starts in the cgroup (v2) of this directory's descriptor. Raises OSError. For a process without threads.

    What the C library's fork does beyond the system call is told to the kernel (its note of the thread's ID); the interpreter is told by
    the functions it has for that purpose.
    """
    thread_id = prctl.tid_address()
    # struct clone_args: flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
    flags = CLONE_INTO_CGROUP | CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
    arguments = array.array("Q", [flags, 0, thread_id, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, cgroup])
    address, size = arguments.buffer_info()
    _python.PyOS_BeforeFork()
    pid = int(_python.syscall(ctypes.c_long(libc.NR["clone3"]), ctypes.c_void_p(address), ctypes.c_size_t(size * arguments.itemsize)))
    if pid == 0:
        _python.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    _python.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, f"clone3: {os.strerror(number)}")
    return pid
