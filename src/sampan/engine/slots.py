"""So many at a time."""

import asyncio
from collections.abc import Callable


class Slots:
    """By a number that may change; 0: no limit (moby distribution/xfer/transfer.go). Use with `async with`."""

    def __init__(self, number: Callable[[], int]) -> None:
        self._number = number
        self._taken = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def locked(self) -> bool:
        """Whether the next one has to wait."""
        return 0 < self._number() <= self._taken

    async def __aenter__(self) -> None:
        while self.locked():
            self._waiting.add(waiter := asyncio.get_running_loop().create_future())
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)
        self._taken += 1

    async def __aexit__(self, *_: object) -> None:
        self._taken -= 1
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
