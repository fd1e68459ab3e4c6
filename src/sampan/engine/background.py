"""Work that nobody waits for."""

import asyncio
import logging
from collections.abc import Awaitable

log = logging.getLogger(__name__)


class Background:
    """Tasks of the engine's own. One for all; settle() before the loop ends."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Awaitable[None]) -> None:
        """Run something to its end on its own; a failure is logged, never lost."""

        async def guarded() -> None:
            try:
                await work
            except Exception:
                log.exception("background work failed")

        task = asyncio.get_running_loop().create_task(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settle(self) -> None:
        """Wait for all work begun by spawn(), that which it begins included."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
