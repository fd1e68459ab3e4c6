"""The registry's HTTP by aiohttp's server, the only module that knows it (docs/adr/0016): listeners, bodies, sendfile(2)."""

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from sampan.registry.errors import RegistryError
from sampan.registry.http import Answer, ByteRange, Request

READ_AHEAD = 256 * 1024
"""Of a body, bytes, before the client is made to wait."""
FIRST_PIECE = 64 * 1024
"""Goes out with the head; what is longer follows by sendfile(2)."""
KEEP_ALIVE_SECONDS = 75.0
LINE_MAX = 32 * 1024
"""Of a request's line or header: tokens of others can be long."""
FIELDS_MAX = 1000
"""Of a query."""
BACKLOG = 1024
SILENCE_SECONDS = 120.0
"""Of a client in the middle of a body, its own or ours: longer, and it is taken for gone."""
CUT_SECONDS = 0.5

CONNECTIONS: dict[str, Any] = {
    "access_log": None,
    "read_bufsize": READ_AHEAD,
    "auto_decompress": False,
    "keepalive_timeout": KEEP_ALIVE_SECONDS,
    "max_line_size": LINE_MAX,
    "max_field_size": LINE_MAX,
}

log = logging.getLogger("sampan.registry")
AnswerTo = Callable[[Request], Awaitable[Answer]]
Done = Callable[[Request, int, int, float], None]
"""Told of each request: status (499: the client was gone before the end), bytes sent, seconds."""
CLIENT_GONE = 499
"""nginx's number for it."""


class _Body:
    """See http.Body."""

    def __init__(self, request: web.BaseRequest) -> None:
        self._request = request
        self.received = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        """See http.Body."""
        if self._request.headers.get("Expect", "").lower() == "100-continue" and self._request.version >= (1, 1) and not self.received:
            await self._request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # only now: who is refused need not send it
            self._request.writer.output_size = 0
        try:
            while piece := await self._read():
                self.received += len(piece)
                yield piece
        except (web.RequestPayloadError, ConnectionError, TimeoutError) as error:
            raise ConnectionResetError("the client is gone") from error

    async def _read(self) -> bytes:
        async with asyncio.timeout(SILENCE_SECONDS):
            return await self._request.content.readany()

    async def read(self, limit: int) -> bytes:
        """See http.Body."""
        whole = bytearray()
        async for piece in self.pieces():
            whole += piece
            if limit and len(whole) > limit:
                raise RegistryError("TOOLARGE", f"a manifest may have {limit} bytes")
        return bytes(whole)


def unmapped(address: str) -> str:
    """An address of IPv4 as itself: a socket of both families sees it within IPv6 (RFC 4291 §2.5.5.2)."""
    with contextlib.suppress(ValueError):
        return str(getattr(ipaddress.ip_address(address), "ipv4_mapped", None) or address)
    return address


def _last(request: web.BaseRequest, header: str) -> str:
    """What the proxy itself has seen, and put behind what came, or in a line of its own below it."""
    return request.headers.getall(header, [""])[-1].rpartition(",")[2].strip()


def _request(request: web.BaseRequest, proxies: frozenset[str]) -> Request:
    """All but its query, which may be wrong."""
    remote, secure = unmapped(request.remote or ""), request.secure
    if remote in proxies:
        remote = _last(request, "X-Forwarded-For")[:64] or remote
        secure = _last(request, "X-Forwarded-Proto").lower() == "https"
    return Request(
        request.method,
        request.path,
        {},
        request.headers,
        _Body(request),
        remote,
        request.host,
        secure,
    )


def _length(answer: Answer) -> int:
    if isinstance(answer.body, bytes):
        return len(answer.body)
    return answer.body.length if isinstance(answer.body, ByteRange) else int(answer.headers.get("Content-Length", 0))


async def _send(request: web.BaseRequest, answer: Answer) -> web.StreamResponse:
    """Send an answer, and close what it is made of."""
    body = answer.body
    if isinstance(body, bytes):
        if request.method != "HEAD" and answer.status not in (204, 304):
            return web.Response(status=answer.status, headers=answer.headers, body=body)
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        if body and request.method == "HEAD":
            response.content_length = len(body)
        elif answer.status not in (204, 304) and "Content-Length" not in answer.headers:
            response.content_length = 0
        await response.prepare(request)
        await response.write_eof()
        return response
    try:
        response = web.StreamResponse(status=answer.status, headers=answer.headers)
        if isinstance(body, ByteRange):
            response.content_length = body.length
        await response.prepare(request)
        if request.method != "HEAD":
            if isinstance(body, ByteRange):
                await _send_range(request, response, body)
            else:
                await _send_pieces(response, body)
        await response.write_eof()
        return response
    finally:
        if isinstance(body, ByteRange):
            body.content.close()
        elif hasattr(body, "aclose"):
            await body.aclose()


async def _send_pieces(response: web.StreamResponse, pieces: AsyncIterator[bytes]) -> None:
    try:
        async for piece in pieces:
            await response.write(piece)
    finally:
        if hasattr(pieces, "aclose"):  # what it holds is free now, not when it is collected
            await pieces.aclose()


async def _send_range(request: web.BaseRequest, response: web.StreamResponse, wanted: ByteRange) -> None:
    fd = wanted.content.file()
    if fd is None:
        await _send_pieces(response, wanted.content.pieces(wanted.start, wanted.length))
        return
    first = min(wanted.length, FIRST_PIECE)
    await response.write(os.pread(fd, first, wanted.start))  # in the page cache, or worth waiting for: what follows needs it, too
    if wanted.length > first:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client is gone")
        if transport.get_extra_info("sslcontext") is not None:  # asyncio's stand-in for sendfile(2) reads 16 KB at a time
            await _send_pieces(response, wanted.content.pieces(wanted.start + first, wanted.length - first))
            return
        with open(fd, "rb", closefd=False) as file:
            await asyncio.get_running_loop().sendfile(transport, file, wanted.start + first, wanted.length - first)


class _Connection(web.RequestHandler):
    """One client's."""

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """aiohttp's own would log, and send back, the line that cannot be read: it may be the one with the password."""
        if isinstance(exc, HttpProcessingError):
            log.warning("bad request from %s: %s", request.remote, type(exc).__name__)
            message = "400 bad request\n"
        elif exc is not None:
            log.error("a request from %s failed", request.remote, exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        response = web.Response(status=status, text=message or f"{status}\n")
        response.force_close()
        return response


class _Connections(web.Server):
    """aiohttp's server of such connections."""

    def __call__(self) -> web.RequestHandler:
        """Make one, as asyncio's servers ask for it."""
        return _Connection(self, loop=asyncio.get_running_loop(), **CONNECTIONS)


class Server:
    """The listeners of one registry.

    grace: seconds that what is under way has when it stops. proxies: addresses whose word is taken for whom they speak for.
    """

    def __init__(self, answer_to: AnswerTo, done: Done = lambda *_: None, *, grace: float = 30.0, proxies: Iterable[str] = ()) -> None:
        self._answer_to = answer_to
        self._proxies = frozenset(map(unmapped, proxies))
        self._done = done
        self._grace = grace
        self._runner = web.ServerRunner(_Connections(self._handle), shutdown_timeout=CUT_SECONDS)
        self._ready = False
        self._sites: list[web.SockSite] = []
        self._under_way = 0
        self._stopping = False
        self._idle = asyncio.Event()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        began = time.monotonic()
        asked = _request(request, self._proxies)
        status, sent = CLIENT_GONE, 0
        self._under_way += 1
        try:
            answer = await self._answer(asked, request.query_string)
            if self._stopping:
                answer.headers["Connection"] = "close"
            response = await _send(request, answer)
            status, sent = answer.status, _length(answer) if request.method != "HEAD" else 0
            return response
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()
            self._done(asked, status, sent, time.monotonic() - began)

    async def _answer(self, asked: Request, query: str) -> Answer:
        try:
            asked.query = parse_qs(query, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="replace")
        except ValueError:
            return Answer.failure(RegistryError("REQUEST_INVALID", f"a query may have {FIELDS_MAX} fields"))
        return await self._answer_to(asked)

    async def listen(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        """Accept on a bound socket, which is the server's then."""
        if not self._ready:
            await self._runner.setup()
            self._ready = True
        site = web.SockSite(self._runner, listener, ssl_context=tls, backlog=BACKLOG)
        await site.start()
        self._sites.append(site)

    async def stop(self) -> None:
        """Accept nothing more, let what is under way end, then cut."""
        self._stopping = True
        for site in self._sites:
            await site.stop()
        # Before the runner's own end, which drops what of a body is still to come.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._grace):
                while self._under_way:
                    self._idle.clear()
                    await self._idle.wait()
        await self._runner.cleanup()
