"""Finding a container again when keeper and supervisor died in the same instant: its process by PID and start time, its pipes by /proc.

Containers hold their own stdout and stderr open for reading too, so the pipes and what is in them are still there.
"""

import contextlib
import os
import stat

import msgspec

from sampan.linux import pidfd


class Inodes(msgspec.Struct, frozen=True):
    """Inode numbers of a container's stdio pipes as recorded at its start, 0 for none."""

    stdin: int = 0
    stdout: int = 0
    stderr: int = 0


def inode(fd: int) -> int:
    """What Inodes records of a pipe end."""
    return os.fstat(fd).st_ino


def open_process(pid: int, start_time: int) -> int | None:
    """A pidfd of the process recorded as (pid, start_time), None when it is gone (or its number is another's now)."""
    if pid <= 0:
        return None
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return None
    # Compared after opening: the number cannot change hands any more.
    if pidfd.start_time(pid) != start_time:
        os.close(fd)
        return None
    return fd


def reopen_pipes(pid: int, recorded: Inodes) -> dict[str, int]:
    """Our ends of the process's stdio pipes, opened anew through /proc/PID/fd; those it has closed or replaced are left out."""
    found: dict[str, int] = {}
    device = _pipe_device()
    for number, name, flags in ((0, "stdin", os.O_WRONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_RDONLY)):
        expected: int = getattr(recorded, name)
        if not expected:
            continue
        with contextlib.suppress(OSError):
            # By O_PATH first, which opens nothing: the container can put there whatever it can make, a device of the same number included.
            handle = os.open(f"/proc/{pid}/fd/{number}", os.O_PATH | os.O_CLOEXEC)
            try:
                if _identity(os.fstat(handle)) == (expected, device):
                    found[name] = os.open(f"/proc/self/fd/{handle}", flags | os.O_NONBLOCK | os.O_CLOEXEC)
            finally:
                os.close(handle)
    return found


def _identity(info: os.stat_result) -> tuple[int, int] | None:
    """(inode, device) of a pipe, None for what is none."""
    return (info.st_ino, info.st_dev) if stat.S_ISFIFO(info.st_mode) else None


def _pipe_device() -> int:
    """The device number of the kernel's pipe file system, in which no name can be made."""
    ends = os.pipe2(os.O_CLOEXEC)
    try:
        return os.fstat(ends[0]).st_dev
    finally:
        for fd in ends:
            os.close(fd)
