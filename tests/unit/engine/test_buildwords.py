"""What stages say and nobody has been told yet is bounded, however long their pieces are."""

import asyncio
from collections.abc import AsyncIterator, Sequence

from sampan.engine.build import _hushed
from sampan.engine.buildstage import LENGTH_MAX, UNHEARD_MAX, Output, Unheard
from sampan.engine.buildturns import Turn
from sampan.engine.progress import Progress
from sampan.errors import EngineError, InvalidArgument


async def fill(output: Output, size: int = 1 << 18) -> None:
    while True:
        await output.tell("x" * size)


def test_a_stage_waits_and_so_do_all_together() -> None:
    async def ready() -> None:
        """At once."""

    async def scenario() -> None:
        unheard = Unheard()
        outputs = [Output(unheard) for _ in range(50)]
        tasks = [asyncio.create_task(fill(output)) for output in outputs]
        await asyncio.sleep(0)
        assert LENGTH_MAX <= sum(len(str(line["stream"])) for line in outputs[0].taken()) <= LENGTH_MAX + (2 << 18)
        for _ in range(100):
            await asyncio.sleep(0)
        assert unheard.length <= UNHEARD_MAX + (2 << 18)
        for task in tasks:
            task.cancel()
        last = outputs[-1].batches(ready)  # whoever is heard goes on
        task = asyncio.create_task(fill(outputs[-1]))
        assert await asyncio.wait_for(anext(last), 10)
        assert await asyncio.wait_for(anext(last), 10)
        task.cancel()

    asyncio.run(scenario())


def test_who_is_heard_needs_no_place() -> None:
    async def scenario() -> None:
        places, never, heard = asyncio.Semaphore(1), asyncio.Event(), asyncio.Event()
        async with Turn(places, never):
            waiting = asyncio.create_task(Turn(places, never).__aenter__())
            async with asyncio.timeout(10):
                heard.set()
                async with Turn(places, heard):
                    assert not waiting.done()
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(10), Turn(places, never):  # who was ended while it waited has no place
            assert places.locked()
        assert not places.locked()

    asyncio.run(scenario())


def test_what_is_kept_of_a_quiet_build_is_bounded() -> None:
    async def batches() -> AsyncIterator[Sequence[Progress]]:
        for _ in range(100):
            yield [{"stream": "x" * (1 << 18)}]
        raise InvalidArgument("no")

    async def kept() -> int:
        length = 0
        try:
            async for batch in _hushed(batches()):
                length += sum(len(str(line["stream"])) for line in batch)
        except EngineError:
            pass
        return length

    assert 4 << 20 <= asyncio.run(kept()) < 5 << 20
