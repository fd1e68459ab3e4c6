"""`GET /containers/{id}/attach/ws` by a WebSocket client that is not ours (aiohttp's)."""

import asyncio
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

Docker = Callable[..., subprocess.CompletedProcess[str]]
ALL = "stream=1&stdin=1&stdout=1&stderr=1"


@asynccontextmanager
async def attached(engine: Engine, name: str, query: str = ALL, version: str = "1.51") -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    connector = aiohttp.UnixConnector(path=engine.socket)
    async with (
        asyncio.timeout(30),
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(f"http://localhost/v{version}/containers/{name}/attach/ws?{query}") as socket,
    ):
        yield socket


async def read(socket: aiohttp.ClientWebSocketResponse, kind: aiohttp.WSMsgType, until: bytes) -> bytes:
    """What comes, up to some bytes; every message is of one kind."""
    found = b""
    while until not in found:
        message = await socket.receive()
        assert message.type is kind, (message, found)
        found += message.data if isinstance(message.data, bytes) else message.data.encode()
    return found


def create(docker: Docker, name: str, *more: str) -> None:
    done = docker("create", "--network=none", "--name", name, "-i", *more)
    assert done.returncode == 0, done.stderr


def test_output_of_both_kinds_without_frames_and_the_end(engine: Engine, docker: Docker) -> None:
    create(docker, "echo", "busybox", "sh", "-c", "read word; echo $word; echo $word >&2; exit 3")

    async def scenario() -> None:
        async with attached(engine, "echo") as socket:
            assert await asyncio.to_thread(engine.request, "POST", "/containers/echo/start") == (204, b"")
            await socket.send_bytes(b"hel")
            await socket.send_str("lo\n")
            assert await read(socket, aiohttp.WSMsgType.BINARY, b"hello\nhello\n") == b"hello\nhello\n"
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE
            assert socket.close_code == 1000

    asyncio.run(scenario())
    assert engine.request("POST", "/containers/echo/wait")[1]["StatusCode"] == 3


def test_a_close_is_the_end_of_input(engine: Engine, docker: Docker) -> None:
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "cat; exit 4"], "OpenStdin": True, "StdinOnce": True}
    assert engine.request("POST", "/containers/create?name=cat", body)[0] == 201
    assert engine.request("POST", "/containers/cat/start")[0] == 204

    async def scenario() -> None:
        async with attached(engine, "cat") as socket:
            await socket.send_bytes(b"x" * 200000 + b"!")
            assert len(await read(socket, aiohttp.WSMsgType.BINARY, b"!")) == 200001
            await socket.close()
            assert socket.close_code == 1000

    asyncio.run(scenario())
    assert engine.request("POST", "/containers/cat/wait")[1]["StatusCode"] == 4


def test_detach_keys_with_a_terminal_and_text_for_old_clients(engine: Engine, docker: Docker) -> None:
    create(docker, "shell", "-t", "busybox", "sh")
    assert docker("start", "shell").returncode == 0

    async def scenario() -> None:
        async with attached(engine, "shell", ALL + "&detachKeys=ctrl-a", "1.27") as socket:
            await socket.send_str("echo $((40+2))\n")
            await read(socket, aiohttp.WSMsgType.TEXT, b"42")
            await socket.send_bytes(b"\x01")
            while (message := await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            assert (message.type, socket.close_code) == (aiohttp.WSMsgType.CLOSE, 1000)

    asyncio.run(scenario())
    assert engine.request("GET", "/containers/shell/json")[1]["State"]["Running"] is True


def test_streams_are_chosen_and_what_is_no_websocket_is_refused(engine: Engine, docker: Docker) -> None:
    create(docker, "both", "busybox", "sh", "-c", "echo out; echo err >&2")
    assert docker("start", "-a", "both").returncode == 0

    async def scenario() -> None:
        async with attached(engine, "both", "logs=1&stderr=1") as socket:
            assert await read(socket, aiohttp.WSMsgType.BINARY, b"\n") == b"err\n"
            assert (await socket.receive()).type is aiohttp.WSMsgType.CLOSE

    asyncio.run(scenario())
    assert engine.request("GET", "/containers/both/attach/ws?stream=1") == (400, {"message": "not websocket protocol"})
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    missing = engine.request("GET", "/containers/nobody/attach/ws?stream=1", headers=headers)
    assert missing == (404, {"message": "No such container: nobody"})
