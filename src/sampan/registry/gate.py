"""One gate between those who add to the store and the collector, which removes from it: many may add at once, the collector is alone.

The collector holds it for milliseconds at a time (gc.py). Whoever asks later waits for it, so that it gets its turn however much is pushed.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Shared and exclusive, in the order of asking. For one event loop."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._inside = 0
        self._waiting = 0
        self._alone = False

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Beside others who share."""
        if self._alone or self._waiting:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._alone and not self._waiting)
        self._inside += 1  # no other task has run since the condition was true
        try:
            yield
        finally:
            self._inside -= 1
            if self._waiting and not self._inside:
                await self._tell()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Alone."""
        self._waiting += 1
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._alone and not self._inside)
            self._alone = True
        finally:
            self._waiting -= 1
            if not self._alone:
                await self._tell()
        try:
            yield
        finally:
            self._alone = False
            await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
