"""One gate between those who add to the store and the collector, which removes from it: many may add at once, the collector is alone.

The collector holds it for milliseconds at a time (gc.py). Whoever asks later waits for it, so that it gets its turn however much is pushed.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

from sampan.waiting import to_the_end

T = TypeVar("T")
STEP = 32
"""Things taken away while others wait."""


def steps(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """For one turn behind the gate each."""
    for start in range(0, len(items), STEP):
        yield items[start : start + STEP]


class Gate:
    """Shared and exclusive: whoever asks for one waits for those who have asked for the other. For one event loop."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._inside = 0
        self._waiting = 0
        self._alone = False
        self._sharing = 0
        """How many wait to share."""
        self._let_in = 0
        """How many of them go first now: they have waited for somebody who was alone, and who may at once ask again."""

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Beside others who share."""
        if self._alone or self._waiting:
            await self._wait_to_share()
        self._inside += 1  # no other task has run since the condition was true
        try:
            yield
        finally:
            self._inside -= 1
            if self._waiting and not self._inside:
                await self._tell()

    async def _wait_to_share(self) -> None:
        self._sharing += 1
        shares = False
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._alone and (not self._waiting or self._let_in > 0))
            shares = True
        finally:
            self._sharing -= 1
            self._let_in = max(self._let_in - 1, 0)
            if not shares and not self._let_in:
                await self._tell()

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        """Alone."""
        self._waiting += 1
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._alone and not self._inside and not self._let_in)
            self._alone = True
        finally:
            self._waiting -= 1
            if not self._alone:
                await self._tell()
        try:
            yield
        finally:
            self._alone = False
            self._let_in = self._sharing
            await self._tell()

    async def add(self, change: Coroutine[Any, Any, T]) -> T:
        """Make a change beside others who share; to its end, also when it is cancelled: its threads work until then."""
        return await self._inside_of(self.shared(), change)

    async def remove(self, change: Coroutine[Any, Any, T]) -> T:
        """Make a change alone; to its end."""
        return await self._inside_of(self.exclusive(), change)

    @staticmethod
    async def _inside_of(gate: AbstractAsyncContextManager[None], change: Coroutine[Any, Any, T]) -> T:
        async def whole() -> T:
            async with gate:
                return await change

        return await to_the_end(whole())

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
