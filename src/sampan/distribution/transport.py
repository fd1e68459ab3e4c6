"""HTTP towards registries: one session for a pull or push, errors in the words of Go's client, which users and their tools know.

aiohttp is imported at the first use, and nowhere else (docs/adr/0011): a daemon that never pulls does not pay for it.
"""

import asyncio
import importlib
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from sampan.errors import SystemFailure

if TYPE_CHECKING:
    import aiohttp

CONNECT_SECONDS = 10.0
READ_SECONDS = 60.0
"""Silence of a registry in the middle of an answer."""
CHUNK = 256 * 1024
CERTS_DIRS = (Path("/etc/sampan/certs.d"), Path("/etc/docker/certs.d"))
"""HOST[:PORT]/{*.crt, NAME.cert + NAME.key}, as docker has them (docs/reference/commandline/dockerd, certificates)."""


class Unreachable(SystemFailure):
    """No answer, or one that broke off: another endpoint, or another try, may help."""


class Answer:
    """The head of an answer; the body is still to be read."""

    def __init__(self, response: "aiohttp.ClientResponse", method: str) -> None:
        self._response = response
        self._method = method
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.url = str(response.url)

    async def read(self, limit: int) -> bytes:
        """The body. Raises Unreachable; SystemFailure when it is longer than limit bytes."""
        body = bytearray()
        async for piece in self.pieces():
            body += piece
            if len(body) > limit:
                raise SystemFailure(f"{self._method} {self.url}: the answer is longer than {limit} bytes")
        return bytes(body)

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives. Raises Unreachable when it breaks off."""
        import aiohttp

        try:
            async for piece in self._response.content.iter_chunked(CHUNK):
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(f'{self._method.title()} "{self.url}": {_reason(error, self.url)}') from error


class Transport:
    """A pool of connections. Use as a context manager."""

    def __init__(self, session: "aiohttp.ClientSession") -> None:
        self._session = session
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}

    @classmethod
    async def make(cls, user_agent: str) -> Self:
        """With an empty pool; proxies are taken from the environment, as docker does. Cookies are not kept, as docker keeps none."""
        await asyncio.to_thread(importlib.import_module, "aiohttp")  # the first time it takes a quarter of a second
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=READ_SECONDS)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=True,
            headers={"User-Agent": user_agent},
        )
        return cls(session)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        await self._session.close()

    @asynccontextmanager
    async def request(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, data: bytes | None = None, insecure: bool = False
    ) -> AsyncIterator[Answer]:
        """Send a request. Redirects are followed; credentials do not go to another host. insecure: any certificate will do.

        Raises Unreachable in Go's words: `Get "https://host/v2/": dial tcp 127.0.0.1:1: connect: connection refused`.
        """
        import aiohttp

        context = self._context(urlsplit(url).netloc, insecure=insecure) if url.startswith("https:") else False
        try:
            response = await self._session.request(method, url, headers=headers, data=data, ssl=context)
        except (aiohttp.ClientError, TimeoutError, OSError, ssl.SSLError) as error:
            raise Unreachable(f'{method.title()} "{url}": {_reason(error, url)}') from error
        async with response:
            yield Answer(response, method)

    def _context(self, host: str, *, insecure: bool) -> ssl.SSLContext:
        key = (host, insecure)
        if key not in self._contexts:
            self._contexts[key] = tls_context(host, insecure=insecure)
        return self._contexts[key]


def tls_context(host: str, *, insecure: bool) -> ssl.SSLContext:
    """What is trusted of a registry, and the client certificates for it. Raises SystemFailure for files that are no certificates."""
    context = ssl.create_default_context()
    if insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    for directory in (parent / host for parent in CERTS_DIRS):
        if not directory.is_dir():
            continue
        for file in sorted(directory.iterdir()):
            try:
                if file.suffix == ".crt":
                    context.load_verify_locations(file)
                elif file.suffix == ".cert":
                    context.load_cert_chain(file, file.with_suffix(".key"))
            except (ssl.SSLError, OSError) as error:
                raise SystemFailure(f"{file}: {getattr(error, 'reason', None) or error}") from error
    return context


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
