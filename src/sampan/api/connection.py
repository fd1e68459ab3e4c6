"""One client connection: HTTP/1.1 requests one after the other, until one takes the connection over or it ends.

httptools (llhttp) parses heads; bodies are framed here, so that the byte after a request is always known: a hijacking client may send its
first raw bytes in the same packet as the request. Handlers that need no waiting are called directly; others run in a task each.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import unquote

from sampan.api.errors import status_of
from sampan.api.hijack import HangupWatcher, HijackedStream
from sampan.api.http import BUFFER_LIMIT, BodyReader, HttpError, Output, ParsedHead, Request, Response, error_response, parse_head
from sampan.errors import EngineError, full_disk
from sampan.readiness import writable, write_all
from sampan.streams import InPipe, Piece
from sampan.version import API_VERSION, ENGINE_VERSION

if TYPE_CHECKING:
    from sampan.streams import Duplex

log = logging.getLogger("sampan.api")

MAX_HEAD = 64 * 1024
HEAD_SECONDS = 60.0
"""How long a request's head may take from its first byte on. A connection without a request may wait for ever."""
LINGER_SECONDS = 2.0
"""How long a finished connection may go on sending what nobody reads: closing at once would turn the client's last read into a reset."""
REFUSED_MOST = 32
"""Connections beyond the most that are told so, which takes them a while; others are cut."""

COMMON_HEADERS = f"Api-Version: {API_VERSION}\r\nDocker-Experimental: false\r\nOstype: linux\r\nServer: Docker/{ENGINE_VERSION} (linux)\r\n"

Handler = Callable[[Request], Response | Awaitable[Response | None] | None]


class Target(NamedTuple):
    """Where a request goes. cancel: end the handler when the client is gone."""

    handler: Handler
    cancel: bool


Resolve = Callable[[Request], Target]
"""Finds the handler; fills path, version and variables. Raises EngineError."""


class _Clock:
    """The Date header, made once a second."""

    second = 0
    text = ""

    @classmethod
    def date(cls) -> str:
        now = int(time.time())
        if now != cls.second:
            cls.second = now
            cls.text = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now))
        return cls.text


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


def _head(status: int, content_type: str, framing: str, *, routed: bool = True) -> str:
    line = _STATUS_LINES.get(status) or f"HTTP/1.1 {status} {_phrase(status)}\r\n"
    common = COMMON_HEADERS if routed else ""
    kind = f"Content-Type: {content_type}\r\n" if content_type else ""
    return f"{line}{common}{kind}Date: {_Clock.date()}\r\n{framing}"


class ChunkedOutput:
    """A streamed answer; HTTP/1.0 clients get it unframed, ended by close."""

    def __init__(self, connection: "Connection", *, chunked: bool, silent: bool) -> None:
        self._connection = connection
        self._chunked = chunked
        self._silent = silent

    async def write(self, data: Piece) -> None:
        """See http.Output."""
        if not data:
            return
        if self._silent:
            bytes(data)
            return
        head, tail = (b"%x\r\n" % len(data), b"\r\n") if self._chunked else (b"", b"")
        if isinstance(data, bytes) or not await self._connection.splice(head, data, tail):
            await self._connection.write(b"%b%b%b" % (head, bytes(data), tail))

    def framed(self, data: bytes) -> bytes:
        """What is to be sent for a piece."""
        if self._silent or not data:
            return b""
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def finish(self) -> None:
        """The end of the answer."""
        if self._chunked and not self._silent:
            self._connection.write_now(b"0\r\n\r\n")


class Connection(asyncio.Protocol):
    """See the module's docstring. `members` is the server's set of live connections, of which there may be `most`."""

    def __init__(self, resolve: Resolve, hangups: HangupWatcher, members: "set[Connection]", most: int) -> None:
        self._most = most
        self._resolve = resolve
        self._hangups = hangups
        self._members = members
        self._transport: asyncio.Transport = cast("asyncio.Transport", None)
        self._buffer = b""
        self._request: Request | None = None
        self._keep_alive = True
        self._continue_pending = False
        self._task: asyncio.Task[None] | None = None
        self._cancel_when_gone = False
        self._stream: HijackedStream | None = None
        self._output: ChunkedOutput | None = None
        self._writable: asyncio.Future[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._reading = True
        self._eof = False
        self._lost = False
        self._lingering = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client connected."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=BUFFER_LIMIT)
        self._members.add(self)
        if len(self._members) > self._most + REFUSED_MOST:
            self._transport.abort()
        elif len(self._members) > self._most:
            self._refuse(HttpError(503, "too many connections"))

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: both directions are gone."""
        del exc
        self._lost = True
        self._members.discard(self)
        self._head_is_here()
        if self._stream is not None:
            self._stream.connection_lost()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._client_gone()

    def _client_gone(self) -> None:
        if self._request is not None:
            self._request.body.fail(ConnectionResetError("the client is gone"))
        if self._task is not None and self._cancel_when_gone and self._stream is None:
            self._task.cancel()

    def eof_received(self) -> bool:
        """asyncio: the client ended its side. As in Go's server that cancels a streaming answer; others are still delivered."""
        self._eof = True
        if self._lingering:
            return False
        if self._stream is not None:
            self._stream.feed_eof()
            return True
        self._client_gone()
        return self._request is not None

    def pause_writing(self) -> None:
        """asyncio: the client reads slowly."""
        if self._stream is not None:
            self._stream.pause_writing()
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """asyncio: there is room again."""
        if self._stream is not None:
            self._stream.resume_writing()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None
        if self._request is None and not self._lingering:
            self._process()  # requests that were left until their client reads

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes arrived."""
        if self._lingering:
            return
        if self._stream is not None:
            self._stream.feed(data)
            return
        self._buffer = self._buffer + data if self._buffer else data
        self._process()

    # reading

    def _process(self) -> None:
        """Take from the buffer what can be taken: the current body, then a head; an answered request has the next one's turn come."""
        while self._buffer and not self._lost and not self._lingering:
            request = self._request
            try:
                if request is None:
                    if self._writable is not None:  # its client does not read the answers that it has
                        break
                    if not self._next_request() or self._request is None:
                        break
                elif not request.body.complete:
                    self._buffer = request.body.feed(self._buffer)
                else:
                    break
            except HttpError as error:
                self._refuse(error)
                return
        self.update_reading()

    def _next_request(self) -> bool:
        """Start the next request if its head is there. Raises HttpError."""
        buffer = self._buffer
        if buffer[0] in b"\r\n":  # RFC 9112 section 2.2: an empty line before a request is to be ignored
            buffer = self._buffer = buffer.lstrip(b"\r\n")
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(buffer) > MAX_HEAD:
                raise HttpError(431, "request header fields too large")
            if self._deadline is None and buffer:
                self._deadline = asyncio.get_running_loop().call_later(HEAD_SECONDS, self._too_slow)
            return False
        if end > MAX_HEAD:
            raise HttpError(431, "request header fields too large")
        self._head_is_here()
        head = parse_head(buffer[: end + 4])
        self._buffer = buffer[end + 4 :]
        self._start(head)
        return True

    def _head_is_here(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        self._refuse(HttpError(408, "the request's head took too long"))

    def _start(self, head: ParsedHead) -> None:
        body = BodyReader(head.length, self)
        request = Request(head, body, self)
        self._request = request
        self._keep_alive = head.keep_alive
        self._continue_pending = head.minor == 1 and "100-continue" in head.headers.get("expect", "").lower()
        if self._buffer and not body.complete:
            self._buffer = body.feed(self._buffer)
        target, _, query = head.target.partition("?")
        if target[:1] != "/" and "://" in target:  # absolute form
            target = "/" + target.partition("://")[2].partition("/")[2]
        request.path = unquote(target, errors="replace") if "%" in target else target
        request.raw_query = query
        try:
            found = self._resolve(request)
            self._cancel_when_gone = found.cancel
            answer = found.handler(request)
        except Exception as error:
            self._finish(request, self._failure(request, error))
            return
        if answer is None or isinstance(answer, Response):
            self._finish(request, answer)
        else:
            self._task = asyncio.get_running_loop().create_task(self._run(request, answer))

    async def _run(self, request: Request, answer: Awaitable[Response | None]) -> None:
        try:
            response = await answer
        except asyncio.CancelledError:
            self._abandon()
            raise
        except Exception as error:
            if self._stream is not None or self._output is not None:
                # The answer is under way: all that is left is to end it so that the client sees it is incomplete.
                if not isinstance(error, ConnectionError):
                    log.exception("%s %s failed after its answer began", request.method, request.path)
                self._abandon()
                return
            response = self._failure(request, error)
        self._task = None
        self._finish(request, response)

    def _failure(self, request: Request, error: Exception) -> Response | None:
        """The answer to an exception; None where nobody is left to read it."""
        if isinstance(error, EngineError):
            return error_response(status_of(error), error.message)
        if isinstance(error, HttpError):
            self._keep_alive = False
            return error_response(error.status, error.message)
        if isinstance(error, ConnectionError) and (self._lost or self._eof):
            return None
        if (full := full_disk(error)) is not None:
            log.error("%s %s: %s", request.method, request.path, full.message)
            return error_response(status_of(full), full.message)
        log.exception("%s %s failed", request.method, request.path)
        return error_response(500, f"{type(error).__name__}: {error}")

    def _refuse(self, error: HttpError) -> None:
        """A framing error: nothing after it can be understood."""
        self._keep_alive = False
        self._buffer = b""
        if self._request is not None and self._task is not None:
            self._request.body.fail(error)  # the handler meets it when it reads on
            return
        self._write_response(None, error_response(error.status, error.message)._replace(routed=False))
        self._close_gently()

    def update_reading(self) -> None:
        """See http.Reading."""
        if self._lost or self._transport.is_closing():
            return
        if self._stream is not None:
            waiting = BUFFER_LIMIT + 1 if self._stream.raw else self._stream.buffered
        else:
            waiting = len(self._buffer) if self._request is not None or self._writable is not None else 0
            if self._request is not None:
                waiting += BUFFER_LIMIT + 1 if self._request.body.raw else self._request.body.buffered
        if waiting > BUFFER_LIMIT and self._reading:
            self._reading = False
            self._transport.pause_reading()
        elif waiting <= BUFFER_LIMIT // 2 and not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def send_continue(self) -> None:
        """See http.Reading."""
        if self._continue_pending:
            self._continue_pending = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def duplicate(self) -> int:
        """See http.Reading."""
        raw = self._transport.get_extra_info("socket")
        if raw is None or self._lost or self._transport.is_closing() or self._transport.get_extra_info("ssl_object") is not None:
            return -1
        return os.dup(raw.fileno())

    # writing

    def write_now(self, data: bytes) -> None:
        """Hand bytes to the transport; raises ConnectionError when the client is gone."""
        if self._lost or self._transport.is_closing():
            raise BrokenPipeError("the client is gone")
        self._transport.write(data)

    async def write(self, data: bytes) -> None:
        """As write_now, waiting while the client is slow."""
        self.write_now(data)
        while self._writable is not None and not self._lost:
            await asyncio.shield(self._writable)
        if self._lost:
            raise BrokenPipeError("the client is gone")

    async def splice(self, head: bytes, piece: InPipe, tail: bytes) -> bool:
        """Send a piece from its pipe, and what goes around it; False, and nothing was done, where write() has to be used."""
        if self._transport.get_write_buffer_size() or (socket := self.duplicate()) < 0:
            return False
        try:
            await write_all(socket, head)
            left = len(piece)
            while left:
                try:
                    left -= os.splice(piece.fd, socket, left, flags=os.SPLICE_F_NONBLOCK)
                except BlockingIOError:
                    await writable(socket)
            await write_all(socket, tail)
        finally:
            os.close(socket)
        return True

    def _write_response(self, request: Request | None, response: Response) -> None:
        if self._lost or self._transport.is_closing():
            return
        status = response.status
        empty = status in (204, 304) or status < 200
        framing = "" if empty else f"Content-Length: {len(response.body)}\r\n"
        for name, value in response.headers:
            framing += f"{name}: {value}\r\n"
        if not self._keep_alive:
            framing += "Connection: close\r\n"
        content_type = "" if empty else response.content_type
        head = _head(status, content_type, framing + "\r\n", routed=response.routed).encode("latin-1", "replace")
        silent = empty or (request is not None and request.method == "HEAD")
        self._transport.write(head if silent else head + response.body)

    def start_stream(
        self, request: Request, status: int, content_type: str, headers: tuple[tuple[str, str], ...] = (), first: bytes = b""
    ) -> Output:
        """See http.Exchange."""
        chunked = request.head.minor >= 1
        if not request.body.complete or not chunked:
            self._keep_alive = False
        framing = "Transfer-Encoding: chunked\r\n" if chunked else ""
        framing += "".join(f"{name}: {value}\r\n" for name, value in headers)
        if not self._keep_alive:
            framing += "Connection: close\r\n"
        output = ChunkedOutput(self, chunked=chunked, silent=request.method == "HEAD")
        self.write_now(_head(status, content_type, framing + "\r\n").encode("latin-1", "replace") + output.framed(first))
        self._output = output
        return output

    async def hijack(self, request: Request, head: bytes) -> "Duplex":
        """See http.Exchange."""
        if self._lost:
            raise ConnectionResetError("the client is gone")
        early, self._buffer = self._buffer, b""
        if not request.body.complete:
            raise HttpError(400, "request body is incomplete")
        self._stream = HijackedStream(self._transport, self, early, self._hangups)
        if self._writable is not None:
            self._stream.pause_writing()
        if self._eof:
            self._stream.feed_eof()
        self._transport.write(head)
        self.update_reading()
        return self._stream

    # the end of a request

    def _finish(self, request: Request, response: Response | None) -> None:
        """The handler is done: send its answer, go on with the next request or close."""
        if self._stream is not None:
            self._close_gently()
            return
        if not request.body.complete:
            self._keep_alive = False
        if response is not None:
            self._write_response(request, response)
        elif self._output is not None:
            if not self._lost and not self._transport.is_closing():
                self._output.finish()
        else:
            self._keep_alive = False
        self._output = None
        if self._lost:
            return
        if not self._keep_alive or self._eof:
            self._close_gently()
            return
        self._request = None
        if self._buffer:
            # Not from within data_received's own loop: a thousand pipelined requests would nest a thousand deep.
            asyncio.get_running_loop().call_soon(self._process)
        else:
            self.update_reading()

    def _abandon(self) -> None:
        """End the connection in the middle of an answer."""
        if self._stream is not None:
            self._close_gently()
        elif not self._lost:
            self._close()

    def _close(self) -> None:
        """Close, unless that was done."""
        if not self._lost and not self._transport.is_closing():
            self._transport.close()

    def _close_gently(self) -> None:
        """Send EOF, then swallow what still comes until the client closes too, for a bounded time (RFC 9112 section 9.6)."""
        if self._lost or self._transport.is_closing():
            return
        saw_eof = self._eof
        self._lingering = True
        if saw_eof:
            self._close()
            return
        self._transport.write_eof()
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()
        asyncio.get_running_loop().call_later(LINGER_SECONDS, self._close)

    # the server's stop

    @property
    def busy(self) -> bool:
        """Whether an answer is still to be sent."""
        return self._request is not None and not self._lingering

    def shut_down(self) -> None:
        """Close if idle; end what streams, let the rest finish its answer."""
        self._keep_alive = False
        if not self.busy:
            self._close()
        elif self._task is not None and (self._cancel_when_gone or self._stream is not None):
            self._task.cancel()

    def abort(self) -> None:
        """End at once."""
        if self._task is not None:
            self._task.cancel()
        self._transport.abort()
