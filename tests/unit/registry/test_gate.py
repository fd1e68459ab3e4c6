"""The gate: nobody is inside beside the collector, and nobody waits for ever."""

import asyncio
import random

from sampan.registry.gate import Gate


def test_alone_means_alone() -> None:
    async def whole() -> None:
        gate, inside, order = Gate(), [0, 0], random.Random(1)

        async def pusher() -> None:
            for _ in range(50):
                async with gate.shared():
                    inside[0] += 1
                    assert not inside[1]
                    await asyncio.sleep(order.random() / 10_000)
                    inside[0] -= 1

        async def collector() -> None:
            for _ in range(50):
                async with gate.exclusive():
                    inside[1] += 1
                    assert inside == [0, 1]
                    await asyncio.sleep(order.random() / 10_000)
                    inside[1] -= 1

        await asyncio.wait_for(asyncio.gather(*(pusher() for _ in range(20)), collector(), collector()), 20)

    asyncio.run(whole())


def test_who_is_cancelled_while_waiting_leaves_nothing_behind() -> None:
    async def whole() -> None:
        gate = Gate()
        async with gate.shared():
            waiting = [asyncio.create_task(gate.exclusive().__aenter__())]
            await asyncio.sleep(0)
            waiting.append(asyncio.create_task(gate.shared().__aenter__()))
            await asyncio.sleep(0)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
        async with asyncio.timeout(5):
            async with gate.exclusive():
                pass
            async with gate.shared():
                pass

    asyncio.run(whole())


def test_who_has_waited_goes_before_the_next_step_of_who_was_alone() -> None:
    async def whole() -> None:
        gate, order = Gate(), list[str]()

        async def pusher() -> None:
            async with gate.shared():
                order.append("push")

        async def steps() -> None:
            for _ in range(3):
                async with gate.exclusive():
                    order.append("step")
                    await asyncio.sleep(0.01)

        taking_steps = asyncio.create_task(steps())
        await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(taking_steps, pusher(), pusher()), 20)
        assert order == ["step", "push", "push", "step", "step"]

    asyncio.run(whole())


def test_who_was_let_in_and_is_cancelled_keeps_nobody_out() -> None:
    async def whole() -> None:
        gate = Gate()
        async with gate.exclusive():
            waiting = asyncio.create_task(gate.shared().__aenter__())
            await asyncio.sleep(0)
            alone = asyncio.create_task(gate.exclusive().__aenter__())
            await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        if not waiting.cancelled():  # it was inside already
            return
        await asyncio.wait_for(alone, 5)

    asyncio.run(whole())
