"""HTTP towards registries: one session for a pull or push, errors in the words of Go's client, which users and their tools know.

aiohttp is imported at the first use, and nowhere else (docs/adr/0011): a daemon that never pulls does not pay for it.
"""

import asyncio
import importlib
import os
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from sampan.errors import SystemFailure
from sampan.proxies import Proxies
from sampan.registryhosts import certificates_of, tls_context

if TYPE_CHECKING:
    import aiohttp

CONNECT_SECONDS = 10.0
MIRROR_CONNECT_SECONDS = 3.0
"""There is another place to ask."""
READ_SECONDS = 60.0
"""Silence of a registry in the middle of an answer, and how long it may take none of what we send."""
MIRROR_READ_SECONDS = 15.0
"""The same of a mirror: a blob that its own upstream keeps from it comes from elsewhere."""
COMMIT_SECONDS = 300.0
"""How long a registry may think about what it was sent: some copy a whole blob to another place then."""
CHUNK = 256 * 1024
SMALL_CHUNK = 100
"""Bytes; of HTTP's chunks below that there may be SMALL_CHUNKS_MAX."""
SMALL_CHUNKS_MAX = 2000
Body = bytes | Callable[[], AsyncIterator[bytes]]
"""What is sent: bytes, or a function that gives it anew for each try."""


class Unreachable(SystemFailure):
    """No answer, or one that broke off: another endpoint, or another try, may help."""


class Answer:
    """The head of an answer; the body is still to be read."""

    def __init__(self, response: "aiohttp.ClientResponse", method: str) -> None:
        self._response = response
        self.method = method
        self.status = response.status
        self.reason = response.reason or ""
        self.headers: Mapping[str, str] = response.headers
        self.url = str(response.url)

    async def read(self, limit: int) -> bytes:
        """The body. Raises Unreachable; SystemFailure when it is longer than limit bytes."""
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) > limit:
                raise SystemFailure(f"{self.method} {self.url}: the answer is longer than {limit} bytes")
        return bytes(body)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises Unreachable when it breaks off."""
        import aiohttp

        try:
            chunked = "chunked" in self.headers.get("Transfer-Encoding", "").lower()
            async for piece in self._chunks() if chunked else self._response.content.iter_chunked(CHUNK):
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f'{self.method.title()} "{self.url}": {_reason(error, self.url)}') from error

    async def _chunks(self) -> AsyncIterator[bytes]:
        """A body in HTTP's chunks, put together. Raises Unreachable for ones so small that nobody else would get a turn."""
        import aiohttp

        held, chunks, size = bytearray(), 0, 0
        try:
            async for piece, ended in self._response.content.iter_chunks():
                chunks, size = chunks + ended, size + len(piece)
                if chunks > SMALL_CHUNKS_MAX + size // SMALL_CHUNK:
                    raise Unreachable(f'{self.method.title()} "{self.url}": the answer comes in chunks of {size // chunks} bytes')
                held += piece
                if len(held) >= CHUNK:
                    yield bytes(held)
                    held.clear()
        except (aiohttp.ClientError, TimeoutError, OSError):
            if held:
                yield bytes(held)
            raise
        if held:
            yield bytes(held)


class Transport:
    """A pool of connections. Use as a context manager."""

    def __init__(self, user_agent: str, proxies: Proxies) -> None:
        self._user_agent = user_agent
        self._proxies = proxies
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}

    async def __aenter__(self) -> Self:
        """With an empty pool. Cookies are not kept, as docker keeps none."""
        await asyncio.to_thread(importlib.import_module, "aiohttp")  # the first time it takes a quarter of a second
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            # bytes as they are named by their digests: nothing here undoes a compression of the way
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: Body | None = None,
        insecure: bool = False,
        patience: float = READ_SECONDS,
        connect: float = CONNECT_SECONDS,
        redirects: bool = True,
    ) -> AsyncIterator[Answer]:
        """Send a request. Redirects are followed; credentials do not go to another host. insecure: any certificate will do.

        redirects: False where data is a secret, which would go along.

        patience: seconds until the answer's head, counted anew with each piece of data that is taken. connect: seconds until there is
        a connection.
        Raises Unreachable in Go's words: `Get "https://host/v2/": dial tcp 127.0.0.1:1: connect: connection refused`; SystemFailure for
        a URL or a header that cannot be (they may come from a registry).
        """
        import aiohttp

        try:
            context = self._context(urlsplit(url).netloc, insecure=insecure) if url.startswith("https:") else not insecure
            async with asyncio.timeout(None) as limit:
                loop = asyncio.get_running_loop()

                def go_on() -> None:
                    limit.reschedule(loop.time() + patience)

                go_on()
                response = await self._session.request(
                    method, url, headers=headers, data=_watched(data, go_on), allow_redirects=redirects,
                    ssl=context, proxy=self._proxies.proxy_for(url),
                    timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=patience),
                )  # fmt: skip
        except aiohttp.InvalidURL as error:
            raise SystemFailure(f'{method.title()} "{url}": invalid URL') from error
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as error:
            raise Unreachable(f'{method.title()} "{url}": {_reason(error, url)}') from error
        except ValueError as error:
            raise SystemFailure(f'{method.title()} "{url}": {error}') from error
        async with response:
            yield Answer(response, method)

    def _context(self, host: str, *, insecure: bool) -> ssl.SSLContext:
        key = (host if certificates_of(host) else "", insecure)
        if key not in self._contexts:
            self._contexts[key] = tls_context(host, insecure=insecure)
        return self._contexts[key]


def _watched(data: Body | None, go_on: Callable[[], None]) -> bytes | AsyncIterator[bytes] | None:
    """What is to be sent, and a call for each piece that has been taken."""
    if data is None or isinstance(data, bytes):
        return data
    source = data()

    async def pieces() -> AsyncIterator[bytes]:
        async for piece in source:
            go_on()
            yield piece
        go_on()

    return pieces()


def _reason(error: BaseException, url: str) -> str:
    """The cause, as Go's net/http and net packages put it."""
    import aiohttp

    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"tls: failed to verify certificate: {error.certificate_error}"
    if isinstance(error, (aiohttp.ClientSSLError, ssl.SSLError)):
        text = str(error)
        if "WRONG_VERSION_NUMBER" in text or "record layer failure" in text.lower():
            return "http: server gave HTTP response to HTTPS client"
        return f"remote error: tls: {text}"
    if isinstance(error, aiohttp.ClientProxyConnectionError):
        words = os.strerror(error.os_error.errno).lower() if error.os_error.errno else str(error.os_error)
        return f"proxyconnect tcp: dial tcp {error.host}:{error.port}: connect: {words}"
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return error.message or f"the proxy answers {error.status}"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {address.hostname}: no such host"
    if isinstance(error, aiohttp.ClientConnectorError):
        number = error.os_error.errno
        words = os.strerror(number).lower() if number else str(error.os_error)
        return f"dial tcp {address.hostname}:{port}: connect: {words}"
    if isinstance(error, (TimeoutError, aiohttp.ServerTimeoutError)):
        return "net/http: request canceled (Client.Timeout exceeded while awaiting headers)"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "EOF"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "unexpected EOF"
    return str(error) or type(error).__name__
