"""How many stages of a build work at a time, and who waits for whom without keeping a place from those that could work."""

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")


class Turn:
    """A stage's place among those that work: `async with` takes one of them, and after() gives it up while another stage is waited for."""

    def __init__(self, places: asyncio.Semaphore) -> None:
        """places: of one build, shared by its stages."""
        self._places = places
        self._held = False

    async def __aenter__(self) -> Self:
        await self._take()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._give()

    async def after(self, others: Awaitable[T]) -> T:
        """What others' work comes to. Whoever is ended while it waits has no place to give back."""
        self._give()
        result = await others
        await self._take()
        return result

    async def _take(self) -> None:
        await self._places.acquire()
        self._held = True

    def _give(self) -> None:
        if self._held:
            self._held = False
            self._places.release()
