"""sampand is a subreaper, so orphans of a killed keeper come to it. Their ends are taken here, once nobody else wants them."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from sampan.linux import pidfd

PAUSE_SECONDS = 2.0
"""A zombie that is still there after it belongs to nobody: whoever waits for a child of his own does so at once."""


def zombies() -> set[int]:
    """Our ended children that were not waited for; none on a kernel without CONFIG_PROC_CHILDREN."""
    found: set[int] = set()
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):
            found.update(int(word) for word in Path(f"/proc/self/task/{thread}/children").read_text().split())
    return {pid for pid in found if (pidfd.stat_fields(pid) or [""])[0] == "Z"}


def _take(ended: set[int]) -> None:
    for pid in ended:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


async def reap_orphans() -> None:
    """Run until cancelled. Subprocesses, containers and execs are waited for by those who know them, and not touched."""
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGCHLD, ended.set)
    try:
        while True:
            await ended.wait()
            ended.clear()
            await asyncio.sleep(PAUSE_SECONDS)
            before = zombies()
            if before:
                await asyncio.sleep(PAUSE_SECONDS)
                _take(before & zombies())
    finally:
        loop.remove_signal_handler(signal.SIGCHLD)  # one that ends while the loop closes would be a complaint of Python's
