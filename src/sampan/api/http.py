"""Requests and responses as the routes see them, and the parts of HTTP/1.1 framing that httptools leaves to us."""

import asyncio
import os
import select
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import httptools
import msgspec

from sampan.api import decode
from sampan.api.encode import document
from sampan.errors import InvalidArgument
from sampan.readiness import writable, write_all
from sampan.streams import Duplex, Piece

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from sampan.api.versions import Version

S = TypeVar("S", bound=msgspec.Struct)

MAX_JSON_BODY = 16 * 1024 * 1024
"""A body that is held in memory whole. A create with a large seccomp profile is 30 KB."""
WHOLE_BODY_SECONDS = 300.0
"""How long such a body may take."""
BUFFER_LIMIT = 256 * 1024
"""Bytes read ahead for a slow consumer before the socket is left alone."""
_WORTH_A_VIEW = 2048
"""Bytes of a piece from which it is not copied out of what arrived."""
_TURN = 1 << 20
"""Bytes moved before other connections have their turn."""


class HttpError(Exception):
    """A request that is not HTTP as we speak it; the connection ends after the answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class Response(NamedTuple):
    """A whole answer. routed=False leaves out docker's own headers, as for an unknown path."""

    status: int = 200
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    routed: bool = True


NO_CONTENT = Response(204)


def json_response(value: object, status: int = 200) -> Response:
    """A struct or list as JSON."""
    return Response(status, document(value))


def error_response(status: int, message: str) -> Response:
    """Docker's error body."""
    return Response(status, b"" if status == 304 else document({"message": message}))


class Head:
    """What httptools calls back for a request's head."""

    __slots__ = ("headers", "url")

    def __init__(self) -> None:
        self.url = b""
        self.headers: dict[str, str] = {}

    def on_url(self, url: bytes) -> None:
        """A piece of the request target."""
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; several of one name become a list, as RFC 9110 section 5.3 allows."""
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1")
        known = self.headers.get(key)
        self.headers[key] = text if known is None else f"{known}, {text}"


class ParsedHead(NamedTuple):
    """A request's head."""

    method: str
    target: str
    headers: dict[str, str]
    minor: int
    keep_alive: bool
    length: int
    """Of the body; -1 = chunked."""


def parse_head(data: bytes) -> ParsedHead:
    """Parse a head that ends in an empty line. Raises HttpError."""
    head = Head()
    parser = httptools.HttpRequestParser(head)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        raise HttpError(400, "malformed HTTP request") from None
    version = parser.get_http_version()
    headers = head.headers
    length = 0
    coding = headers.get("transfer-encoding")
    declared = headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or declared is not None:
            raise HttpError(400, "unsupported transfer encoding")
        length = -1
    elif declared is not None:
        if not declared.isascii() or not declared.isdigit() or len(declared) > 18:
            raise HttpError(400, "bad Content-Length")
        length = int(declared)
    keep_alive = parser.should_keep_alive() and "close" not in headers.get("connection", "").lower()
    if version == "1.1" and "upgrade" in headers:
        keep_alive = "close" not in headers.get("connection", "").lower()
    return ParsedHead(parser.get_method().decode("latin-1"), head.url.decode("latin-1"), headers, int(version[-1]), keep_alive, length)


class ChunkDecoder:
    """Transfer-Encoding: chunked (RFC 9112 section 7.1), strictly: only CRLF, no white space in sizes; trailers are dropped."""

    MAX_LINE = 4096

    def __init__(self) -> None:
        self._line = bytearray()
        self._left = 0
        self._state = "size"
        self.complete = False

    def feed(self, data: bytes) -> tuple[list[bytes | memoryview], bytes]:
        """(payload pieces, long ones as parts of data, and what follows the body). Raises HttpError."""
        pieces: list[bytes | memoryview] = []
        place = 0
        whole = memoryview(data)
        while place < len(data) and not self.complete:
            if self._state == "data":
                end = min(place + self._left, len(data))
                piece = whole[place:end] if end - place >= _WORTH_A_VIEW else data[place:end]
                pieces.append(piece)
                place += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._state = "crlf"
                continue
            end = data.find(b"\n", place)
            stop = len(data) if end < 0 else end + 1
            self._line += data[place:stop]
            place = stop
            if len(self._line) > self.MAX_LINE:
                raise HttpError(400, "malformed chunked encoding")
            if end >= 0:
                self._end_of_line()
        return pieces, data[place:]

    def _end_of_line(self) -> None:
        if self._line[-2:] != b"\r\n":
            raise HttpError(400, "malformed chunked encoding")
        line = bytes(self._line[:-2])
        self._line.clear()
        if self._state == "crlf":
            if line:
                raise HttpError(400, "malformed chunked encoding")
            self._state = "size"
        elif self._state == "trailer":
            self.complete = not line
        else:
            digits = line.partition(b";")[0]
            if not 0 < len(digits) <= 15 or digits.strip(b"0123456789abcdefABCDEF"):
                raise HttpError(400, "malformed chunked encoding")
            self._left = int(digits, 16)
            self._state = "data" if self._left else "trailer"


class Reading(Protocol):
    """What a body or hijacked stream tells its connection."""

    def update_reading(self) -> None:
        """What is buffered changed: stop or go on reading the socket."""

    def send_continue(self) -> None:
        """The consumer wants the body: send 100 Continue if the client waits for it."""

    def duplicate(self) -> int:
        """Another descriptor of the socket, the caller's to close; -1 where it gives no plain bytes (TLS) or is closed."""


class BodyReader:
    """A request's body as it arrives."""

    def __init__(self, length: int, connection: Reading) -> None:
        self._connection = connection
        self._chunked = ChunkDecoder() if length < 0 else None
        self._left = max(length, 0)
        self._pieces: deque[bytes | memoryview] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        self.buffered = 0
        self.complete = length == 0
        self.raw = False
        """Whether the socket is read by pour(), and by nobody else"""

    def feed(self, data: bytes) -> bytes:
        """Take what belongs to the body; the rest is returned. Raises HttpError."""
        if self._chunked is not None:
            pieces, rest = self._chunked.feed(data)
            size = sum(map(len, pieces))
            if size < len(pieces) * _WORTH_A_VIEW:
                pieces = [b"".join(pieces)]
            self._pieces += [piece for piece in pieces if piece]
            self.buffered += size
            self.complete = self._chunked.complete
        else:
            piece, rest = data[: self._left], data[self._left :]
            self._left -= len(piece)
            self._pieces.append(piece)
            self.buffered += len(piece)
            self.complete = not self._left
        self._wake()
        return rest

    def fail(self, error: Exception) -> None:
        """No more will come."""
        if not self.complete and self._failure is None:
            self._failure = error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self) -> bytes:
        """Some bytes; b"" at the end. Raises ConnectionError when the client is gone, HttpError when the framing is wrong."""
        while not self._pieces:
            if self._failure is not None:
                raise self._failure
            if self.complete:
                return b""
            self._connection.send_continue()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        piece = bytes(self._pieces.popleft())
        self.buffered -= len(piece)
        self._connection.update_reading()
        return piece or await self.read()

    async def pour(self, pipe: int) -> None:
        """See streams.Pourable. What is long and not in chunks goes from socket to pipe in the kernel."""
        os.set_blocking(pipe, False)
        with suppress(BrokenPipeError):
            while self._pieces or not self.complete:
                source = self._connection.duplicate() if self._left > BUFFER_LIMIT and not self._pieces and not self._failure else -1
                if source < 0:
                    await write_all(pipe, await self.read(), *self._take())
                    continue
                self.raw = True
                try:
                    self._connection.send_continue()
                    self._connection.update_reading()
                    await self._splice(source, pipe)
                finally:
                    self.raw = False
                    os.close(source)
                    self._connection.update_reading()

    def _take(self) -> list[bytes | memoryview]:
        """All that is there."""
        pieces = list(self._pieces)
        self._pieces.clear()
        self.buffered = 0
        self._connection.update_reading()
        return pieces

    async def _splice(self, source: int, pipe: int) -> None:
        """The rest of the body from a socket that nobody else reads. Raises ConnectionError when the client is gone, BrokenPipeError."""
        arrived = select.poll()
        arrived.register(source, select.POLLIN)
        turn = 0
        while self._left:
            if self._failure is not None:
                raise self._failure
            try:
                moved = os.splice(source, pipe, min(self._left, _TURN), flags=os.SPLICE_F_NONBLOCK)
            except BlockingIOError:
                turn = 0
                await (writable(pipe) if arrived.poll(0) else self._arrival(source))
                continue
            if not moved:
                raise ConnectionResetError("the client is gone")
            self._left -= moved
            turn += moved
            if turn >= _TURN:  # there are others
                turn = 0
                await asyncio.sleep(0)
        self.complete = True

    async def _arrival(self, source: int) -> None:
        """Wait for bytes in a socket, or for fail()."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        loop.add_reader(source, self._wake)
        try:
            await self._waiter
        finally:
            self._waiter = None
            loop.remove_reader(source)

    async def read_all(self, limit: int = MAX_JSON_BODY) -> bytes:
        """The whole body. Raises HttpError 413 beyond limit bytes, 408 when it takes too long."""
        if self._left + self.buffered > limit:
            raise HttpError(413, "request body too large")
        if self.complete and len(self._pieces) == 1:
            return await self.read()
        try:
            async with asyncio.timeout(WHOLE_BODY_SECONDS):
                return await self._gather(limit)
        except TimeoutError:
            raise HttpError(408, "the request's body took too long") from None

    async def _gather(self, limit: int) -> bytes:
        # One array: of chunks of one byte a list would take 40 times what was sent.
        whole = bytearray()
        while piece := await self.read():
            if len(whole) + len(piece) > limit:
                raise HttpError(413, "request body too large")
            whole += piece
        return bytes(whole)

    async def __aiter__(self) -> "AsyncIterator[bytes]":
        while piece := await self.read():
            yield piece


class Output(Protocol):
    """A streamed answer; each write is sent at once."""

    async def write(self, data: Piece) -> None:
        """Send a piece, waiting while the client is slow. Raises ConnectionError when it is gone."""


class Exchange(Protocol):
    """What a request can ask of its connection."""

    def start_stream(
        self, request: "Request", status: int, content_type: str, headers: tuple[tuple[str, str], ...] = (), first: bytes = b""
    ) -> Output:
        """Send the head of a chunked answer now, and with it the first piece, if it is known."""

    async def hijack(self, request: "Request", head: bytes) -> Duplex:
        """Send head and take the connection over as raw bytes."""


class Request:
    """One request. `variables` are the path's parts by name."""

    __slots__ = ("_query", "body", "exchange", "head", "headers", "method", "path", "raw_query", "stream", "variables", "version")

    def __init__(self, head: ParsedHead, body: BodyReader, exchange: Exchange) -> None:
        self.head = head
        self.method = head.method
        self.headers = head.headers
        self.path = ""
        self.raw_query = ""
        self.version: Version = (1, 24)
        self.variables: dict[str, str] = {}
        self.body = body
        self.exchange = exchange
        self.stream: Output | None = None
        self._query: decode.Query | None = None

    @property
    def query(self) -> decode.Query:
        """The query, decoded at first use."""
        if self._query is None:
            self._query = decode.Query(self.raw_query)
        return self._query

    @property
    def upgrade(self) -> bool:
        """Whether the client asked for `Upgrade: tcp`."""
        return "upgrade" in self.headers

    async def json(self, cls: type[S], *, required: bool = True) -> S:
        """The body as a struct; a missing one is an error or, if not required, the empty struct."""
        value = await self.json_value(required=required)
        return cls() if value is None else decode.convert_body(value, cls)

    async def json_value(self, *, required: bool = True) -> object:
        """The body as parsed JSON; None if there is none."""
        data = await self.body.read_all()
        decode.check_json_type(self.headers.get("content-type", ""), bool(data))
        if not data and not required:
            return None
        if not data:
            raise InvalidArgument("invalid JSON: got EOF while reading request body")
        return decode.parse_body(data)

    def start_stream(
        self, content_type: str = "application/json", status: int = 200, headers: tuple[tuple[str, str], ...] = (), first: bytes = b""
    ) -> Output:
        """Send the head of a streamed answer now, with its first piece if there is one; later errors are the route's to tell in-band."""
        self.stream = self.exchange.start_stream(self, status, content_type, headers, first)
        return self.stream
