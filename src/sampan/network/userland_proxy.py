"""The program behind ports published on IPv6 addresses: takes connections and datagrams there, and passes them on to IPv4 addresses.

The kernel cannot translate from IPv6 to IPv4, and containers on the default bridge have IPv4 only. This is one small process for all ports
of an engine, so that their traffic does not pass through sampand. On its control socket (descriptor 0, SOCK_SEQPACKET) it is told

    {"open": KEY, "protocol": "tcp"|"udp", "to": [ADDRESS, PORT]}   with the bound socket as SCM_RIGHTS
    {"close": KEY}                                                  answered with {"closed": KEY} once the port is free

When the control socket ends, sampand is gone: the ports are freed at once, for the next sampand to take, and connections that stand go
on until they end by themselves.
"""

import contextlib
import errno
import json
import os
import selectors
import socket
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final

CHUNK: Final = 1 << 17
CLIENTS: Final = 1024
"""UDP clients of one port that are remembered; the one longest silent goes first."""
SILENCE: Final = 90.0
"""Seconds after which a UDP client is forgotten (docker-proxy's)."""
NOBODY: Final = 65534
Target = tuple[str, int]
Handler = Callable[[int], None]


class Poll:
    """Which handler to call when a socket is ready."""

    def __init__(self) -> None:
        self._selector = selectors.EpollSelector()

    def __len__(self) -> int:
        return len(self._selector.get_map())

    def want(self, sock: socket.socket, events: int, handler: Handler) -> None:
        """Wait for these events from now on; 0: for none."""
        known = sock in self._selector.get_map()
        if not events:
            if known:
                self._selector.unregister(sock)
        elif known:
            self._selector.modify(sock, events, handler)
        else:
            self._selector.register(sock, events, handler)

    def turn(self, timeout: float) -> None:
        """Call the handlers of what is ready. A handler may have closed the socket of a later one in the same turn."""
        for key, events in self._selector.select(timeout):
            if self._selector.get_map().get(key.fileobj) == key:
                key.data(events)


def _family(target: Target) -> int:
    return socket.AF_INET6 if ":" in target[0] else socket.AF_INET


class Side:
    """One end of a TCP connection: its socket, and what has still to be written to it."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self.pending = memoryview(b"")
        self.has_ended = False
        """No more is to be read from it."""
        self.is_shut = False
        """No more is to be written to it."""


class Connection:
    """Two TCP sockets joined: what is read from one is written to the other, half-close included."""

    def __init__(self, poll: Poll, client: socket.socket, target: Target) -> None:
        """Raises OSError. The container's end is still being connected: it is writable then."""
        self._poll = poll
        server = socket.socket(_family(target), socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        self._client, self._server = Side(client), Side(server)
        error = server.connect_ex(target)
        if error not in (0, errno.EINPROGRESS):
            server.close()
            raise OSError(error, os.strerror(error))
        poll.want(server, selectors.EVENT_WRITE, self._connected)

    def _connected(self, _events: int) -> None:
        if self._server.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._close()
            return
        for side in (self._client, self._server):
            side.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._rearm()

    def _rearm(self) -> None:
        for side, other in ((self._client, self._server), (self._server, self._client)):
            events = selectors.EVENT_READ if not (side.has_ended or other.pending) else 0
            events |= selectors.EVENT_WRITE if side.pending else 0
            self._poll.want(side.socket, events, self._client_ready if side is self._client else self._server_ready)

    def _client_ready(self, events: int) -> None:
        self._ready(self._client, self._server, events)

    def _server_ready(self, events: int) -> None:
        self._ready(self._server, self._client, events)

    def _ready(self, side: Side, other: Side, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._flush(side, other)
            if events & selectors.EVENT_READ and not (side.has_ended or other.pending):
                data = side.socket.recv(CHUNK)
                side.has_ended = not data
                other.pending = memoryview(data)
                self._flush(other, side)
        except BlockingIOError:
            pass
        except OSError:  # reset by either end
            self._close()
            return
        if self._client.is_shut and self._server.is_shut:
            self._close()
        else:
            self._rearm()

    @staticmethod
    def _flush(side: Side, source: Side) -> None:
        if side.pending:
            with contextlib.suppress(BlockingIOError):
                side.pending = side.pending[side.socket.send(side.pending) :]
        if source.has_ended and not side.pending and not side.is_shut:
            side.is_shut = True
            side.socket.shutdown(socket.SHUT_WR)

    def _close(self) -> None:
        for side in (self._client, self._server):
            self._poll.want(side.socket, 0, self._client_ready)
            side.socket.close()


class TcpPort:
    """A listening socket."""

    def __init__(self, poll: Poll, sock: socket.socket, target: Target) -> None:
        self._poll, self._socket, self._target = poll, sock, target
        sock.setblocking(False)
        poll.want(sock, selectors.EVENT_READ, self._accept)

    def _accept(self, _events: int) -> None:
        try:
            client, _ = self._socket.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                time.sleep(0.05)  # until some connection ends: spinning helps nobody
            return
        try:
            Connection(self._poll, client, self._target)
        except OSError:
            client.close()

    def close(self) -> None:
        """Free the port; connections go on."""
        self._poll.want(self._socket, 0, self._accept)
        self._socket.close()

    def expire(self, now: float) -> None:
        """Nothing gets old here."""


class UdpPort:
    """A bound datagram socket; each client has a socket of its own towards the container, so that answers find their way."""

    def __init__(self, poll: Poll, sock: socket.socket, target: Target) -> None:
        self._poll, self._socket, self._target = poll, sock, target
        self._clients: OrderedDict[Any, tuple[socket.socket, float]] = OrderedDict()
        sock.setblocking(False)
        poll.want(sock, selectors.EVENT_READ, self._from_client)

    def _from_client(self, _events: int) -> None:
        with contextlib.suppress(OSError):
            data, client = self._socket.recvfrom(65536)
            server = self._clients.pop(client, (None, 0.0))[0] or self._new(client)
            self._clients[client] = server, time.monotonic()
            server.send(data)

    def _new(self, client: Any) -> socket.socket:
        while len(self._clients) >= CLIENTS:
            self._forget(next(iter(self._clients)))
        server = socket.socket(_family(self._target), socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        server.setblocking(False)
        server.connect(self._target)

        def answer(_events: int) -> None:
            with contextlib.suppress(OSError):
                self._socket.sendto(server.recv(65536), client)

        self._poll.want(server, selectors.EVENT_READ, answer)
        return server

    def _forget(self, client: Any) -> None:
        server, _ = self._clients.pop(client)
        self._poll.want(server, 0, self._from_client)
        server.close()

    def expire(self, now: float) -> None:
        """Forget clients silent for too long."""
        while self._clients:
            client, (_, last) = next(iter(self._clients.items()))
            if now - last < SILENCE:
                return
            self._forget(client)

    def close(self) -> None:
        """Free the port and forget the clients."""
        for client in list(self._clients):
            self._forget(client)
        self._poll.want(self._socket, 0, self._from_client)
        self._socket.close()


class Control:
    """Does what sampand says."""

    def __init__(self, poll: Poll, sock: socket.socket) -> None:
        self._poll, self._socket = poll, sock
        self.is_open = True
        self.ports: dict[str, TcpPort | UdpPort] = {}
        sock.setblocking(False)
        poll.want(sock, selectors.EVENT_READ, self._receive)

    def _receive(self, _events: int) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, 65536, 4)
        except BlockingIOError:
            return
        except OSError:
            data, fds = b"", []
        if not data:
            self._end()
            return
        message = json.loads(data)
        if "open" in message:
            self._drop(message["open"])
            if not fds:  # connections have taken every descriptor we may have; the ports that are served go on
                return
            port = TcpPort if message["protocol"] == "tcp" else UdpPort
            address, number = message["to"]
            self.ports[message["open"]] = port(self._poll, socket.socket(fileno=fds[0]), (address, number))
        else:
            self._drop(message["close"])
            with contextlib.suppress(OSError):
                self._socket.send(json.dumps({"closed": message["close"]}).encode())

    def _drop(self, key: str) -> None:
        port = self.ports.pop(key, None)
        if port is not None:
            port.close()

    def _end(self) -> None:
        for key in list(self.ports):
            self._drop(key)
        self._poll.want(self._socket, 0, self._receive)
        self._socket.close()
        self.is_open = False


def drop_privileges() -> None:
    """Sockets come to us bound: nothing that follows needs rights, and strangers' bytes pass through here."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)


def main() -> None:
    """Serve until sampand is gone and the last connection has ended."""
    drop_privileges()
    poll = Poll()
    control = Control(poll, socket.socket(fileno=0))
    swept = time.monotonic()
    while control.is_open or len(poll):
        poll.turn(10.0)
        now = time.monotonic()
        if now - swept > 10.0:
            swept = now
            for port in control.ports.values():
                port.expire(now)


if __name__ == "__main__":
    main()
