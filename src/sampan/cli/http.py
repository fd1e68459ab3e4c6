"""A small HTTP/1.1 client on `socket`, for the Engine API: unix and tcp (TLS too), keep-alive, chunked bodies, hijacked streams.

http.client would cost more start-up time (it imports the email package) than a whole command may take.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any

    from sampan.cli.tlssocket import TlsSocket

    Socket = socket.socket | TlsSocket
    Query = Mapping[str, object]  # str, int, bool, a list of str, or None for: leave out
else:
    import _socket as socket  # the socket module proper imports enum, selectors and more: milliseconds

from sampan.cli import fastjson  # noqa: E402

DEFAULT_HOST = "unix:///run/sampan/sampan.sock"
CLIENT_API_VERSION = "1.51"
USER_AGENT = "Docker-Client/28.2.2 (linux; sampan)"
_FALLBACK_VERSION = "1.24"  # what a daemon without an Api-Version header is taken for
_SAFE = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~")
_CHUNK = 1 << 16
_HEAD_MAX = 1 << 20  # of an answer's head, or of one line


MISSHAPEN = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""What comes of JSON that has another shape than it should: nobody checks all of a daemon's documents."""


class CliError(Exception):
    """A message for the user on stderr and the exit code; an empty message prints nothing."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class ApiError(CliError):
    """The daemon answered with an error: `reason` is its own text, `message` what docker prints for it."""

    def __init__(self, status: int, reason: str, lines: tuple[int, int] | None = None) -> None:
        super().__init__(f"Error response from daemon: {reason}")
        self.status = status
        self.reason = reason
        self.lines = lines
        """(first, last) of a Dockerfile, from a Sampan."""


class ConnectError(CliError):
    """The daemon cannot be reached."""


def misshapen(error: Exception) -> str:
    """What is told of one of MISSHAPEN."""
    return f"the daemon's answer is not what is expected of one: {type(error).__name__}: {error}"


def parse_answer(answer: bytes) -> Any:
    """A daemon's document. CliError for what is no JSON, or nests so deep that nobody could read it."""
    try:
        return fastjson.loads(answer)
    except ValueError as error:
        raise CliError(f"the daemon's answer cannot be read: {error}") from None


def quote(text: str, *, safe: str = "") -> str:
    """Percent-encode as Go's url.QueryEscape (and PathEscape with `safe`) do, but with %20 for a blank in paths."""
    keep = _SAFE | frozenset(safe.encode())
    blank = "%20" if safe else "+"
    raw = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in keep else blank if byte == 32 else f"%{byte:02X}" for byte in raw)


def encode_query(query: Query) -> str:
    """A query string in sorted order of keys, as Go's url.Values.Encode; None is left out, True is 1, False 0."""
    parts: list[str] = []
    for key in sorted(query):
        value = query[key]
        if value is None:
            continue
        for item in value if isinstance(value, list) else [value]:
            text = ("1" if item else "0") if isinstance(item, bool) else str(item)
            parts.append(f"{quote(key)}={quote(text)}")
    return "&".join(parts)


def version_key(version: str) -> tuple[int, ...]:
    """An API version ("1.41") as something that can be compared."""
    return tuple(int(part) if part.isdigit() else 0 for part in version.split("."))


class Host:
    """Where the daemon is: parsed from DOCKER_HOST's forms unix:///path, tcp://host[:port][/base], http(s)://..."""

    at_once = 50
    """How many requests may be under way: docker's own limit."""

    def __init__(self, text: str, tls: ssl.SSLContext | None = None) -> None:
        scheme, sep, rest = text.partition("://")
        if not sep:
            scheme, rest = "tcp", text
        self.text = text if sep else f"tcp://{text}"
        self.path = ""
        self.base = ""
        self.tls = tls
        self.address: tuple[str, int] = ("", 0)
        if scheme == "unix":
            self.text = text if rest else DEFAULT_HOST
            self.path = self.text.removeprefix("unix://")
        elif scheme == "tcp":
            where, slash, base = rest.partition("/")
            self.base = f"/{base}".rstrip("/") if slash else ""
            host, colon, port = where.rpartition(":")
            if not colon or "]" in port:
                host, port = where, "2376" if tls else "2375"
            if not port.isdigit():
                problem = f'parse "{self.text}": invalid port ":{port}" after host'
                raise CliError(f"Failed to initialize: unable to resolve docker endpoint: {problem}")
            self.address = (host.strip("[]") or "localhost", int(port))
            if not colon or "]" in port or not host:
                self.text = f"tcp://{host or 'localhost'}:{port}{self.base}"
        elif scheme in ("npipe", "fd"):
            raise CliError(f"Failed to initialize: unable to resolve docker endpoint: {scheme}:// hosts are not supported by sampan")
        else:
            raise CliError(f"Failed to initialize: unable to resolve docker endpoint: invalid bind address format: {text}")

    @property
    def name(self) -> str:
        """What requests call it; unix sockets have no host of their own, and docker's client names them so."""
        return "api.moby.localhost" if self.path else f"{self.address[0]}:{self.address[1]}"

    def open(self) -> Connection:
        """A new connection. Raises ConnectError."""
        return Connection(self.connect())

    def connect(self) -> Socket:
        """A connected socket; ConnectError in docker's words, with a hint about the group if the socket may not be opened."""
        try:
            if self.path:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
                try:
                    sock.connect(self.path)
                except OSError:
                    sock.close()
                    raise
                return sock
            return self._connect_tcp()
        except PermissionError:
            raise ConnectError(
                f"permission denied while trying to connect to the Docker daemon socket at {self.text}: "
                f"dial unix {self.path}: connect: permission denied\n{_group_hint(self.path)}".rstrip()
            ) from None
        except (socket.gaierror, UnicodeError):  # the second: no name could be so
            scheme = "https" if self.tls else "http"
            where = f"{self.address[0]}:{self.address[1]}{self.base}"
            raise ConnectError(
                f'error during connect: Get "{scheme}://{where}": dial tcp: lookup {self.address[0]}: no such host'
            ) from None
        except OSError as error:
            if self.tls is not None and not isinstance(error, ConnectionError):
                raise ConnectError(f"error during connect: {error}") from None
            raise ConnectError(f"Cannot connect to the Docker daemon at {self.text}. Is the docker daemon running?") from None

    def _connect_tcp(self) -> Socket:
        failure: OSError = ConnectionRefusedError()
        for family, kind, protocol, _, address in socket.getaddrinfo(*self.address, 0, socket.SOCK_STREAM):
            sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
            try:
                sock.connect(address)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError as error:
                sock.close()
                failure = error
                continue
            if self.tls is None:
                return sock
            from sampan.cli.tlssocket import TlsSocket

            return TlsSocket(sock, self.tls, self.address[0])
        raise failure


def _group_hint(path: str) -> str:
    """What the user can do about a socket that may not be opened."""
    try:
        import grp

        name = grp.getgrgid(os.stat(path).st_gid).gr_name
    except (OSError, KeyError):
        return ""
    if name == "root":
        return "Only root may use this socket: run the command with sudo."
    return (
        f"The socket belongs to the group '{name}': run the command with sudo, or add yourself to the group "
        f"(sudo usermod -aG {name} $USER) and log in again."
    )


class Connection:
    """One socket with its read buffer. `busy` while a response's body has not been read to the end."""

    def __init__(self, sock: Socket) -> None:
        self.sock = sock
        self.buffer = b""
        self.busy = False

    def fill(self) -> bool:
        """Read more into the buffer; False at the end of the stream."""
        data = self.sock.recv(_CHUNK)
        self.buffer += data
        return bool(data)

    def stale(self) -> bool:
        """Whether the daemon has closed this idle connection meanwhile."""
        try:
            return not self.sock.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except (BlockingIOError, ValueError):  # ValueError: TLS sockets take no flags
            return False
        except OSError:
            return True

    def line(self) -> bytes:
        """One line without its end; EOFError if the stream ends before, CliError if it is no line of HTTP."""
        while True:
            at = self.buffer.find(b"\n")
            if at >= 0:
                line, self.buffer = self.buffer[:at], self.buffer[at + 1 :]
                return line.rstrip(b"\r")
            if len(self.buffer) > _HEAD_MAX:
                raise _not_http()
            if not self.fill():
                raise EOFError

    def reason(self, seen: str) -> str:
        """Why the stream has ended before its time; `seen` is how it did."""
        return seen

    def close(self) -> None:
        """Close the socket."""
        self.sock.close()


def _not_http() -> CliError:
    return CliError("the daemon's answer is not HTTP")


def _number(text: bytes, base: int = 10) -> int:
    """Digits and nothing else. Raises ValueError."""
    digits = b"0123456789abcdefABCDEF" if base == 16 else b"0123456789"
    if not 0 < len(text) < 19 or text.strip(digits):
        raise ValueError(text)
    return int(text, base)


class Response:
    """Status, headers (lower-case names) and the body, which is read when asked for."""

    def __init__(self, connection: Connection, *, head_only: bool = False) -> None:
        self.connection = connection
        self.left: int | None
        connection.busy = True
        parts = connection.line().split(None, 2)
        if len(parts) < 2 or not parts[1].isdigit() or len(parts[1]) != 3:
            raise _not_http()
        self.status = int(parts[1])
        self.headers: dict[str, str] = {}
        left = _HEAD_MAX
        while line := connection.line():
            left -= len(line) + 2
            if left < 0:
                raise _not_http()
            name, _, value = line.decode("latin-1").partition(":")
            self.headers[name.strip().lower()] = value.strip()
        self.chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        length = self.headers.get("content-length")
        try:
            self.left = None if self.chunked or length is None else _number(length.encode("latin-1"))
        except ValueError:
            raise _not_http() from None
        if head_only or self.status in (204, 304) or self.status < 200:
            self.chunked, self.left = False, 0
        self._body: Iterator[bytes] | None = None
        if self.left == 0:
            self._done()

    def _done(self) -> None:
        self.connection.busy = False
        if (self.left is None and not self.chunked) or self.headers.get("connection", "").lower() == "close":
            self.connection.close()
            self.connection.busy = True  # not to be used again

    def stream(self) -> Iterator[bytes]:
        """The body as it arrives, in pieces as they come off the socket. A dropped connection ends it with CliError('unexpected EOF')."""
        if self._body is None:
            self._body = self._chunks() if self.chunked else self._plain()
        return self._body

    def _plain(self) -> Iterator[bytes]:
        connection = self.connection
        while self.left is None or self.left > 0:
            if not connection.buffer and not connection.fill():
                if self.left is None:
                    break
                raise CliError("unexpected EOF")
            data = connection.buffer if self.left is None else connection.buffer[: self.left]
            connection.buffer = connection.buffer[len(data) :]
            if self.left is not None:
                self.left -= len(data)
            yield data
        if self.left is None or connection.busy:
            self._done()

    def _chunks(self) -> Iterator[bytes]:
        connection = self.connection
        try:
            while size := _number(connection.line().split(b";")[0].strip(), 16):
                while size:
                    if not connection.buffer and not connection.fill():
                        raise EOFError
                    data = connection.buffer[:size]
                    connection.buffer = connection.buffer[len(data) :]
                    size -= len(data)
                    yield data
                connection.line()
            while connection.line():
                pass
        except (EOFError, ValueError):
            raise CliError("unexpected EOF") from None
        self._done()

    def read(self) -> bytes:
        """The whole body."""
        return b"".join(self.stream())

    def json(self) -> Any:
        """The whole body, parsed. CliError for what is no JSON."""
        return parse_answer(self.read())

    def lines(self) -> Iterator[bytes]:
        """The body line by line as it arrives (streams of JSON objects), without line ends; empty lines are left out."""
        rest = b""
        for data in self.stream():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                if line.strip():
                    yield line.strip()
        if rest.strip():
            yield rest.strip()

    def close(self) -> None:
        """Drop the connection, if the body was not read to its end."""
        if self.connection.busy:
            self.connection.close()


class Hijacked:
    """A connection after the switch to a raw stream: the socket, and the bytes that came with the answer's head."""

    def __init__(self, sock: Socket, early: bytes, media_type: str) -> None:
        self.sock = sock
        self.early = early
        self.media_type = media_type

    def close_write(self) -> None:
        """Tell the other side that no more input comes."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass


class Pending:
    """A request that has been sent."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection

    def response(self) -> Response:
        """Wait for the answer's head. Raises ApiError for status 400 and up."""
        response = _receive(self.connection)
        if _failed(response):
            raise_error(response)
        return response

    def finish(self) -> None:
        """Wait for the whole answer, and end the connection: there may be many. Raises as `response`."""
        try:
            self.response().read()
        finally:
            self.connection.close()


def _failed(response: Response) -> bool:
    """Status 400 and up; a redirect too: it means that the path was not what it looked like (`../x`)."""
    return response.status >= 400 or 300 <= response.status < 304


def _receive(connection: Connection, *, head_only: bool = False) -> Response:
    try:
        return Response(connection, head_only=head_only)
    except EOFError:
        raise ConnectError(f"error during connect: {connection.reason('EOF')}") from None
    except OSError as error:
        raise ConnectError(f"error during connect: {connection.reason(error.strerror or str(error))}") from None


class Client:
    """The Engine API of one daemon. The version is negotiated at the first request: HEAD /_ping, as docker does."""

    def __init__(self, host: Host, *, api_version: str = "", headers: Mapping[str, str] | None = None) -> None:
        self.host = host
        self.extra = dict(headers or {})
        self.api_version = api_version.removeprefix("v")
        self.pinned = bool(api_version)
        self.ping: Mapping[str, str] | None = None
        self._idle: Connection | None = None
        self._open: list[Connection] = []

    def _connect(self) -> Connection:
        connection = self.host.open()
        self._open.append(connection)
        return connection

    def close(self) -> None:
        """Close every connection."""
        for connection in self._open:
            connection.close()
        self._open.clear()

    def negotiate(self) -> str:
        """The API version to speak. Unless DOCKER_API_VERSION pins it: the daemon's, but no newer than ours."""
        if self.ping is None:
            response = self._exchange("HEAD", "/_ping", {}, None, head_only=True)
            if response.status != 200:
                response = self._exchange("GET", "/_ping", {}, None)
                response.read()
            self.ping = response.headers
            if not self.pinned:
                server = self.ping.get("api-version") or _FALLBACK_VERSION
                self.api_version = min(server, CLIENT_API_VERSION, key=version_key)
        return self.api_version

    def at_least(self, version: str) -> bool:
        """Whether the version spoken is `version` ("1.42") or newer."""
        return version_key(self.negotiate()) >= version_key(version)

    def request(
        self,
        method: str,
        path: str,
        query: Query | None = None,
        body: Any = None,
        *,
        data: Iterable[bytes] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> Response:
        """Send a request (path without version: "/containers/json") and read the answer's head.

        body: an object sent as JSON; data: raw bytes, or pieces sent chunked. Raises ApiError for status 400 and up, unless `check` is off.
        Needs no other request to be finished: a connection still busy with a stream is left alone and another one opened.
        """
        target = f"/v{self.negotiate()}{path}"
        if query:
            text = encode_query(query)
            target += f"?{text}" if text else ""
        head = dict(headers or {})
        if body is not None:
            data = fastjson.dumps(body).encode("utf-8", "surrogateescape")
            head.setdefault("Content-Type", "application/json")
        response = self._exchange(method, target, head, data, head_only=method == "HEAD")
        if check and _failed(response):
            raise_error(response)
        return response

    def begin(self, method: str, path: str, query: Query | None = None) -> Pending:
        """Send a request without a body on a connection of its own, and leave the answer for later: many can be under way at once."""
        target = f"/v{self.negotiate()}{path}"
        text = encode_query(query) if query else ""
        connection = self._connect()
        self._send(connection, method, f"{target}?{text}" if text else target, {}, None)
        return Pending(connection)

    def hijack(self, path: str, query: Query | None = None, body: Any = None, *, headers: Mapping[str, str] | None = None) -> Hijacked:
        """POST and take the connection over as a raw stream (attach, exec start), or as another protocol that headers name."""
        target = f"/v{self.negotiate()}{path}"
        if query:
            target += f"?{encode_query(query)}"
        data = b""
        head = {"Connection": "Upgrade", "Upgrade": "tcp", **(headers or {})}
        if body is not None:
            data = fastjson.dumps(body).encode("utf-8", "surrogateescape")
            head["Content-Type"] = "application/json"
        connection = self._connect()
        self._send(connection, "POST", target, head, data)
        response = _receive(connection)
        if response.status not in (101, 200):
            if response.status >= 400:
                raise_error(response)
            raise CliError(f"unable to upgrade to tcp, received {response.status}")
        early, connection.buffer = connection.buffer, b""
        return Hijacked(connection.sock, early, response.headers.get("content-type", ""))

    def _exchange(
        self, method: str, target: str, head: Mapping[str, str], data: Iterable[bytes] | bytes | None, *, head_only: bool = False
    ) -> Response:
        connection = self._idle
        if connection is None or connection.busy or connection.stale():
            connection = self._idle = self._connect()
        self._send(connection, method, target, head, data)
        return _receive(connection, head_only=head_only)

    def _send(
        self, connection: Connection, method: str, target: str, head: Mapping[str, str], data: Iterable[bytes] | bytes | None
    ) -> None:
        lines = [
            f"{method} {self.host.base}{target} HTTP/1.1",
            f"Host: {self.host.name}",
            f"User-Agent: {USER_AGENT}",
        ]
        lines += [f"{name}: {value}" for name, value in {**self.extra, **head}.items()]
        pieces = data is not None and not isinstance(data, bytes)
        if pieces:
            lines.append("Transfer-Encoding: chunked")
        elif data is not None or method in ("POST", "PUT"):
            lines.append(f"Content-Length: {len(data) if isinstance(data, bytes) else 0}")
        raw = ("\r\n".join(lines) + "\r\n\r\n").encode("utf-8", "surrogateescape")
        connection.busy = True
        try:
            connection.sock.sendall(raw + data if isinstance(data, bytes) else raw)
            if pieces and data is not None:
                self._send_chunks(connection, data)  # type: ignore[arg-type]
        except OSError as error:
            raise ConnectError(f"error during connect: {connection.reason(error.strerror or str(error))}") from None

    def _send_chunks(self, connection: Connection, data: Iterable[bytes]) -> None:
        try:
            for piece in data:
                if piece:
                    connection.sock.sendall(b"%x\r\n" % len(piece) + piece + b"\r\n")
            connection.sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass  # the daemon refused early: its answer says why


def raise_error(response: Response) -> None:
    """Raise the ApiError that an answer of status 400 or above stands for."""
    raw = response.read()
    if response.status < 400:
        raise ApiError(404, "page not found")
    reason = ""
    lines: tuple[int, int] | None = None
    if response.headers.get("content-type", "").startswith("application/json"):
        try:
            parsed = fastjson.loads(raw)
            reason = str(parsed.get("message", "")) if isinstance(parsed, dict) else ""
            match parsed:
                case {"lines": [int(first), int(last)]}:
                    lines = first, last
        except ValueError:
            reason = ""
    else:
        reason = raw.decode("utf-8", "replace")
    raise ApiError(response.status, reason.strip() or f"the daemon answered with status {response.status} and no message", lines)
