"""The HTTP client towards registries, on loopback."""

import asyncio

from sampan.distribution.transport import Transport
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
