"""What a connection owes its handlers: cancellation when the client goes, the raw socket on demand, hang-ups seen after half-close."""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from sampan.api.connection import Target
from sampan.api.hijack import hijack_head
from sampan.api.http import Request, Response
from sampan.api.server import ApiServer, unix_listener
from sampan.errors import SystemFailure
from sampan.streams import Duplex

Handler = Callable[[Request], Coroutine[Any, Any, Response | None]]
GET = b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n"


def with_server(path: Path, handler: Handler, client: Callable[[str], Awaitable[None]], *, cancel: bool = False) -> None:
    """Run client against a server whose every request goes to handler."""

    async def main() -> None:
        server = ApiServer(lambda request: Target(handler, cancel))
        await server.serve(unix_listener(str(path)))
        try:
            async with asyncio.timeout(60):
                await client(str(path))
        finally:
            await server.stop(0.5)

    asyncio.run(main())


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_first_piece_goes_out_with_the_head(tmp_path: Path, method: str) -> None:
    async def handler(request: Request) -> None:
        request.start_stream(first=b"first")
        await asyncio.Event().wait()

    async def client(path: str) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, path)
            await loop.sock_sendall(sock, GET.replace(b"GET", method.encode()))
            head, _, body = (await loop.sock_recv(sock, 65536)).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK\r\n")
            assert body == (b"5\r\nfirst\r\n" if method == "GET" else b"")

    with_server(tmp_path / "s", handler, client, cancel=True)


def test_streaming_handler_is_cancelled_when_the_client_goes(tmp_path: Path) -> None:
    cancelled = asyncio.Event()

    async def handler(request: Request) -> None:
        out = request.start_stream()
        await out.write(b"first")
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async def client(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(GET)
        assert b"first" in await reader.readuntil(b"first\r\n")
        writer.close()
        await cancelled.wait()

    with_server(tmp_path / "s", handler, client, cancel=True)


def test_other_handlers_finish_though_the_client_is_gone(tmp_path: Path) -> None:
    begun, go, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> Response:
        begun.set()
        await go.wait()
        finished.set()
        return Response(204)

    async def client(path: str) -> None:
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(GET)
        await begun.wait()
        writer.close()
        await writer.wait_closed()
        go.set()
        await finished.wait()

    with_server(tmp_path / "s", handler, client)


def test_slow_reader_stops_the_writer(tmp_path: Path) -> None:
    sent = 0
    blocked = asyncio.Event()

    async def handler(request: Request) -> None:
        nonlocal sent
        out = request.start_stream()
        for _ in range(200):
            asyncio.get_running_loop().call_later(0.2, blocked.set)
            await out.write(b"x" * 100_000)
            sent += 1

    async def client(path: str) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, path)
            await loop.sock_sendall(sock, GET)
            await blocked.wait()
            assert sent < 50
            total = b""
            while not total.endswith(b"\r\n0\r\n\r\n"):
                total = total[-10:] + await loop.sock_recv(sock, 1 << 20)
        assert sent == 200

    with_server(tmp_path / "s", handler, client)


def hijacking(use: Callable[[Duplex], Awaitable[None]]) -> Handler:
    async def handler(request: Request) -> None:
        await use(await request.exchange.hijack(request, hijack_head(upgrade=True, multiplexed=False)))

    return handler


def test_raw_bytes_come_after_their_head_was_read(tmp_path: Path) -> None:
    """docker-py reads the head through a buffer that it then goes past."""

    async def use(duplex: Duplex) -> None:
        await duplex.send(b"raw")
        await duplex.send_eof()

    async def client(path: str) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, path)
            await loop.sock_sendall(sock, GET)
            readable = asyncio.Event()
            loop.add_reader(sock, readable.set)
            await readable.wait()
            loop.remove_reader(sock)
            for _ in range(100):  # of what the server could do by now
                await asyncio.sleep(0)
            assert (await loop.sock_recv(sock, 65536)).endswith(b"\r\n\r\n")
            assert await loop.sock_recv(sock, 65536) == b"raw"

    with_server(tmp_path / "s", hijacking(use), client)


def test_hang_up_after_half_close_is_seen(tmp_path: Path) -> None:
    closed = asyncio.Event()
    half = asyncio.Event()

    async def use(duplex: Duplex) -> None:
        assert await duplex.recv() == b""
        half.set()
        await duplex.wait_closed()
        with pytest.raises(ConnectionError):
            await duplex.send(b"x")
        closed.set()

    async def client(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(GET)
        writer.write_eof()
        await reader.readuntil(b"\r\n\r\n")
        await half.wait()
        assert not closed.is_set()
        writer.close()
        await closed.wait()

    with_server(tmp_path / "s", hijacking(use), client)


def test_socket_is_lent_and_comes_back(tmp_path: Path) -> None:
    """Early bytes, then bytes taken from the socket itself, then the transport's again, and the end."""

    async def use(duplex: Duplex) -> None:
        assert await duplex.readable() == -1
        assert await duplex.recv() == b"early"
        waiting = asyncio.ensure_future(duplex.readable())
        await asyncio.sleep(0)
        await duplex.send(b"go")
        source = await waiting
        assert os.read(source, 4) == b"more"
        assert await duplex.recv() == b" and"
        await duplex.send(b"on")
        source = await duplex.readable()
        assert os.read(source, 9) == b" the rest"
        await duplex.send(b"end")
        assert os.read(await duplex.readable(), 9) == b""
        assert await duplex.recv() == b""
        await duplex.send(b"!")

    async def client(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(GET + b"early")
        await reader.readuntil(b"\r\n\r\n")
        assert await reader.readexactly(2) == b"go"
        writer.write(b"more and")
        assert await reader.readexactly(2) == b"on"
        writer.write(b" the rest")
        assert await reader.readexactly(3) == b"end"
        writer.write_eof()
        assert await reader.read() == b"!"
        writer.close()

    with_server(tmp_path / "s", hijacking(use), client)


def test_client_leaves_while_its_socket_is_lent(tmp_path: Path) -> None:
    ended, lent = asyncio.Event(), asyncio.Event()

    async def use(duplex: Duplex) -> None:
        asyncio.get_running_loop().call_soon(lent.set)  # once readable() waits
        source = await duplex.readable()
        assert os.read(source, 9) == b""
        assert await duplex.recv() == b""
        await duplex.wait_closed()
        ended.set()

    async def client(path: str) -> None:
        _, writer = await asyncio.open_unix_connection(path)
        writer.write(GET)
        await lent.wait()
        writer.transport.abort()
        await ended.wait()

    with_server(tmp_path / "s", hijacking(use), client)


def test_client_that_does_not_read_gets_all_when_it_does(tmp_path: Path) -> None:
    """The end of the process must not cut off what the client has not read yet."""

    async def use(duplex: Duplex) -> None:
        await duplex.send(b"y" * 150_000)

    async def client(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(GET + b"never read by the handler")
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        assert len(await reader.read()) == 150_000
        writer.close()

    with_server(tmp_path / "s", hijacking(use), client)


def test_socket_mode_and_second_listener(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    first = unix_listener(path)
    assert os.stat(path).st_mode & 0o777 == 0o660
    with pytest.raises(SystemFailure, match="another process listens on it"):
        unix_listener(path)
    first.close()
    unix_listener(path).close()  # a stale socket is replaced
    plain = tmp_path / "file"
    plain.touch()
    with pytest.raises(SystemFailure, match="is not a socket"):
        unix_listener(str(plain))


def test_stop_ends_streams_at_once_and_lets_answers_finish(tmp_path: Path) -> None:
    attached, asked, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def handler(request: Request) -> Response | None:
        if request.path == "/slow":
            asked.set()
            await go.wait()
            return Response(204)
        duplex = await request.exchange.hijack(request, hijack_head(upgrade=True, multiplexed=False))
        attached.set()
        await duplex.recv()
        return None

    async def main() -> None:
        path = str(tmp_path / "s")
        server = ApiServer(lambda request: Target(handler, False))
        await server.serve(unix_listener(path))
        streams = [await asyncio.open_unix_connection(path) for _ in range(2)]
        streams[0][1].write(GET)
        streams[1][1].write(GET.replace(b"/x", b"/slow"))
        await attached.wait()
        await asked.wait()
        stopping = asyncio.create_task(server.stop(5.0))
        assert (await streams[0][0].read()).startswith(b"HTTP/1.1 101")
        assert not stopping.done()
        go.set()
        assert (await streams[1][0].read()).startswith(b"HTTP/1.1 204")
        async with asyncio.timeout(2):
            await stopping
        for _, writer in streams:
            writer.close()

    asyncio.run(main())


def test_a_full_disk_is_a_line_in_the_log_and_no_fault_of_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def handler(request: Request) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "/data/hosts")

    async def client(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(GET.replace(b"Host: d", b"Host: d\r\nConnection: close"))
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b'{"message":"/data/hosts: no space left on device"}' in answer

    with_server(tmp_path / "s", handler, client)
    assert [(record.getMessage(), record.exc_info) for record in caplog.records] == [("GET /x: /data/hosts: no space left on device", None)]
