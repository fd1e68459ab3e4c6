"""The one shape of a two-way byte stream: a hijacked connection, or a pair in memory in tests."""

from collections.abc import Awaitable, Callable
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

    async def readable(self) -> int:
        """Wait for bytes of the peer, or its end, and give the socket that has them, for splice(2); it stays the stream's.

        -1 where recv() must be used: now (bytes that were read ahead, the end) or always (TLS, memory). After it recv() may be used again.
        Raises ConnectionError when the peer is gone altogether.
        """


OpenStream = Callable[[bool], Awaitable[Duplex]]
"""Takes over the client's connection: called with whether its output is multiplexed, once nothing can be refused any more."""
