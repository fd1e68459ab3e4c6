"""How many stages of a build work at a time, and who waits for whom without keeping a place from those that could work.

The stage that is being heard needs no place: those that have one may be waiting to be heard after it.
"""

import asyncio
from collections.abc import Awaitable
from types import TracebackType
from typing import Self, TypeVar

T = TypeVar("T")


class Turn:
    """A stage's place among those that work: `async with` takes one of them, and after() gives it up while another stage is waited for."""

    def __init__(self, places: asyncio.Semaphore, heard: asyncio.Event) -> None:
        """places: of one build, shared by its stages. heard: set once what this stage says is being told."""
        self._places = places
        self._heard = heard
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
        acquiring, hearing = (asyncio.ensure_future(way) for way in (self._places.acquire(), self._heard.wait()))
        try:
            await asyncio.wait((acquiring, hearing), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            if not acquiring.cancel():
                self._places.release()
            raise
        finally:
            hearing.cancel()
        self._held = not acquiring.cancel()

    def _give(self) -> None:
        if self._held:
            self._held = False
            self._places.release()
