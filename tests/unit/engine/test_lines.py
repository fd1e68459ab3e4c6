"""Progress that nobody reads."""

import asyncio
from contextlib import aclosing

import pytest

from sampan.engine.lines import WAITING_MAX, Lines
from sampan.errors import NotFound, SystemFailure


def test_the_task_does_not_wait_for_its_reader() -> None:
    async def run() -> None:
        lines, done = Lines(), asyncio.Event()

        async def work() -> None:
            for number in range(10 * WAITING_MAX):
                lines.say({"number": number}, once=False)
            lines.say({"status": "end"})
            done.set()
            await lines.drained()

        reader = lines.of(work())
        first = await anext(reader)
        await asyncio.wait_for(done.wait(), 5)
        rest = [line async for line in reader]
        assert first == {"number": 0}
        assert rest[-1] == {"status": "end"}
        assert len(rest) <= WAITING_MAX + 1

    asyncio.run(run())


def test_what_is_said_in_one_go_comes_together() -> None:
    async def run() -> None:
        lines = Lines()

        async def work() -> None:
            lines.say({"number": 1})
            await asyncio.sleep(0)
            lines.say({"number": 2})

        assert [batch async for batch in lines.batches(work())] == [[{"number": 1}, {"number": 2}]]

    asyncio.run(run())


def test_a_reader_that_leaves_after_the_end_is_no_trouble() -> None:
    async def run() -> None:
        lines = Lines()

        async def work() -> None:
            lines.say({})
            raise NotFound("nobody hears of it")

        reader = lines.batches(work())
        await anext(reader)
        await reader.aclose()

    asyncio.run(run())


def test_a_reader_that_leaves_ends_it() -> None:
    async def run() -> None:
        lines, ended = Lines(), asyncio.Event()

        async def work() -> None:
            try:
                lines.say({})
                await asyncio.Event().wait()
            finally:
                ended.set()

        reader = lines.of(work())
        await anext(reader)
        await reader.aclose()  # type: ignore[attr-defined]
        assert ended.is_set()

    asyncio.run(run())


def test_a_reader_that_is_ended_twice_waits_for_the_end() -> None:
    async def run() -> None:
        ended, may_end = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                await may_end.wait()
                ended.set()

        async def read() -> None:
            async with aclosing(Lines().batches(work())) as batches:
                await anext(batches)

        reader = asyncio.create_task(read())
        for _ in range(3):
            await asyncio.sleep(0)
            reader.cancel()
        await asyncio.sleep(0)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await reader
        assert ended.is_set()

    asyncio.run(run())


def test_what_the_machine_refuses_is_told_to_the_reader() -> None:
    async def run() -> None:
        async def work() -> None:
            raise OSError(122, "Disk quota exceeded", "/data/partial")

        with pytest.raises(SystemFailure, match=r"^/data/partial: disk quota exceeded$"):
            await anext(Lines().of(work()))

    asyncio.run(run())


def test_what_was_said_comes_before_the_error() -> None:
    async def run() -> None:
        lines = Lines()

        async def work() -> None:
            lines.say({"status": "begun"})
            raise NotFound("nothing")

        reader = lines.of(work())
        assert await anext(reader) == {"status": "begun"}
        with pytest.raises(NotFound):
            await anext(reader)

    asyncio.run(run())
