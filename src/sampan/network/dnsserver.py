"""The embedded DNS server of one container: two sockets on 127.0.0.11 inside its netns, served by sampand's event loop.

Queries that come while sampand is away wait in the sockets. What a container may cost is bounded: queries in flight, connections, time.
"""

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Sequence

from sampan.network import dns
from sampan.network.names import View

log = logging.getLogger(__name__)

IN_FLIGHT = 256
"""Queries by UDP of one container that wait for servers upstream; those beyond are dropped, as docker does (there it is 1,024)."""
CONNECTIONS = 32
IDLE = 10.0
"""Seconds a TCP connection may say nothing."""
PATIENCE = 4.0
"""Seconds for one server upstream."""
SERVERS = 3
"""As many are asked as resolv.conf(5) takes."""
_LENGTH = struct.Struct("!H")
_LARGEST = 4096
"""Bytes of a query; what is longer is no query for an address."""


class DnsServer:
    """Serves one container. view and upstream are called for each query: they may change while the container runs."""

    def __init__(
        self, udp: socket.socket, tcp: socket.socket, view: Callable[[], View], upstream: Callable[[], Sequence[str]], port: int = 53
    ) -> None:
        """The sockets are non-blocking and ours from now on; tcp listens. upstream: addresses of servers, none for an internal network.

        port: that of the servers upstream.
        """
        self._udp = udp
        self._tcp = tcp
        self._view = view
        self._upstream = upstream
        self._port = port
        self._answers = dns.Answers()
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting = 0
        self._connections = 0

    def start(self) -> None:
        """Begin to answer, on the running event loop."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._udp.fileno(), self._datagrams)
        loop.add_reader(self._tcp.fileno(), self._accept)

    async def stop(self) -> None:
        """End all that goes on and close the sockets."""
        loop = asyncio.get_running_loop()
        for endpoint in (self._udp, self._tcp):
            loop.remove_reader(endpoint.fileno())
            endpoint.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work: "asyncio._CoroutineLike[None]") -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # UDP

    def _datagrams(self) -> None:
        for _ in range(32):  # then the others have their turn
            try:
                packet, client = self._udp.recvfrom(_LARGEST)
            except OSError:
                return
            try:
                reply = self._answers.to(packet, self._view(), stream=False)
            except dns.Malformed as error:
                reply = error.reply
            if reply is not None:
                self._send(reply, client)
            elif self._waiting < IN_FLIGHT:
                self._waiting += 1
                self._spawn(self._pass_on(packet, client))

    def _send(self, reply: bytes, client: tuple[str, int]) -> None:
        with contextlib.suppress(OSError):  # the client asks again
            if reply:
                self._udp.sendto(reply, client)

    async def _pass_on(self, packet: bytes, client: tuple[str, int]) -> None:
        try:
            self._send(await self._forward(packet, stream=False), client)
        finally:
            self._waiting -= 1

    # TCP

    def _accept(self) -> None:
        try:
            connection, _ = self._tcp.accept()
        except OSError:
            return
        if self._connections >= CONNECTIONS:
            connection.close()
            return
        connection.setblocking(False)
        self._connections += 1
        self._spawn(self._converse(connection))

    async def _converse(self, connection: socket.socket) -> None:
        writer: asyncio.StreamWriter | None = None
        try:
            reader, writer = await asyncio.open_connection(sock=connection)
            while True:
                async with asyncio.timeout(IDLE):
                    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
                    if length > _LARGEST:
                        return
                    packet = await reader.readexactly(length)
                try:
                    reply = self._answers.to(packet, self._view(), stream=True)
                except dns.Malformed as error:
                    reply = error.reply
                if reply is None:
                    reply = await self._forward(packet, stream=True)
                if not reply:
                    return
                async with asyncio.timeout(IDLE):
                    writer.write(_LENGTH.pack(len(reply)) + reply)
                    await writer.drain()
        except (OSError, EOFError, TimeoutError):
            pass
        finally:
            self._connections -= 1
            if writer is None:
                connection.close()
            else:
                writer.close()

    # upstream

    async def _forward(self, packet: bytes, *, stream: bool) -> bytes:
        """What the first server that knows says; SERVFAIL when none does. Servers get the query as it is."""
        last = b""
        for server in self._upstream()[:SERVERS]:
            try:
                async with asyncio.timeout(PATIENCE):
                    reply = await (self._by_tcp if stream else self._by_udp)(packet, server)
            except (OSError, EOFError, TimeoutError) as error:
                log.debug("name server %s: %s", server, error)
                continue
            if not dns.refuses(reply):
                return reply
            last = reply
        return last or dns.failure(packet)

    async def _by_udp(self, packet: bytes, server: str) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asker:
            await loop.sock_connect(asker, (server, self._port))  # so nobody else's packets come, and the port is a random one
            await loop.sock_sendall(asker, packet)
            while True:
                reply = await loop.sock_recv(asker, 65536)
                if dns.answers(packet, reply):
                    return reply

    async def _by_tcp(self, packet: bytes, server: str) -> bytes:
        reader, writer = await asyncio.open_connection(server, self._port)
        try:
            writer.write(_LENGTH.pack(len(packet)) + packet)
            await writer.drain()
            (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
            reply = await reader.readexactly(length)
            if not dns.answers(packet, reply):
                raise OSError("not the reply to what was asked")
            return reply
        finally:
            writer.close()
