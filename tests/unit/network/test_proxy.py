"""The userland proxy with its real process: IPv6 outside, IPv4 inside; on loopback."""

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from sampan.network import userland_proxy
from sampan.network.ports import HeldPort, PortRequest, PublishedPorts, hold
from sampan.network.proxy import UserlandProxy, ipv6_is_usable

pytestmark = pytest.mark.skipif(not ipv6_is_usable(), reason="this host has no IPv6")

LIMIT = 30


@asynccontextmanager
async def published(protocol: str, number: int) -> AsyncIterator[tuple[UserlandProxy, HeldPort]]:
    """A port of ::1 that leads to 127.0.0.1:number."""
    proxy = UserlandProxy("test")
    [port] = hold(PortRequest(number, protocol, "::1"), ["::1"], "test", "0" * 64, "", PublishedPorts())
    try:
        port.listen()
        await proxy.open(port, "127.0.0.1")
        yield proxy, port
    finally:
        await proxy.close(port)
        port.close()
        await proxy.stop()


@asynccontextmanager
async def upper_server_published() -> AsyncIterator[tuple[UserlandProxy, HeldPort]]:
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(await asyncio.start_server(upper, "127.0.0.1", 0))
        yield await stack.enter_async_context(published("tcp", server.sockets[0].getsockname()[1]))


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), LIMIT))


async def connect(port: HeldPort) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("::1", port.published.host_port)


async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers only once its client has said that there is no more: half-close has to arrive."""
    writer.write((await reader.read()).upper())
    await writer.drain()
    writer.close()


async def ask(port: HeldPort, data: bytes) -> bytes:
    reader, writer = await connect(port)
    writer.write(data)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return answer


def test_bytes_and_half_close_pass_both_ways() -> None:
    async def scenario() -> None:
        async with upper_server_published() as (_, port):
            data = os.urandom(1 << 20).hex().encode()
            assert await ask(port, data) == data.upper()
            answers = await asyncio.gather(*(ask(port, b"x%d" % number) for number in range(50)))
            assert answers == [b"X%d" % number for number in range(50)]

    run(scenario)


def test_a_port_behind_which_nobody_listens_is_closed_at_once() -> None:
    async def scenario() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with published("tcp", unused.getsockname()[1]) as (_, port):
                assert await ask(port, b"") == b""

    run(scenario)


def test_a_closed_port_is_free_and_connections_go_on() -> None:
    async def scenario() -> None:
        async with upper_server_published() as (proxy, port):
            reader, writer = await connect(port)
            writer.write(b"before")
            assert await ask(port, b"accepted by now") == b"ACCEPTED BY NOW"
            await proxy.close(port)
            port.close()
            number = port.published.host_port
            [again] = hold(PortRequest(1, "tcp", "::1", number, number), ["::1"], "t", "0" * 64, "", PublishedPorts())
            again.close()
            with pytest.raises(OSError, match="onnect"):
                await connect(port)
            writer.write(b" and after")
            writer.write_eof()
            assert await reader.read() == b"BEFORE AND AFTER"
            writer.close()

    run(scenario)


def test_a_proxy_that_was_killed_is_started_again() -> None:
    async def scenario() -> None:
        async with upper_server_published() as (proxy, port):
            assert await ask(port, b"one") == b"ONE"
            assert proxy._process is not None
            os.kill(proxy._process.pid, signal.SIGKILL)
            # the socket is still held: a client of the time between waits in its queue
            assert await ask(port, b"two") == b"TWO"

    run(scenario)


def test_datagrams_find_their_way_back_to_each_client() -> None:
    stop = threading.Event()

    def serve(server: socket.socket) -> None:
        server.settimeout(0.2)
        while not stop.is_set():
            try:
                data, client = server.recvfrom(65536)
            except TimeoutError:
                continue
            server.sendto(data.upper(), client)

    async def scenario() -> None:
        async with published("udp", server.getsockname()[1]) as (_, port):
            await asyncio.to_thread(exchange, port.published.host_port)

    def exchange(number: int) -> None:
        clients = [socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) for _ in range(5)]
        for index, client in enumerate(clients):
            client.settimeout(LIMIT)
            client.connect(("::1", number))
            client.send(b"client %d" % index)
        for index, client in enumerate(clients):
            assert client.recv(65536) == b"CLIENT %d" % index
            client.close()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        try:
            run(scenario)
        finally:
            stop.set()
            thread.join(10)


def test_more_ports_at_once_than_its_socket_takes() -> None:
    """The kernel queues a few hundred messages (net.unix.max_dgram_qlen, the send buffer); the rest waits for the proxy to read."""

    async def scenario() -> None:
        async with upper_server_published() as (proxy, port):
            target = port.published.port
            more = [hold(PortRequest(target, "tcp", "::1"), ["::1"], "t", "0" * 64, "", PublishedPorts())[0] for _ in range(1500)]
            for one in more:
                one.listen()
                await proxy.open(one, "127.0.0.1")
            assert await ask(more[-1], b"last") == b"LAST"
            for one in more:
                await proxy.close(one)
                one.close()

    run(scenario)


def test_a_port_whose_descriptor_did_not_come_is_passed_over() -> None:
    """The kernel leaves a descriptor out when the proxy may have no more of them: what it serves goes on."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        poll = userland_proxy.Poll()
        control = userland_proxy.Control(poll, theirs)
        ours.send(json.dumps({"open": "x", "protocol": "tcp", "to": ["127.0.0.1", 1]}).encode())
        poll.turn(1)
        assert (control.is_open, control.ports) == (True, {})
    poll.turn(1)
    assert not control.is_open
