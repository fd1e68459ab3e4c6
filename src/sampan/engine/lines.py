"""Progress from a task to whoever reads it. The task never waits for its reader, and what the reader does not take stays bounded."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Sequence
from contextlib import aclosing
from typing import Any

from sampan.engine.progress import Progress, layer_line
from sampan.errors import SystemFailure
from sampan.waiting import to_the_end

WAITING_MAX = 256
"""Lines that may wait before those that can be missed are left out."""
TICK_SECONDS = 0.1
"""Between two lines with a bar about the same layer."""


class Lines:
    """What a task says. One reader."""

    def __init__(self) -> None:
        self._waiting: deque[Progress] = deque()
        self._changed = asyncio.Event()

    def say(self, line: Progress, *, once: bool = True) -> None:
        """A line; once: it is not to be left out (there are few of these: so many for each layer)."""
        if once or len(self._waiting) < WAITING_MAX:
            self._waiting.append(line)
            self._changed.set()

    async def drained(self) -> None:
        """Wait until the reader has taken all: between two images, so that a list of tags is not an endless list of lines."""
        while self._waiting:
            self._changed.clear()
            await self._changed.wait()

    async def of(self, work: Coroutine[Any, Any, None]) -> AsyncIterator[Progress]:
        """As batches(), line by line."""
        async with aclosing(self.batches(work)) as batches:
            async for batch in batches:
                for line in batch:
                    yield line

    async def batches(self, work: Coroutine[Any, Any, None]) -> AsyncGenerator[Sequence[Progress], None]:
        """Run work in a task of its own, and give out what it says, each time all there is. A reader that leaves ends it.

        Raises what work raises, but SystemFailure for the machine's OSError: its reader is a client that is to hear of it.
        """
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._changed.set())
        try:
            while not task.done() or self._waiting:
                if self._waiting:
                    await asyncio.sleep(0)  # what else is said before anything is waited for goes with it
                    lines = list(self._waiting)
                    self._waiting.clear()
                    self._changed.set()
                    yield lines
                else:
                    self._changed.clear()
                    await self._changed.wait()
            await task
        except OSError as error:
            words = (error.strerror or str(error)).lower()
            raise SystemFailure(f"{error.filename}: {words}" if error.filename else words) from error
        finally:
            if not task.done():
                task.cancel()
                await to_the_end(_over(task))  # a client that is gone may be told of more than once
            elif not task.cancelled():
                task.exception()  # nobody may have been there to hear of it


async def _over(task: asyncio.Task[None]) -> None:
    await asyncio.gather(task, return_exceptions=True)


class LayerLines:
    """What is said of one layer."""

    def __init__(self, lines: Lines, digest: str) -> None:
        """digest: whose first twelve digits stand before it."""
        self._lines = lines
        self._name = digest.partition(":")[2][:12]
        self._last = 0.0

    def say(self, status: str, current: int | None = None, total: int = 0) -> None:
        """A line of docker's progress; with a number of bytes it has a bar, and comes ten times a second at the most, or not at all.

        But a bar's end always comes, unless the reader is far behind.
        """
        if current is not None:
            now = time.monotonic()
            if now - self._last < TICK_SECONDS and current < total:
                return
            self._last = now
        self._lines.say(layer_line(status, self._name, current, total), once=current is None and not status.startswith("Retrying"))
