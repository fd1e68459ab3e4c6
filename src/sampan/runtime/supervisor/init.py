"""The `--init` process: PID 1 of a container that passes signals on and reaps.

It is the supervisor's forked child that stays in the container instead of a binary mounted there: nothing to install, nothing a container
could overwrite. It has the container's own user, capabilities and seccomp filter by the time it gets here.
"""

import contextlib
import ctypes
import os
import signal
from typing import NoReturn

from sampan.linux import pidfd
from sampan.linux.libc import close_range, set_name

_NEVER_FORWARDED = {
    signal.SIGCHLD, signal.SIGKILL, signal.SIGSTOP, signal.SIGTTIN, signal.SIGTTOU,
    signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS,
}  # fmt: skip
_WATCHED = {int(number) for number in signal.valid_signals()} - _NEVER_FORWARDED | {signal.SIGCHLD}


def block() -> None:
    """Before the fork: or the end of a quick child, or a first SIGTERM, would be missed."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)


def foreground() -> None:
    """In the child about to be executed: no signal blocked, its own process group, in the terminal's foreground if there is one."""
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.setpgid(0, 0)
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.tcsetpgrp(0, os.getpgid(0))
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)


def argument_area() -> tuple[int, int]:
    """(start, end) of this process's arguments in memory (fields 48 and 49 of /proc/PID/stat), (0, 0) if the kernel does not tell."""
    fields = pidfd.stat_fields("self") or []  # by number it would be another's: ours is of a PID namespace that this /proc does not show
    return (int(fields[45]), int(fields[46])) if len(fields) > 46 else (0, 0)


def set_title(area: tuple[int, int], arguments: list[str]) -> None:
    """Show these arguments in ps instead of the supervisor's: docker's own `/sbin/docker-init -- COMMAND`, cut to the room there is.

    A last byte that is not NUL makes the kernel stop at the first NUL instead of showing the padding (fs/proc/base.c, get_mm_proctitle).
    """
    size = area[1] - area[0]
    if size > 2:
        text = " ".join(arguments).encode(errors="surrogateescape")[: size - 2]
        ctypes.memmove(area[0], text.ljust(size - 1, b"\0") + b"-", size)


def supervise(child: int) -> NoReturn:
    """Forward every signal to the child, reap everything, end as the child did. Signals are blocked (block())."""
    set_name("docker-init")
    close_range(3, 2**31 - 1)
    while True:
        number = signal.sigwait(_WATCHED)
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
            continue
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                os._exit(0)
            if pid == 0:
                break
            if pid == child:
                os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
