"""The in-memory duplex keeps the contract of streams.Duplex."""

import asyncio

import pytest

from sampan.testing.duplex import duplex_pair


def test_half_close_and_back_pressure() -> None:
    async def main() -> None:
        one, other = duplex_pair()
        await one.send(b"abc")
        await one.send_eof()
        assert (await other.recv(2), await other.recv(), await other.recv(), await other.recv()) == (b"ab", b"c", b"", b"")
        sending = asyncio.create_task(other.send(b"x" * 1_000_000))
        await asyncio.sleep(0)
        assert not sending.done()
        total = 0
        while total < 1_000_000:
            total += len(await one.recv())
        await sending
        assert await one.readable() == -1

    asyncio.run(main())


def test_close() -> None:
    async def main() -> None:
        one, other = duplex_pair()
        one.close()
        one.close()
        await other.wait_closed()
        with pytest.raises(ConnectionError):
            await other.recv()
        with pytest.raises(ConnectionError):
            await other.send(b"x")

    asyncio.run(main())
