"""HTTP towards registries: one session for a pull or push, errors in the words of Go's client, which users and their tools know.

aiohttp is imported at the first use, and nowhere else (docs/adr/0011): a daemon that never pulls does not pay for it.
"""

import asyncio
import errno
import importlib
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self, TypeVar, cast
from urllib.parse import urljoin, urlsplit

from sampan.errors import SystemFailure
from sampan.lookups import Resolver
from sampan.proxies import Proxies
from sampan.registryhosts import certificate_problem, certificates_of, tls_context

if TYPE_CHECKING:
    import aiohttp
    from aiohttp.abc import AbstractResolver

CONNECT_SECONDS = 10.0
MIRROR_CONNECT_SECONDS = 3.0
"""There is another place to ask."""
READ_SECONDS = 60.0
"""Silence of a registry in the middle of an answer, and how long it may take none of what we send."""
MIRROR_READ_SECONDS = 15.0
"""The same of a mirror: a blob that its own upstream keeps from it comes from elsewhere."""
COMMIT_SECONDS = 300.0
"""How long a registry may think about what it was sent: some copy a whole blob to another place then."""
REDIRECTS = (301, 302, 303, 307, 308)
REDIRECTS_MAX = 10
CHUNK = 256 * 1024
RATE_MIN = 1024
"""Bytes a second of a document, beyond what silence it may begin with."""
SMALL_CHUNK = 100
"""Bytes; of HTTP's chunks below that there may be SMALL_CHUNKS_MAX."""
SMALL_CHUNKS_MAX = 2000
Body = bytes | Callable[[], AsyncIterator[bytes]]
"""What is sent: bytes, or a function that gives it anew for each try."""


T = TypeVar("T")


class Unreachable(SystemFailure):
    """No answer, or one that broke off: another endpoint, or another try, may help."""


def is_at(url: str, home: str) -> bool:
    """Whether a URL is of the same scheme, host and port as home, or of the same host by TLS where home is in the clear.

    Raises SystemFailure for what is no URL.
    """
    there, here = _origin(url), _origin(home)
    return there == here or (there[1] == here[1] and (here[::2], there[::2]) == (("http", 80), ("https", 443)))


def _origin(url: str) -> tuple[str, str | None, int]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise SystemFailure(f"the registry leads to {url!r}: {error}") from error


class Answer:
    """The head of an answer; the body is still to be read."""

    def __init__(self, response: "aiohttp.ClientResponse", method: str, patience: float) -> None:
        """patience: seconds without a piece of the body."""
        self._response = response
        self._patience = patience
        self.method = method
        self.status = response.status
        self.reason = response.reason or ""
        self.headers: Mapping[str, str] = response.headers
        self.url = str(response.url)

    @property
    def length(self) -> int | None:
        """Of the body, as the server says; None when it does not, or what it says is no number."""
        text = self.headers.get("Content-Length", "")
        return int(text[:18]) if text.isdecimal() else None

    async def read(self, limit: int) -> bytes:
        """The body. Raises Unreachable, also when it comes all too slowly; SystemFailure when it is longer than limit bytes."""
        body = bytearray()
        loop = asyncio.get_running_loop()
        begun = loop.time()
        until = begun + self._patience
        try:
            async with asyncio.timeout_at(until) as deadline, aclosing(self.pieces()) as pieces:
                async for piece in pieces:
                    body += piece
                    if len(body) > limit:
                        raise SystemFailure(f"{self.method} {self.url}: the answer is longer than {limit} bytes")
                    deadline.reschedule(until + len(body) / RATE_MIN)
        except TimeoutError as error:
            raise Unreachable(f'{self.method.title()} "{self.url}": {len(body)} bytes in {loop.time() - begun:.0f} seconds') from error
        return bytes(body)

    async def pieces(self) -> AsyncGenerator[bytes]:
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
            async for piece, ended in _timely(self._response.content.iter_chunks(), self._patience):
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


async def _timely(source: AsyncIterable[T], seconds: float) -> AsyncIterator[T]:
    """What comes from a source. Raises TimeoutError after so long without: what HTTP's chunks carry beside the body does not count."""
    iterator = aiter(source)
    while True:
        async with asyncio.timeout(seconds):
            try:
                item = await anext(iterator)
            except StopAsyncIteration:
                return
        yield item


class Transport:
    """A pool of connections. Use as a context manager."""

    def __init__(self, user_agent: str, proxies: Proxies) -> None:
        self._user_agent = user_agent
        self._proxies = proxies
        self._contexts: dict[tuple[str, bool, bool], ssl.SSLContext] = {}

    async def __aenter__(self) -> Self:
        """With an empty pool. Cookies are not kept, as docker keeps none."""
        await asyncio.to_thread(importlib.import_module, "aiohttp")  # the first time it takes a quarter of a second
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, resolver=cast("AbstractResolver", Resolver())),
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
        home: str = "",
        insecure: bool = False,
        patience: float = READ_SECONDS,
        connect: float = CONNECT_SECONDS,
        redirects: bool = True,
    ) -> AsyncIterator[Answer]:
        """Send a request. Redirects are followed; credentials do not go to another host. insecure: any certificate will do.

        home: URL of the registry that we speak to. Only there a client certificate is shown, wherever a redirect or a Location leads.
        redirects: False where data is a secret, which would go along.

        patience: seconds until the answer's head, counted anew with each piece of data that is taken. connect: seconds until there is
        a connection.
        Raises Unreachable in Go's words: `Get "https://host/v2/": dial tcp 127.0.0.1:1: connect: connection refused`; SystemFailure for
        a URL or a header that cannot be (they may come from a registry).
        """
        import aiohttp

        hop = Hop(method, url, dict(headers or {}), data)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect, sock_read=patience)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(patience) as limit:

                def go_on() -> None:
                    limit.reschedule(loop.time() + patience)

                for _ in range(REDIRECTS_MAX):
                    response = await self._send(hop, go_on, timeout, home, insecure=insecure)
                    location = response.headers.get("Location", "")
                    if not redirects or response.status not in REDIRECTS or not location:
                        break
                    response.release()
                    hop = hop.after(response.status, str(response.url), location)
                else:
                    raise Unreachable(f"{hop.where}: stopped after {REDIRECTS_MAX} redirects")
        except TimeoutError as error:  # of all hops; those of one are its own
            raise Unreachable(f"{hop.where}: {_reason(error, hop.url)}") from error
        async with response:
            yield Answer(response, hop.method, patience)

    async def _send(
        self, hop: "Hop", go_on: Callable[[], None], timeout: "aiohttp.ClientTimeout", home: str, *, insecure: bool
    ) -> "aiohttp.ClientResponse":
        """The answer of one host: its certificates, its proxy."""
        import aiohttp

        where = hop.where
        try:
            secure = hop.url.startswith("https:")
            return await self._session.request(
                hop.method, hop.url, headers=hop.headers, data=_watched(hop.data, go_on), allow_redirects=False,
                ssl=self._context(hop.url, home, insecure=insecure) if secure else True,
                proxy=self._proxies.proxy_for(hop.url), timeout=timeout,
            )  # fmt: skip
        except aiohttp.InvalidURL as error:
            raise SystemFailure(f"{where}: invalid URL") from error
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as error:
            raise Unreachable(f"{where}: {_reason(error, hop.url)}") from error
        except ValueError as error:
            raise SystemFailure(f"{where}: {error}") from error

    def _context(self, url: str, home: str, *, insecure: bool) -> ssl.SSLContext:
        host = urlsplit(url).netloc.rpartition("@")[2]
        ours = bool(home) and is_at(url, home)
        key = (host, insecure, ours) if certificates_of(host) else ("", insecure, False)
        if key not in self._contexts:
            self._contexts[key] = tls_context(host, insecure=insecure, client=ours)
        return self._contexts[key]


class Hop(NamedTuple):
    """What is sent to one host on the way of a request."""

    method: str
    url: str
    headers: dict[str, str]
    data: Body | None

    @property
    def where(self) -> str:
        """For an error; without the password."""
        parts = urlsplit(self.url)
        user, at, host = parts.netloc.rpartition("@")
        shown = f"{user.partition(':')[0]}:***@{host}" if ":" in user else f"{user}{at}{host}"
        return f'{self.method.title()} "{parts._replace(netloc=shown).geturl() if at else self.url}"'

    def after(self, status: int, url: str, location: str) -> "Hop":
        """What is sent to where this one is redirected to (RFC 9110 §15.4). Raises SystemFailure for what is no URL."""
        try:
            target = urljoin(url, location)
        except ValueError:
            target = ""
        if not target.startswith(("http://", "https://")):
            raise SystemFailure(f'{self.method.title()} "{url}": the redirect to {location!r} leads nowhere')
        headers = {name: value for name, value in self.headers.items() if name != "Authorization" or is_at(target, self.url)}
        if (status == 303 and self.method != "HEAD") or (status in (301, 302) and self.method == "POST"):
            return Hop("GET", target, {name: value for name, value in headers.items() if not name.startswith("Content-")}, None)
        return Hop(self.method, target, headers, self.data)


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
        return f"tls: failed to verify certificate: {certificate_problem(error.certificate_error, address.netloc.rpartition('@')[2])}"
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
        why = {errno.ETIMEDOUT: "i/o timeout", errno.EAGAIN: "too many names are being looked up"}
        return f"dial tcp: lookup {address.hostname}: {why.get(error.os_error.errno or 0, 'no such host')}"
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
