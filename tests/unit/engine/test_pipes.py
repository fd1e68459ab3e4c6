"""through_pipe: whose error it is, and that nothing of it is left."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sampan.engine.pipes import WorkerStream, through_pipe
from sampan.readiness import readable

Write = Callable[[int], Awaitable[None]]


async def write_some(writer: int) -> None:
    os.write(writer, b"all")


async def write_half(writer: int) -> None:
    os.write(writer, b"half")
    raise ConnectionError("the client left")


async def write_for_ever(_writer: int) -> None:
    await asyncio.Event().wait()


async def read_all(reader: int) -> bytes:
    found = b""
    while True:
        await readable(reader)
        piece = os.read(reader, 100)
        if not piece:
            return found
        found += piece


async def refuse(_reader: int) -> bytes:
    await asyncio.sleep(0)
    raise ValueError("no archive")


async def refuse_at_once(_reader: int) -> bytes:
    raise ValueError("no inodes")


def outcome(write: Write, read: Callable[[int], Awaitable[bytes]]) -> bytes:
    before = set(os.listdir("/proc/self/fd"))

    async def scenario() -> bytes:
        inside = set(os.listdir("/proc/self/fd"))
        try:
            return await asyncio.wait_for(through_pipe(write, read), 30)
        finally:
            assert set(os.listdir("/proc/self/fd")) <= inside
            assert len(asyncio.all_tasks()) <= 2

    try:
        return asyncio.run(scenario())
    finally:
        assert set(os.listdir("/proc/self/fd")) <= before


def test_what_is_written_is_read() -> None:
    assert outcome(write_some, read_all) == b"all"


def test_the_writers_error_counts_though_the_reader_is_content() -> None:
    with pytest.raises(ConnectionError, match="the client left"):
        outcome(write_half, read_all)


def test_the_writers_error_counts_more_than_the_readers() -> None:
    with pytest.raises(ConnectionError, match="the client left"):
        outcome(write_half, refuse)


def test_a_reader_that_refuses_ends_the_writer() -> None:
    with pytest.raises(ValueError, match="no archive"):
        outcome(write_for_ever, refuse)


def test_a_reader_that_refuses_before_the_writer_began_leaves_no_pipe() -> None:
    with pytest.raises(ValueError, match="no inodes"):
        outcome(write_for_ever, refuse_at_once)


def test_a_stream_closed_before_its_job_began_leaves_no_pipe() -> None:
    async def job(_writer: int) -> dict[str, Any]:
        raise AssertionError("it was closed before")

    async def scenario() -> None:
        before = set(os.listdir("/proc/self/fd"))
        await WorkerStream(job).close()
        assert set(os.listdir("/proc/self/fd")) <= before

    asyncio.run(scenario())
