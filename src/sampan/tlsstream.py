"""TLS without a socket: what arrives becomes plain text, plain text what is to be sent, and each direction ends on its own.

Neither asyncio's transports nor Python's sockets can end one direction and go on with the other, as everybody does who gives a command its
input and then waits for its output (RFC 8446 section 6.1: a close_notify ends its sender's side only).
"""

from __future__ import annotations

import ssl
from contextlib import suppress

_CHUNK = 1 << 16


class TlsStream:
    """One side of a connection. Not for two threads at once."""

    def __init__(self, context: ssl.SSLContext, *, server_side: bool = False, server_hostname: str | None = None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.object = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        self.ended = False
        """Whether the other side sends no more."""
        self._sent_end = False

    def shake_hands(self, data: bytes) -> bool:
        """Take what has arrived; whether there is nothing more to be agreed upon. Raises ssl.SSLError: there will be no connection."""
        self._incoming.write(data)
        try:
            self.object.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def receive(self, data: bytes) -> bytes:
        """The plain text of what has arrived; it sets `ended`. Raises ssl.SSLError: nothing can be understood any more."""
        if self.ended:  # to be ignored (RFC 8446 section 6.1), and nobody would ever take it from there
            return b""
        self._incoming.write(data)
        pieces = []
        try:
            while piece := self.object.read(_CHUNK):
                pieces.append(piece)
            self.ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ended = True
        return b"".join(pieces)

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Have plain text sent. Raises ssl.SSLError."""
        left = memoryview(data)
        while left:
            left = left[self.object.write(left) :]

    def end(self) -> None:
        """Have the other side told that no more comes."""
        if self._sent_end:
            return
        self._sent_end = True
        with suppress(ssl.SSLError):  # it would wait for the other side's end, for which we do not
            self.object.unwrap()

    def outgoing(self) -> bytes:
        """What is to be sent now; b"" once our side has ended."""
        return self._outgoing.read()
