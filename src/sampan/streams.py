"""The shapes of byte streams: both ways (a hijacked connection, or a pair in memory in tests), and what a client sends."""

import os
from collections.abc import Awaitable, Callable
from typing import Protocol, runtime_checkable


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


@runtime_checkable
class Pourable(Protocol):
    """Bytes that arrive, once, and need not pass through this process."""

    async def pour(self, pipe: int) -> None:
        """Write all that comes into a pipe, which stays the caller's. Ends early when nobody reads it: the rest is left unread.

        Raises ConnectionError when the sender is gone, and what else reading raises.
        """


class InPipe:
    """Bytes that wait in a pipe: a piece of a stream, to be taken from there before the next piece is asked for."""

    def __init__(self, fd: int, size: int) -> None:
        """fd: the pipe's read end, not blocking, which stays somebody else's; size: how many bytes of those that are in it, 1 at least."""
        self.fd = fd
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __bytes__(self) -> bytes:
        """Take them."""
        data = os.read(self.fd, self._size)
        while len(data) < self._size:
            data += os.read(self.fd, self._size - len(data))
        return data


Piece = bytes | InPipe
"""Of a stream that goes to a client."""

OpenStream = Callable[[bool], Awaitable[Duplex]]
"""Takes over the client's connection: called with whether its output is multiplexed, once nothing can be refused any more."""
