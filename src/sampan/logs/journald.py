"""The log driver `journald`: systemd.io/JOURNAL_NATIVE_PROTOCOL, with docker's fields (moby daemon/logger/journald)."""

import asyncio
import errno
import fcntl
import os
import socket
from collections.abc import Mapping, Sequence
from typing import Final

from sampan.clock import rfc3339nano
from sampan.errors import InvalidArgument
from sampan.ids import new_id
from sampan.logs.outgoing import Line
from sampan.readiness import writable

OPTIONS: Final = frozenset(("env", "env-regex", "labels", "labels-regex", "tag"))
SOCKET: Final = "/run/systemd/journal/socket"
ERROR, INFO = 3, 6


def validate(path: str = SOCKET) -> None:
    """Raises InvalidArgument where there is no journal."""
    if not os.path.exists(path):
        raise InvalidArgument(
            "failed to create task for container: failed to initialize logging driver: journald is not enabled on this host"
        )


def field_name(text: str) -> str:
    """What of a label's or variable's name the journal takes; "" is none."""
    upper = "".join(char.upper() if char.isascii() and char.isalnum() else "_" for char in text)
    return upper.lstrip("_")


def encoded(fields: Mapping[str, bytes]) -> bytes:
    """One entry."""
    parts = []
    for name, value in fields.items():
        if b"\n" in value:
            parts.append(b"%b\n%b%b\n" % (name.encode(), len(value).to_bytes(8, "little"), value))
        else:
            parts.append(b"%b=%b\n" % (name.encode(), value))
    return b"".join(parts)


async def _send_in_file(sender: socket.socket, entry: bytes) -> None:
    """What is too large for a datagram goes in a sealed memory file. Raises OSError."""
    file = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(file, "wb", closefd=False) as out:
            out.write(entry)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE)
        while True:
            try:
                socket.send_fds(sender, [b""], [file])
            except BlockingIOError:
                await writable(sender.fileno())
            else:
                return
    finally:
        os.close(file)


class JournaldSink:
    """See outgoing.Sink."""

    def __init__(self, fields: Mapping[str, str], path: str = SOCKET) -> None:
        """fields: of the container."""
        self._fields = {
            name: value.encode("utf-8", "surrogateescape") for name, value in {**fields, "CONTAINER_LOG_EPOCH": new_id()}.items()
        }
        self._path = path
        self._ordinal = 0
        self._socket: socket.socket | None = None

    async def send(self, lines: Sequence[Line]) -> None:
        """See outgoing.Sink."""
        loop = asyncio.get_running_loop()
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            await loop.sock_connect(self._socket, self._path)
        for line in lines:
            entry = self._entry(line)
            try:
                await loop.sock_sendall(self._socket, entry)
            except OSError as error:
                if error.errno not in (errno.EMSGSIZE, errno.ENOBUFS):
                    raise
                await _send_in_file(self._socket, entry)

    def _entry(self, line: Line) -> bytes:
        self._ordinal += 1
        own = {
            "MESSAGE": line.data,
            "PRIORITY": b"%d" % (ERROR if line.is_error else INFO),
            "SYSLOG_TIMESTAMP": rfc3339nano(line.time_ns).encode(),
            "CONTAINER_LOG_ORDINAL": b"%d" % self._ordinal,
        }
        if line.is_part:
            own["CONTAINER_PARTIAL_MESSAGE"] = b"true"
        return encoded({**self._fields, **own})

    def close(self) -> None:
        """See outgoing.Sink."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
