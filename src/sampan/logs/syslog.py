"""The log driver `syslog`: over udp, tcp, tls or a unix socket, in docker's formats (moby daemon/logger/syslog)."""

import asyncio
import errno
import os
import socket
import ssl
import stat
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from sampan.errors import InvalidArgument
from sampan.logs.outgoing import Line
from sampan.lookups import Lookups, Resolver

OPTIONS: Final = frozenset((
    "env", "env-regex", "labels", "labels-regex", "tag", "syslog-address", "syslog-facility", "syslog-format",
    "syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key", "syslog-tls-skip-verify",
))  # fmt: skip
FORMATS: Final = ("", "rfc3164", "rfc5424", "rfc5424micro")
FACILITIES: Final = {name: number for number, name in enumerate((
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
))} | {f"local{number}": 16 + number for number in range(8)}  # fmt: skip
ERROR, INFO = 3, 6
LOCAL: Final = ("/dev/log", "/var/run/syslog", "/var/run/log")
TLS: Final = "tcp+tls"
PORT: Final = 514
CONNECT_SECONDS = 10.0
_HOSTS: Final = Resolver(Lookups())
"""Of servers of logs, beside those of registries: silent ones must not keep the others out."""


class Address(NamedTuple):
    """scheme "" is the host's own server."""

    scheme: str
    place: str
    port: int = 0


def parse_address(text: str) -> Address:
    """Raises InvalidArgument."""
    if not text:
        return Address("", "")
    try:
        parts = urlsplit(text)
        port = parts.port or PORT
    except ValueError as error:
        raise InvalidArgument(f'parse "{text}": {error}') from None
    if parts.scheme in ("unix", "unixgram"):
        return Address(parts.scheme, parts.path)
    if parts.scheme not in ("udp", "tcp", TLS):
        raise InvalidArgument(f"unsupported scheme: '{parts.scheme}'")
    return Address(parts.scheme, parts.hostname or "localhost", port)


def parse_facility(text: str) -> int:
    """Raises InvalidArgument."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else FACILITIES.get(text or "daemon", -1)
    if not 0 <= number <= 23:
        raise InvalidArgument("invalid syslog facility")
    return number


def validate(config: Mapping[str, str]) -> None:
    """Raises InvalidArgument."""
    address = parse_address(config.get("syslog-address", ""))
    if address.scheme in ("unix", "unixgram"):
        try:
            os.stat(address.place)
        except OSError as error:
            raise InvalidArgument(f"stat {address.place}: {(error.strerror or '').lower()}") from None
    parse_facility(config.get("syslog-facility", ""))
    if config.get("syslog-format", "") not in FORMATS:
        raise InvalidArgument("Invalid syslog format")


class Formatter:
    """Makes messages of lines."""

    def __init__(self, config: Mapping[str, str], tag: str) -> None:
        self._tag, self._form = tag, config.get("syslog-format", "")
        self._facility = parse_facility(config.get("syslog-facility", "")) << 3
        self._counted = self._form.startswith("rfc5424") and parse_address(config.get("syslog-address", "")).scheme == TLS
        self._host = os.uname().nodename

    def message(self, line: Line) -> bytes:
        """One, as it is sent; with its length before it where RFC 5425 wants that."""
        text = f"<{self._facility | (ERROR if line.is_error else INFO)}>{self._head(line.time_ns)}".encode("utf-8", "replace")
        message = b"%b%b\n" % (text, line.data)
        return b"%d %b" % (len(message), message) if self._counted else message

    def _head(self, time_ns: int) -> str:
        then, tag, pid = time.localtime(time_ns // 10**9), self._tag, os.getpid()
        if self._form.startswith("rfc5424"):
            zone = time.strftime("%z", then)
            micro = f".{time_ns // 1000 % 10**6:06d}" if self._form == "rfc5424micro" else ""
            offset = f"{zone[:3]}:{zone[3:]}" if then.tm_gmtoff else "Z"
            return f"1 {time.strftime('%Y-%m-%dT%H:%M:%S', then)}{micro}{offset} {self._host} {tag} {pid} {tag} - "
        stamp = f"{time.strftime('%b', then)} {then.tm_mday:2d} {time.strftime('%H:%M:%S', then)}"
        return f"{stamp} {self._host} {tag}[{pid}]: " if self._form else f"{stamp} {tag}[{pid}]: "


class SyslogSink:
    """See outgoing.Sink."""

    def __init__(self, config: Mapping[str, str], tag: str) -> None:
        self._config = config
        self._address = parse_address(config.get("syslog-address", ""))
        self._formatter = Formatter(config, tag)
        self._datagrams: socket.socket | None = None
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, lines: Sequence[Line]) -> None:
        """See outgoing.Sink. Empty lines are none, as for docker."""
        if self._datagrams is None and self._writer is None:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connect()
        messages = [self._formatter.message(line) for line in lines if line.data]
        if self._writer is not None:
            try:
                await self._write(self._writer, messages)
            except BaseException:
                self._writer.transport.abort()  # close() would wait until the server takes what there is
                raise
        elif self._datagrams is not None:
            for message in messages:
                await _send_datagram(self._datagrams, message)

    async def _write(self, writer: asyncio.StreamWriter, messages: Sequence[bytes]) -> None:
        if writer.is_closing() or (self._reader is not None and self._reader.at_eof()):
            raise ConnectionResetError("the server is gone")
        writer.write(b"".join(messages))
        await writer.drain()

    def close(self) -> None:
        """See outgoing.Sink."""
        if self._datagrams is not None:
            self._datagrams.close()
        if self._writer is not None:
            self._writer.close()
        self._datagrams = self._reader = self._writer = None

    async def _connect(self) -> None:
        scheme, place, port = self._address
        if scheme == "udp":
            found = (await _HOSTS.resolve(place, port, socket.AF_UNSPEC))[0]
            self._datagrams = await _datagrams(found["family"], (found["host"], port))
        elif scheme in ("tcp", TLS):
            await self._connect_tcp(place, port, self._tls() if scheme == TLS else None)
        elif scheme == "unix":
            await self._connected(asyncio.open_unix_connection(place))
        elif scheme == "unixgram":
            self._datagrams = await _datagrams(socket.AF_UNIX, place)
        else:
            await self._connect_locally()

    async def _connect_tcp(self, place: str, port: int, tls: ssl.SSLContext | None) -> None:
        problem = OSError("no address")
        for found in await _HOSTS.resolve(place, port, socket.AF_UNSPEC):
            try:
                await self._connected(asyncio.open_connection(found["host"], port, ssl=tls, server_hostname=place if tls else None))
            except OSError as error:
                problem = error
            else:
                return
        raise problem

    async def _connected(self, opening: Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]) -> None:
        self._reader, self._writer = await opening
        self._writer.transport.set_write_buffer_limits(high=0)  # what drain() has waited for is the kernel's: it outlives us

    async def _connect_locally(self) -> None:
        for path in LOCAL:
            with suppress(OSError):
                self._datagrams = await _datagrams(socket.AF_UNIX, path)
                return
            with suppress(OSError):
                await self._connected(asyncio.open_unix_connection(path))
                return
        raise ConnectionRefusedError("Unix syslog delivery error")

    def _tls(self) -> ssl.SSLContext:
        """Raises OSError: the files cannot be used."""
        config = self._config
        for name in ("syslog-tls-ca-cert", "syslog-tls-cert", "syslog-tls-key"):
            if (path := config.get(name)) and not stat.S_ISREG(os.stat(path).st_mode):  # whoever opens a pipe may wait for ever
                raise OSError(errno.EINVAL, "not a regular file", path)
        context = ssl.create_default_context(cafile=config.get("syslog-tls-ca-cert") or None)
        if "syslog-tls-skip-verify" in config:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if config.get("syslog-tls-cert"):
            context.load_cert_chain(config["syslog-tls-cert"], config.get("syslog-tls-key"))
        return context


async def _send_datagram(sender: socket.socket, message: bytes) -> None:
    """Raises OSError; what is larger than any datagram is lost, as nobody will ever take it."""
    try:
        await asyncio.get_running_loop().sock_sendall(sender, message)
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise


async def _datagrams(family: int, where: str | tuple[object, ...]) -> socket.socket:
    made = socket.socket(family, socket.SOCK_DGRAM)
    try:
        made.setblocking(False)
        await asyncio.get_running_loop().sock_connect(made, where)
    except BaseException:
        made.close()
        raise
    return made
