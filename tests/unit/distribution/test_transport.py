"""The HTTP client towards registries, on loopback."""

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from sampan import lookups
from sampan.distribution.transport import Transport, Unreachable
from sampan.proxies import Proxies


def test_cookies_are_not_kept() -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: who=you\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        await writer.drain()
        writer.close()

    async def scenario() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://localhost:{server.sockets[0].getsockname()[1]}/v2/"
        async with server, Transport("test", Proxies()) as transport:
            for _ in range(2):
                async with transport.request("GET", url) as found:
                    assert await found.read(10) == b"ok"

    asyncio.run(scenario())
    assert len(heads) == 2
    assert all(b"cookie" not in head.lower() for head in heads)


def chunked(body: bytes) -> tuple[bytes, str]:
    """What comes of a body in HTTP's chunks, and the error at its end."""
    got, failure = bytearray(), ""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body)
        writer.close()

    async def scenario() -> None:
        nonlocal failure
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        async with server, Transport("test", Proxies()) as transport, transport.request("GET", url) as found:
            try:
                async for piece in found.pieces():
                    got.extend(piece)
            except Unreachable as error:
                failure = str(error)

    asyncio.run(scenario())
    return bytes(got), failure


def test_a_body_in_chunks() -> None:
    block = b"x" * 100_000
    whole = b"%x\r\n%b\r\n" % (len(block), block) * 5 + b"1\r\na\r\n" * 1000
    assert chunked(whole + b"0\r\n\r\n") == (block * 5 + b"a" * 1000, "")
    got, failure = chunked(whole)
    assert got == block * 5 + b"a" * 1000
    assert failure.endswith("unexpected EOF")


def test_tiny_chunks_are_not_read_for_ever() -> None:
    got, failure = chunked(b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n")
    assert failure.endswith("the answer comes in chunks of 1 bytes")
    assert len(got) < 20_000


@pytest.mark.parametrize(
    ("head", "whole"), [(b"Content-Length: 1000", True), (b"Transfer-Encoding: chunked", True), (b"Transfer-Encoding: chunked", False)]
)
def test_what_drips_has_an_end(head: bytes, whole: bool) -> None:
    """In HTTP's chunks the drops are those of an extension, which is no byte of the body. whole: a document that is wanted at once."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n5;")
        with contextlib.closing(writer), contextlib.suppress(ConnectionError):
            while True:
                await asyncio.sleep(0.02)
                writer.write(b"a")
                await writer.drain()

    async def scenario() -> None:
        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        transport = Transport("test", Proxies())
        async with server, transport, asyncio.timeout(20), transport.request("GET", url, patience=0.5) as found:
            if whole:
                await found.read(2000)
            else:
                async for _ in found.pieces():
                    pass

    with pytest.raises(Unreachable):
        asyncio.run(scenario())


def test_a_silent_name_server_keeps_only_those_waiting_who_ask_it(monkeypatch: pytest.MonkeyPatch) -> None:
    answered, asked = threading.Event(), []

    def silent(host: str, *_: object, **_named: object) -> list[object]:
        asked.append(host)
        answered.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")

    async def ask(name: str) -> None:
        async with Transport("test", Proxies()) as transport, transport.request("GET", f"http://{name}.example/v2/"):
            pass

    async def scenario() -> list[BaseException | None]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(4))
        names = ["one", "two", "three", "four", "five"] * 3
        waiting = [asyncio.create_task(ask(name)) for name in names]
        try:
            async with asyncio.timeout(20):
                await asyncio.to_thread(_wait_for, lambda: len(asked) >= 4)
                await asyncio.gather(*(asyncio.to_thread(int) for _ in range(4)))
                return await asyncio.gather(*waiting, return_exceptions=True)
        finally:
            answered.set()

    monkeypatch.setattr(lookups, "LOOKUP_SECONDS", 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", silent)
    errors = [str(error) for error in asyncio.run(scenario())]
    assert errors[:2] == [f'Get "http://{name}.example/v2/": dial tcp: lookup {name}.example: i/o timeout' for name in ("one", "two")]
    assert len(errors) == 15
    assert sorted(asked) == ["five.example", "four.example", "one.example", "three.example", "two.example"]


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_who_says_nothing_is_unreachable() -> None:
    """So that the next mirror is asked. The password of a URL is not told."""

    gone = asyncio.Event()

    async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()
            writer.close()
            await writer.wait_closed()
        gone.set()

    async def scenario() -> None:
        server = await asyncio.start_server(mute, "127.0.0.1", 0)
        url = f"http://user:secret@127.0.0.1:{server.sockets[0].getsockname()[1]}/v2/"
        async with server, Transport("test", Proxies()) as transport:
            with pytest.raises(Unreachable, match="exceeded while awaiting headers") as failure:
                async with transport.request("GET", url, patience=0.3):
                    pass
            assert "user:***@127.0.0.1" in str(failure.value)
            assert "secret" not in str(failure.value)
            await asyncio.wait_for(gone.wait(), 20)

    asyncio.run(scenario())
