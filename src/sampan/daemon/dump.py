"""SIGUSR1: every thread's and task's stack, in a file, for whoever wonders what sampand is waiting for."""

import asyncio
import io
import logging
import os
import signal
import sys
import threading
import time
import traceback
from types import FrameType

log = logging.getLogger("sampand")

MANY = 10_000
"""Tasks that are written at most."""


def dump_on_signal(exec_root: str) -> None:
    """Have the signal write stacks to a new file in exec_root from now on.

    The handler is Python's own, not the loop's: it runs in the middle of a loop that stands still.
    """
    loop = asyncio.get_running_loop()

    def write(_number: int, _frame: FrameType | None) -> None:
        path = f"{exec_root}/stacks-{time.strftime('%Y-%m-%dT%H%M%S')}{time.time_ns() % 10**9:09d}Z.log"
        try:
            _write(path, stacks(loop))
        except OSError as problem:
            loop.call_soon_threadsafe(log.error, "stacks cannot be written to %s: %s", path, problem.strerror)
        else:
            loop.call_soon_threadsafe(log.info, "stacks written to %s", path)  # the log may be in use under our feet

    signal.signal(signal.SIGUSR1, write)


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)


def stacks(loop: asyncio.AbstractEventLoop) -> str:
    """Threads, then tasks."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = []
    for ident, frame in sys._current_frames().items():
        parts.append(f"thread {names.get(ident, ident)}\n{''.join(traceback.format_stack(frame))}")
    tasks = asyncio.all_tasks(loop)
    parts.append(f"{len(tasks)} tasks\n")
    for task in list(tasks)[:MANY]:
        text = io.StringIO()
        text.write(f"task {task.get_name()} {task.get_coro()!r}\n")
        task.print_stack(file=text)
        parts.append(text.getvalue())
    return "\n".join(parts)
