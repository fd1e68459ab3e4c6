"""TLS under a Connection, which sees a transport like any other, half-close included."""

import asyncio
import ssl
from collections.abc import Callable
from typing import Any, cast

from sampan.tlsstream import TlsStream

HANDSHAKES_MOST = 512
"""At once: who shakes hands is not yet among the connections that a server may have. One more costs the oldest its place: who has
a certificate comes through quickly, and cannot be kept out by those that say nothing.
"""
HANDSHAKE_SECONDS = 10.0
UNHEARD_MOST = 1 << 16
"""Bytes of what TLS itself answers (to key updates, or to a wish to renegotiate) that a client may leave unread."""


class TlsTransport(asyncio.Transport):
    """What the Connection writes to: over the socket's own transport."""

    def __init__(self, raw: asyncio.Transport, stream: TlsStream) -> None:
        super().__init__()
        self._raw = raw
        self._stream = stream
        self._ended = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See asyncio."""
        return self._stream.object if name == "ssl_object" else self._raw.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """See asyncio."""
        return self._raw.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """See asyncio."""
        self._stream.send(data)
        self.flush()

    def flush(self) -> int:
        """Send what TLS itself has to say, too; how many bytes there were."""
        data = self._stream.outgoing()
        if data and not self._ended:
            self._raw.write(data)
        return len(data)

    def can_write_eof(self) -> bool:
        """See asyncio."""
        return True

    def write_eof(self) -> None:
        """See asyncio."""
        self._end()
        if self._raw.can_write_eof() and not self._raw.is_closing():
            self._raw.write_eof()

    def _end(self) -> None:
        if not self._ended:
            self._stream.end()
            self.flush()
            self._ended = True

    def close(self) -> None:
        """See asyncio."""
        if not self._raw.is_closing():
            self._end()
            self._raw.close()

    def abort(self) -> None:
        """See asyncio."""
        self._raw.abort()

    def pause_reading(self) -> None:
        """See asyncio."""
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """See asyncio."""
        self._raw.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See asyncio."""
        self._raw.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """See asyncio."""
        return self._raw.get_write_buffer_size()


class TlsConnection(asyncio.Protocol):
    """What a socket's transport calls: shakes hands, and then passes on to a Connection what it can read."""

    def __init__(self, context: ssl.SSLContext, make: Callable[[], asyncio.Protocol], handshakes: "dict[TlsConnection, None]") -> None:
        """handshakes: the server's connections whose handshake is under way, the oldest first."""
        self._make = make
        self._handshakes = handshakes
        self._stream = TlsStream(context, server_side=True)
        self._inner: asyncio.Protocol | None = None
        self._told_end = False
        self._is_slow = False
        self._unheard = 0
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: a client connected."""
        raw = cast("asyncio.Transport", transport)
        self._transport = TlsTransport(raw, self._stream)
        if len(self._handshakes) >= HANDSHAKES_MOST:
            next(iter(self._handshakes)).abort()
        self._handshakes[self] = None
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_SECONDS, raw.abort)

    def abort(self) -> None:
        """End at once."""
        self._end_handshake()
        self._transport.abort()

    def _end_handshake(self) -> None:
        self._handshakes.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes arrived."""
        if self._transport.is_closing():
            return
        try:
            if self._inner is None:
                if not self._stream.shake_hands(data):
                    self._transport.flush()
                    return
                data = b""
                self._end_handshake()
                self._inner = self._make()
                self._inner.connection_made(self._transport)
            plain = self._stream.receive(data)
        except ssl.SSLError:
            self._transport.flush()  # TLS says why
            self._transport.close()
            return
        said = self._transport.flush()
        self._unheard = self._unheard + said if self._is_slow else 0
        if self._unheard > UNHEARD_MOST:
            self.abort()
            return
        if plain and not self._transport.is_closing():
            self._inner.data_received(plain)
        if self._stream.ended and not self._tell_end():
            self._transport.close()

    def _tell_end(self) -> bool | None:
        """Tell the Connection, once, that its client sends no more; false: there is nothing left to send, and all is to be closed."""
        if self._told_end or self._inner is None:
            return self._inner is not None
        self._told_end = True
        return self._inner.eof_received()

    def eof_received(self) -> bool | None:
        """asyncio: the client's socket sends no more, whether it has said so or not."""
        return self._tell_end()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: both directions are gone."""
        self._end_handshake()
        if self._inner is not None:
            self._inner.connection_lost(exc)

    def pause_writing(self) -> None:
        """asyncio: the client reads slowly."""
        self._is_slow = True
        if self._inner is not None:
            self._inner.pause_writing()

    def resume_writing(self) -> None:
        """asyncio: there is room again."""
        self._is_slow = False
        if self._inner is not None:
            self._inner.resume_writing()
