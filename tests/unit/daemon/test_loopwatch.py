"""An event loop that stands still is noticed, with the stack of who holds it."""

import asyncio
import logging
import time

import pytest

from sampan.daemon.dump import stacks
from sampan.daemon.loopwatch import LoopWatch


def hold_the_loop(seconds: float) -> None:
    time.sleep(seconds)


def test_a_loop_that_stands_still(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> LoopWatch:
        watch = LoopWatch(seconds=0.2, every=0.02)
        watch.start()
        hold_the_loop(0.5)
        async with asyncio.timeout(30):
            while not watch.times:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        watch.stop()
        return watch

    with caplog.at_level(logging.WARNING):
        watch = asyncio.run(main())
    assert 0.2 <= watch.longest < 30
    assert "the event loop stood still for " in caplog.text
    assert "in hold_the_loop" in caplog.text


def test_one_that_does_not(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> int:
        watch = LoopWatch(seconds=20, every=0.01)
        watch.start()
        await asyncio.sleep(0.1)
        watch.stop()
        return watch.times

    assert asyncio.run(main()) == 0
    assert not caplog.records


def test_stacks_name_tasks_and_what_they_wait_for() -> None:
    async def wait_for_godot() -> None:
        await asyncio.Event().wait()

    async def main() -> str:
        loop = asyncio.get_running_loop()
        task = loop.create_task(wait_for_godot(), name="estragon")
        await asyncio.sleep(0)
        text = stacks(loop)
        task.cancel()
        return text

    text = asyncio.run(main())
    assert "thread MainThread" in text
    assert "task estragon" in text
    assert "in wait_for_godot" in text
