"""Bodies and answers that pass from socket to pipe, or back, without being read: the same bytes, whoever stops in the middle."""

import asyncio
import fcntl
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from sampan.api.http import BUFFER_LIMIT, Request, Response
from sampan.streams import InPipe
from tests.unit.api.test_connection import GET, with_server

SIZE = 3 * BUFFER_LIMIT + 12_345
BODY = random.Random(4).randbytes(SIZE)
PUT = b"PUT /x HTTP/1.1\r\nHost: d\r\n%b\r\n\r\n"


def chunks(sizes: list[int]) -> bytes:
    """BODY in chunks of these sizes, in turn."""
    framed, place, turn = bytearray(), 0, 0
    while place < SIZE:
        piece = BODY[place : place + sizes[turn % len(sizes)]]
        framed += b"%x\r\n%b\r\n" % (len(piece), piece)
        place, turn = place + len(piece), turn + 1
    return bytes(framed) + b"0\r\n\r\n"


def read_all(fd: int) -> bytes:
    with os.fdopen(fd, "rb") as file:
        return file.read()


async def poured(request: Request) -> bytes:
    """What pour() writes into a pipe, which somebody reads slowly."""
    reader, writer = os.pipe()
    reading = asyncio.create_task(asyncio.to_thread(read_all, reader))
    try:
        await request.body.pour(writer)
    finally:
        os.close(writer)
        data = await reading
    return data


@pytest.mark.parametrize(
    ("head", "framed"),
    [
        (b"Content-Length: %d" % SIZE, BODY),
        (b"Transfer-Encoding: chunked", chunks([32768])),
        (b"Transfer-Encoding: chunked", chunks([1, 70_000, 3, 2047, 2048])),
    ],
    ids=["length", "chunks", "odd-chunks"],
)
@pytest.mark.parametrize("step", [SIZE * 2, 60_000, 333])
def test_a_body_is_poured_whole_and_the_next_request_follows(tmp_path: Path, head: bytes, framed: bytes, step: int) -> None:
    got: list[bytes] = []

    async def handler(request: Request) -> Response:
        got.append(await poured(request))
        return Response(200, b"%d" % len(got[-1]))

    async def client(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        both = PUT % head + framed + PUT % b"Content-Length: 5" + b"after"
        for place in range(0, len(both), step):
            writer.write(both[place : place + step])
            await writer.drain()
        await reader.readuntil(b"\r\n\r\n%d" % SIZE)
        await reader.readuntil(b"\r\n\r\n5")
        writer.close()

    with_server(tmp_path / "s", handler, client)
    assert got == [BODY, b"after"]


@pytest.mark.parametrize("sent", [0, 100, BUFFER_LIMIT * 2])
def test_a_client_that_leaves_in_the_middle_of_a_body_is_an_error(tmp_path: Path, sent: int) -> None:
    failed = asyncio.Event()

    async def handler(request: Request) -> Response:
        with pytest.raises(ConnectionError, match="the client is gone"):
            await poured(request)
        failed.set()
        return Response()

    async def client(path: str) -> None:
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(PUT % (b"Content-Length: %d" % SIZE) + BODY[:sent])
        await writer.drain()
        writer.close()
        await failed.wait()

    with_server(tmp_path / "s", handler, client)


def test_a_pipe_that_nobody_reads_ends_the_pouring(tmp_path: Path) -> None:
    async def handler(request: Request) -> Response:
        reader, writer = os.pipe()
        pouring = asyncio.create_task(request.body.pour(writer))
        assert await asyncio.to_thread(os.read, reader, 100) == BODY[:100]
        os.close(reader)
        await pouring
        os.close(writer)
        return Response(200, b"enough")

    async def client(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(PUT % (b"Content-Length: %d" % SIZE) + BODY)
        assert (await reader.read()).endswith(b"enough")
        writer.close()

    with_server(tmp_path / "s", handler, client)


async def in_pipe(write: Callable[[InPipe], Awaitable[None]]) -> None:
    """Give BODY to write() as pieces that wait in a pipe."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    room = fcntl.fcntl(writer, fcntl.F_GETPIPE_SZ)
    try:
        for place in range(0, SIZE, room):
            await write(InPipe(reader, os.write(writer, BODY[place : place + room])))
    finally:
        os.close(reader)
        os.close(writer)


async def for_ever(write: Callable[[InPipe], Awaitable[None]]) -> None:
    while True:
        await in_pipe(write)


async def unchunked(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    while size := int(await reader.readline(), 16):
        yield await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"


@pytest.mark.parametrize("first", [b"", b"a head", bytes(BUFFER_LIMIT // 2)], ids=["pipe", "bytes", "much"])
def test_an_answer_in_a_pipe_is_sent_whole(tmp_path: Path, first: bytes) -> None:
    async def handler(request: Request) -> None:
        out = request.start_stream()
        await out.write(first)
        await in_pipe(out.write)
        await out.write(b"the end")

    async def client(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path, limit=1 << 10)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        assert b"".join([piece async for piece in unchunked(reader)]) == first + BODY + b"the end"
        writer.close()

    with_server(tmp_path / "s", handler, client)


def test_a_client_that_leaves_in_the_middle_of_an_answer_is_an_error(tmp_path: Path) -> None:
    failed = asyncio.Event()

    async def handler(request: Request) -> None:
        out = request.start_stream()
        with pytest.raises(ConnectionError):
            await for_ever(out.write)
        failed.set()

    async def client(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\n")
        writer.close()
        await failed.wait()

    with_server(tmp_path / "s", handler, client)
