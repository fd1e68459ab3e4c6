"""An eventfd the keeper writes when a log has grown, awaited in sampand."""

import asyncio
import contextlib
import os
from collections.abc import Callable

from sampan.runtime.logframe import Position


def no_action() -> None:
    """For at_end() of a reader that is done."""


class Wakeup:
    """Give `fd` to the keeper (KeeperClient.follow), then `while await wakeup.wait(): read`. Call end() when the run is drained or gone."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self.limit: Position | None = None
        self._at_end: Callable[[], None] | None = None
        self._event = asyncio.Event()
        self._ended = False
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self.fd, self._ready)

    def _ready(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self.fd)
        self._event.set()

    def end(self, limit: Position | None = None) -> None:
        """Nothing more will be written; limit is the position of the end, if known (the keeper's `drained` event or follow reply)."""
        self._ended = True
        self.limit = limit
        self._event.set()
        if self._at_end is not None:
            self._at_end()

    def at_end(self, action: Callable[[], None]) -> None:
        """Have action done by end(), at once if it has been called."""
        self._at_end = action
        if self._ended:
            action()

    @property
    def ended(self) -> bool:
        """Whether end() was called."""
        return self._ended

    async def wait(self) -> bool:
        """True: there may be more. False: the log has ended, what is left can be read without waiting."""
        if not self._ended:
            await self._event.wait()
            self._event.clear()
        return not self._ended

    def close(self) -> None:
        """Give the descriptor back. May be called twice."""
        if self.fd >= 0:
            self._loop.remove_reader(self.fd)
            os.close(self.fd)
            self.fd = -1
