"""Clients that drip, flood, never read, or are too many: none takes more than its share."""

import _ssl
import asyncio
import ctypes
import socket
import ssl
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from sampan.api import connection, http, tls
from sampan.api.connection import Target
from sampan.api.http import MAX_JSON_BODY, Request, Response
from sampan.api.server import ApiServer, tcp_listener, unix_listener
from sampan.tlsstream import TlsStream
from tests.support.certificates import Authority

GET = b"GET /x HTTP/1.1\r\nHost: d\r\n\r\n"
Client = Callable[[str], Awaitable[None]]


async def whole(request: Request) -> Response:
    return Response(200, str(len(await request.body.read_all())).encode())


def plain(_request: Request) -> Response:
    return Response(200, b"x" * 4096)


def target(request: Request) -> Target:
    return Target(plain if request.method == "GET" else whole, False)


def serve(path: Path, client: Client, most: int = 0) -> None:
    async def main() -> None:
        server = ApiServer(target, most)
        await server.serve(unix_listener(str(path)))
        try:
            async with asyncio.timeout(60):
                await client(str(path))
        finally:
            await server.stop(0.1)

    asyncio.run(main())


async def answer_to(path: str, *pieces: bytes) -> bytes:
    """Send and read until the server closes; the client's side stays open."""
    reader, writer = await asyncio.open_unix_connection(path)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    data = await reader.read()
    writer.close()
    return data


@pytest.mark.parametrize("pieces", [(b"GET /x HT",), (b"GET /x HTTP/1.1\r\n", b"A: b\r\n"), (GET, b"GET"), (b"\r\n\r\nG",)])
def test_a_head_that_drips_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: tuple[bytes, ...]) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)

    async def client(path: str) -> None:
        last = (await answer_to(path, *pieces)).rpartition(b"HTTP/1.1 ")[2]
        assert last.startswith(b"408 Request Timeout\r\n")

    serve(tmp_path / "s", client)


def test_a_connection_without_a_request_may_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.02)

    async def client(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        for _ in range(2):
            await asyncio.sleep(0.1)
            writer.write(GET)
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
            await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(4096)
        writer.close()

    serve(tmp_path / "s", client)


@pytest.mark.parametrize("head", [b"Content-Length: 5\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc"])
def test_a_whole_body_that_drips_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    monkeypatch.setattr(http, "WHOLE_BODY_SECONDS", 0.05)

    async def client(path: str) -> None:
        assert (await answer_to(path, b"POST /x HTTP/1.1\r\nHost: d\r\n" + head)).startswith(b"HTTP/1.1 408 ")

    serve(tmp_path / "s", client)


def test_what_is_too_large_is_said(tmp_path: Path) -> None:
    async def client(path: str) -> None:
        head = b"POST /x HTTP/1.1\r\nHost: d\r\nContent-Length: %d\r\n\r\n" % (MAX_JSON_BODY + 1)
        assert (await answer_to(path, head)).startswith(b"HTTP/1.1 413 ")
        assert (await answer_to(path, b"GET /" + b"a" * connection.MAX_HEAD)).startswith(b"HTTP/1.1 431 ")

    serve(tmp_path / "s", client)


def test_who_does_not_read_answers_is_not_answered_more(tmp_path: Path) -> None:
    async def client(path: str) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, path)
            asking = GET.replace(b"Host", b"X: %b\r\nHost" % (b"x" * 1000))
            sent, flood = 0, asking * 1000
            while sent < 40 * http.BUFFER_LIMIT and await writable(sock):
                sent += sock.send(flood[sent % len(asking) :])
            assert sent < 20 * http.BUFFER_LIMIT
            wanted = got = sent // len(asking) * 4096
            while got > 0:  # all that was asked is answered, once it is read
                got -= (await loop.sock_recv(sock, 1 << 20)).count(b"x")
            assert wanted

    async def writable(sock: socket.socket) -> bool:
        """Whether the server reads on."""
        loop, ready = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(sock, ready.set)
        try:
            async with asyncio.timeout(1):
                await ready.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_writer(sock)
        return True

    serve(tmp_path / "s", client)


def test_who_sends_many_requests_leaves_others_their_turn(tmp_path: Path) -> None:
    async def client(path: str) -> None:
        flooding, flood = await asyncio.open_unix_connection(path)
        other, ask = await asyncio.open_unix_connection(path)
        flood.write(GET * 2000)
        ask.write(GET)
        answered = asyncio.create_task(other.readuntil(b"\r\n\r\n"))
        got = 0
        while not answered.done():
            got += (await flooding.read(65536)).count(b"HTTP/1.1 200")
        assert got < 1500
        flood.close()
        ask.close()

    serve(tmp_path / "s", client)


def test_many_empty_lines_cost_little(tmp_path: Path) -> None:
    async def client(path: str) -> None:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"\r\n" * 2_000_000 + GET)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()

    serve(tmp_path / "s", client)


def test_there_are_only_so_many_connections(tmp_path: Path) -> None:
    async def client(path: str) -> None:
        open_ones = []
        for _ in range(3):
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(GET)
            await reader.readuntil(b"\r\n\r\n")
            open_ones.append(writer)
        assert b'"too many connections"' in await answer_to(path)
        open_ones.pop().close()
        async with asyncio.timeout(30):
            while not (await answer_to(path, GET.replace(b"Host", b"Connection: close\r\nHost"))).startswith(b"HTTP/1.1 200 "):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for writer in open_ones:
            writer.close()

    serve(tmp_path / "s", client, most=3)


def test_those_that_are_too_many_do_not_linger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "LINGER_SECONDS", 60)

    async def main() -> None:
        server = ApiServer(target, 3)
        await server.serve(unix_listener(str(tmp_path / "s")))
        with ExitStack() as stack:
            for _ in range(100):
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                await asyncio.get_running_loop().sock_connect(client, str(tmp_path / "s"))
            while await asyncio.get_running_loop().sock_recv(client, 4096):  # the last one: all were accepted
                pass
            found = server.connections
        await server.stop(0.1)
        assert found <= 3 + connection.REFUSED_MOST

    asyncio.run(asyncio.wait_for(main(), 60))


def test_those_that_never_shake_hands_are_few_and_soon_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HANDSHAKES_MOST", 5)
    monkeypatch.setattr(tls, "HANDSHAKE_SECONDS", 1.5)
    authority = Authority(tmp_path / "ca")
    trusting = ssl.create_default_context(cafile=str(authority.certificate))

    async def ended(port: int) -> float:
        """When a client that says nothing is sent away."""
        with suppress(ConnectionResetError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            with closing(writer):
                await reader.read()
        return asyncio.get_running_loop().time()

    async def main() -> None:
        loop, listener = asyncio.get_running_loop(), tcp_listener("127.0.0.1", 0)
        port, server = listener.getsockname()[1], ApiServer(target)
        await server.serve(listener, authority.server("127.0.0.1"))
        started = loop.time()
        times = await asyncio.gather(*(ended(port) for _ in range(20)))
        late = [time for time in times if time - started >= 1.5]
        assert len(late) == 5, times
        others = [asyncio.create_task(ended(port)) for _ in range(5)]
        while len(server._handshakes) < 5:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting)
        writer.write(GET)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 200 ")
        writer.close()
        for other in others:
            other.cancel()
        while server._handshakes:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        silent = asyncio.create_task(ended(port))
        while not server._handshakes:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        await server.stop(0.1)
        await silent

    asyncio.run(asyncio.wait_for(main(), 30))


def test_what_comes_after_the_end_of_tls_is_not_kept(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    client = TlsStream(ssl.create_default_context(cafile=str(authority.certificate)), server_hostname="d")
    server = TlsStream(authority.server("d"), server_side=True)
    client.shake_hands(b"")
    server.shake_hands(client.outgoing())
    client.shake_hands(server.outgoing())
    server.shake_hands(client.outgoing())
    client.send(b"last")
    client.end()
    assert (server.receive(client.outgoing()), server.ended) == (b"last", True)
    assert server.receive(b"x" * 100_000) == b""
    assert server._incoming.pending == 0


def key_updates(stream: TlsStream, count: int) -> bytes:
    """Records that each ask for one in answer (RFC 8446 section 4.6.3), which Python's ssl cannot be told to send."""
    library = ctypes.CDLL(_ssl.__file__)
    handle = ctypes.c_void_p.from_address(id(stream.object._sslobj) + object.__basicsize__ + ctypes.sizeof(ctypes.c_void_p))  # type: ignore[attr-defined]
    for _ in range(count):
        assert library.SSL_key_update(handle, 1) == 1
        assert library.SSL_do_handshake(handle) == 1
    return stream.outgoing()


def test_who_makes_tls_talk_and_does_not_listen_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "BUFFER_LIMIT", 4096)
    monkeypatch.setattr(tls, "UNHEARD_MOST", 4096)
    authority = Authority(tmp_path / "ca")
    stream = TlsStream(ssl.create_default_context(cafile=str(authority.certificate)), server_hostname="d")

    async def flood(sock: socket.socket) -> None:
        for _ in range(200):
            await asyncio.get_running_loop().sock_sendall(sock, key_updates(stream, 100))
            await asyncio.sleep(0)  # the server's turn

    async def main() -> None:
        loop, server, listener = asyncio.get_running_loop(), ApiServer(target), tcp_listener("127.0.0.1", 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        address = listener.getsockname()
        await server.serve(listener, authority.server("d"))
        try:
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                sock.setblocking(False)
                await loop.sock_connect(sock, address)
                done = stream.shake_hands(b"")
                while not done:
                    await loop.sock_sendall(sock, stream.outgoing())
                    done = stream.shake_hands(await loop.sock_recv(sock, 65536))
                await loop.sock_sendall(sock, stream.outgoing())
                with pytest.raises((BrokenPipeError, ConnectionResetError)):
                    await flood(sock)
        finally:
            await server.stop(0.1)

    asyncio.run(asyncio.wait_for(main(), 30))
