"""Processes by pidfd: a number that cannot come to mean another process."""

import contextlib
import ctypes
import errno
import fcntl
import os
import select
import struct

from sampan.linux.libc import syscall

PIDFD_INFO_EXIT = 1 << 3
_INFO_SIZE_VER0 = 64
_PIDFD_GET_INFO = 0xC0000000 | (_INFO_SIZE_VER0 << 16) | (0xFF << 8) | 11
"""_IOWR(PIDFS_IOCTL_MAGIC 0xFF, 11, struct pidfd_info) of the structure's first version."""


def send_signal(fd: int, signal: int) -> None:
    """Signal the process. Raises ProcessLookupError when it is gone."""
    syscall("pidfd_send_signal", fd, signal, None, 0)


def number(fd: int) -> int:
    """The process's number; it may have ended by the time that it is used. Raises ProcessLookupError when it is gone."""
    with open(f"/proc/self/fdinfo/{fd}") as file:
        found = next((int(line.split()[1]) for line in file if line.startswith("Pid:")), -1)
    if found <= 0:
        raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
    return found


def has_ended(fd: int) -> bool:
    """Whether the process has ended; a zombie has, too. Until then its number means no other."""
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    return bool(waiting.poll(0))


def exit_status(fd: int) -> int | None:
    """The wait status of a process that was reaped by another (kernel 6.15), None if it lives or the kernel cannot say.

    Source: include/uapi/linux/pidfd.h, struct pidfd_info: mask u64, cgroupid u64, pid.. (12 x u32), exit_code s32 at byte 60.
    """
    buffer = ctypes.create_string_buffer(_INFO_SIZE_VER0)
    struct.pack_into("Q", buffer, 0, PIDFD_INFO_EXIT)
    try:
        fcntl.ioctl(fd, _PIDFD_GET_INFO, buffer)
    except OSError:
        return None
    mask = struct.unpack_from("Q", buffer, 0)[0]
    if not mask & PIDFD_INFO_EXIT:
        return None
    status: int = struct.unpack_from("i", buffer, 60)[0]
    return status


def peek_child(fd: int) -> tuple[int, int] | None:
    """(code, signal) of our own ended child, which stays a zombie; None while it lives. Raises ChildProcessError when it is another's."""
    found = os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    if found is None:
        return None
    return (found.si_status, 0) if found.si_code == os.CLD_EXITED else (128 + found.si_status, found.si_status)


def reap(fd: int) -> None:
    """Remove the zombie, if the process has ended and is our child (also an orphan that came to us)."""
    try:
        os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG)
    except OSError:
        return


def has_children() -> bool:
    """Whether we have any, alive or not."""
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return True
    return False


def stat_fields(pid: int | str) -> list[str] | None:
    """Fields of /proc/PID/stat from number 3 on (index 0 is the state), None when there is no such process."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)  # three times for each exec: open() makes ten calls of it
    except OSError:
        return None
    try:
        text = os.read(fd, 4096).decode(errors="replace")
    except OSError:  # it ended meanwhile
        return None
    finally:
        os.close(fd)
    return text[text.rindex(")") + 2 :].split()


def start_time(pid: int) -> int:
    """Clock ticks after boot at which the process started (field 22), 0 when there is none."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else 0


def zombie_status(pid: int, started: int) -> int | None:
    """The wait status of a zombie that is not our child (field 52), None if it is no zombie or another process has the number."""
    fields = stat_fields(pid)
    if not fields or fields[0] != "Z" or int(fields[19]) != started:
        return None
    return int(fields[49])


def decode_status(status: int) -> tuple[int, int]:
    """(code, signal) of a wait status: code is 0..255, 128 + signal for a signalled process; signal is 0 for an ordinary exit."""
    if os.WIFSIGNALED(status):
        signal = os.WTERMSIG(status)
        return 128 + signal, signal
    return os.WEXITSTATUS(status), 0
