"""Notices an event loop that stands still: whose fault it was is in the log, and that it was is counted."""

import asyncio
import faulthandler
import logging
import os
import time

log = logging.getLogger("sampand")

STACK_BYTES = 16 * 1024


class LoopWatch:
    """Of the running loop. start() and stop() once each.

    The stacks are written by a thread of the interpreter that runs no Python code, so that a loop which holds the interpreter's lock is
    seen as well; it waits for the loop's next sign of life.
    """

    def __init__(self, seconds: float = 5.0, every: float = 2.5) -> None:
        """seconds: what is too long. every: how often the loop gives a sign of life."""
        self._seconds, self._every = seconds, every
        self._stacks = open(os.memfd_create("stacks"), "w+b")  # noqa: SIM115 # as long as we are
        self._timer: asyncio.TimerHandle | None = None
        self.times = 0
        """How often it stood still."""
        self.longest = 0.0
        """For how many seconds at most."""

    def start(self) -> None:
        """Watch from now on."""
        self._due = time.monotonic() + self._every
        faulthandler.dump_traceback_later(self._every + self._seconds, file=self._stacks)
        self._timer = asyncio.get_running_loop().call_later(self._every, self._alive)

    def stop(self) -> None:
        """Watch no more."""
        if self._timer is not None:
            self._timer.cancel()
        faulthandler.cancel_dump_traceback_later()
        self._stacks.close()

    def _alive(self) -> None:
        late = time.monotonic() - self._due
        self.start()
        if late < self._seconds:
            return
        self.times += 1
        self.longest = max(self.longest, late)
        self._stacks.seek(0)
        stacks = self._stacks.read(STACK_BYTES).decode(errors="replace").rstrip()
        self._stacks.seek(0)
        self._stacks.truncate()
        log.warning("the event loop stood still for %.1f s\n%s", late, stacks)
