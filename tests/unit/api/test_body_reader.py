"""A request's body in memory: no more than was sent, whatever its framing."""

import asyncio
import tracemalloc

import pytest

from sampan.api.http import BodyReader, HttpError


class Connection:
    """Of which nobody reads."""

    def update_reading(self) -> None:
        pass

    def send_continue(self) -> None:
        pass


def read(framed: bytes, length: int, limit: int, step: int = 1 << 16) -> bytes:
    async def scenario() -> bytes:
        body = BodyReader(length, Connection())
        reading = asyncio.ensure_future(body.read_all(limit))
        for start in range(0, len(framed), step):
            assert body.feed(framed[start : start + step]) == b""
            await asyncio.sleep(0)
        return await reading

    return asyncio.run(scenario())


def test_tiny_chunks_cost_what_they_hold() -> None:
    data = bytes(range(256)) * 512
    framed = b"".join(b"2\r\n" + data[place : place + 2] + b"\r\n" for place in range(0, len(data), 2)) + b"0\r\n\r\n"
    tracemalloc.start()
    try:
        assert read(framed, -1, len(data)) == data
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 5 * len(data) + (1 << 20), "a list of pieces takes 20 times the body"


@pytest.mark.parametrize("step", [1, 7, 1 << 16])
def test_the_limit_holds_for_both_framings(step: int) -> None:
    data = b"x" * 100
    framed = b"".join(b"3\r\nabc\r\n" for _ in range(33)) + b"1\r\nd\r\n0\r\n\r\n"
    assert read(data, 100, 100, step) == data
    assert read(framed, -1, 100, step) == b"abc" * 33 + b"d"
    for body, length in ((data, 100), (framed, -1)):
        with pytest.raises(HttpError, match="request body too large"):
            read(body, length, 99, step)
