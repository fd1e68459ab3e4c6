"""The one shape of a two-way byte stream: a hijacked connection, or a pair in memory in tests."""

import socket
from typing import Protocol


class Duplex(Protocol):
    """A hijacked client connection. One reader and one writer at a time.

    Half-close is part of the contract: after the peer shut its write side `recv` returns b"" for ever, while `send` still works;
    `send_eof` ends our side while `recv` still works.
    """

    async def recv(self, limit: int = 65536) -> bytes:
        """At least one byte, at most limit; b"" once the peer has ended its side.

        Raises ConnectionError when the peer is gone altogether.
        """

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of data, waiting while the peer is slow. Raises ConnectionError when the peer is gone."""

    async def send_eof(self) -> None:
        """End our side; the peer reads EOF."""

    async def wait_closed(self) -> None:
        """Return when the peer is gone in both directions (not on its half-close)."""

    def close(self) -> None:
        """Drop the connection at once. May be called twice."""

    def detach_socket(self) -> tuple[socket.socket, bytes] | None:
        """Hand over the raw non-blocking socket and the bytes read ahead, for splice(2); None where there is none (TLS, memory)."""
