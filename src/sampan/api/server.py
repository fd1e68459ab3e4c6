"""The listeners: unix sockets, TCP, TLS and inherited sockets, all serving one Resolve function."""

import asyncio
import contextlib
import errno
import grp
import os
import resource
import socket
import ssl
import stat
from functools import partial

from sampan.api.connection import Connection, Resolve
from sampan.api.hijack import HangupWatcher
from sampan.api.tls import TlsConnection
from sampan.errors import SystemFailure

BACKLOG = 1024
SOCKET_MODE = 0o660
KEEPALIVE_SECONDS = 15


def group_id(name: str) -> int:
    """The number of a group given by name or number. Raises SystemFailure."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name.isdecimal():
            return int(name)
        raise SystemFailure(f"group {name} not found") from None


def _remove_stale(path: str) -> None:
    """Unlink a socket that nobody listens on. Raises SystemFailure if somebody does, or if it is not a socket."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SystemFailure(f"can't create unix socket {path}: the path exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as problem:
            raise SystemFailure(f"can't create unix socket {path}: {problem.strerror}") from None
    raise SystemFailure(f"can't create unix socket {path}: another process listens on it")


def unix_listener(path: str, *, gid: int | None = None, mode: int = SOCKET_MODE) -> socket.socket:
    """A listening unix socket that is never open to more than it should be, not even between bind and chmod. Raises SystemFailure."""
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old_mask = os.umask(0o177)
    try:
        listener.bind(path)
        if gid is not None:
            os.chown(path, -1, gid)
        os.chmod(path, mode)
        listener.listen(BACKLOG)
    except OSError as problem:
        listener.close()
        raise SystemFailure(f"can't create unix socket {path}: {problem.strerror}") from None
    finally:
        os.umask(old_mask)
    listener.setblocking(False)
    return listener


def tcp_listener(host: str, port: int) -> socket.socket:
    """A listening TCP socket; host "" = all addresses. Raises SystemFailure."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # accepted ones have these as well: a host that is gone is noticed
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_SECONDS)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as problem:
        listener.close()
        text = "bind: address already in use" if problem.errno == errno.EADDRINUSE else problem.strerror
        raise SystemFailure(f"listen tcp {host}:{port}: {text}") from None
    listener.setblocking(False)
    return listener


def tls_context(cert: str, key: str, ca: str | None, *, verify: bool) -> ssl.SSLContext:
    """Server side TLS of --tlscert, --tlskey, --tlscacert; verify = --tlsverify: clients must show a certificate of that CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.load_cert_chain(cert, key)
    if ca is not None:
        context.load_verify_locations(ca)
    if verify:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


class ApiServer:
    """All listeners and connections of the API. start() in a running loop; stop() before the loop ends."""

    def __init__(self, resolve: Resolve, most: int = 0) -> None:
        """most: connections at once; 0 is half of the descriptors that we may have: containers need the others."""
        self._resolve = resolve
        self._most = most or resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2
        self._servers: list[asyncio.Server] = []
        self._handshakes: dict[TlsConnection, None] = {}
        self._connections: set[Connection] = set()
        self._hangups: HangupWatcher | None = None

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    def _make(self) -> Connection:
        assert self._hangups is not None
        return Connection(self._resolve, self._hangups, self._connections, self._most)

    async def serve(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept on a listening socket (unix_listener, tcp_listener, or one inherited); the server owns it."""
        loop = asyncio.get_running_loop()
        if self._hangups is None:
            self._hangups = HangupWatcher(loop)
        make = self._make if tls is None else partial(TlsConnection, tls, self._make, self._handshakes)
        if listener.family == socket.AF_UNIX:
            server = await loop.create_unix_server(make, sock=listener, backlog=BACKLOG)
        else:
            server = await loop.create_server(make, sock=listener, backlog=BACKLOG)
        self._servers.append(server)

    async def stop(self, grace: float = 5.0) -> None:
        """Stop accepting, end streams, let short requests finish within grace seconds, then cut."""
        for server in self._servers:
            server.close()
        for connecting in list(self._handshakes):
            connecting.abort()
        for connection in list(self._connections):
            connection.shut_down()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + grace
        while any(connection.busy for connection in self._connections) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        for connection in list(self._connections):
            connection.abort()
        for server in self._servers:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await server.wait_closed()
        self._servers.clear()
        if self._hangups is not None:
            self._hangups.close()
            self._hangups = None
