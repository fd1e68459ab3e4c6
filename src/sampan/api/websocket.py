"""WebSockets over a connection that was taken over: a streams.Duplex of the messages' payloads, one after the other.

Their frames are wsproto's (adr/0020). What comes is passed on piece by piece, however long a message is. Pings are answered and a close is
seen whether anybody reads or not.
To import this takes 50 ms: whoever wants a WebSocket does it then.
"""

import asyncio
import base64
import binascii
import codecs
import contextlib
import hashlib
from collections.abc import Mapping
from typing import Final

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

from sampan.errors import InvalidArgument
from sampan.streams import Duplex

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_PIECE = 65536
_PIECES = 4
"""That wait for who reads."""
_CLOSE_SECONDS = 1.0
"""How long the other side has for its part of the end."""


def handshake(headers: Mapping[str, str]) -> bytes:
    """The head that accepts a client's WebSocket. Raises InvalidArgument: it asks for none."""
    connection = {word.strip().lower() for word in headers.get("connection", "").split(",")}
    if headers.get("upgrade", "").lower() != "websocket" or "upgrade" not in connection:
        raise InvalidArgument("not websocket protocol")
    if headers.get("sec-websocket-version", "") != "13":
        raise InvalidArgument("missing or bad WebSocket Version")
    key = headers.get("sec-websocket-key", "").strip()
    try:
        is_key = len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        is_key = False
    if not is_key:
        raise InvalidArgument("mismatch challenge/response")
    protocol = headers.get("sec-websocket-protocol", "").strip()
    if "," in protocol:
        raise InvalidArgument("bad WebSocket Protocol")
    accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()
    chosen = f"Sec-WebSocket-Protocol: {protocol}\r\n" if protocol else ""
    head = (
        f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{chosen}\r\n"
    )
    return head.encode("latin-1")


class WebSocket:
    """A client's WebSocket as streams.Duplex. Use end() when all is over; close() leaves the connection to it."""

    def __init__(self, connection: Duplex, *, binary: bool, takes_input: bool) -> None:
        """binary: what is sent goes in binary messages, else in text. takes_input: somebody calls recv(); else what comes is dropped."""
        self._connection = connection
        self._protocol = Connection(ConnectionType.SERVER)
        self._text = None if binary else codecs.getincrementaldecoder("utf-8")("replace")
        self._takes_input = takes_input
        self._rest = b""
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(_PIECES)
        self._ended = False
        self._sending = asyncio.Lock()
        self._reader = asyncio.create_task(self._read())

    # Duplex

    async def recv(self, limit: int = _PIECE) -> bytes:
        """See streams.Duplex. The end is the client's close, or that of its connection."""
        if not self._rest and not self._ended:
            self._rest = await self._pieces.get()
            self._ended = not self._rest
        piece, self._rest = self._rest[:limit], self._rest[limit:]
        return piece

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """See streams.Duplex: one message."""
        payload = bytes(data)
        await self._send(BytesMessage(payload) if self._text is None else TextMessage(self._text.decode(payload)))

    async def send_eof(self) -> None:
        """See streams.Duplex: the closing handshake, which ends what we send."""
        await self._send_close(CloseReason.NORMAL_CLOSURE)

    async def wait_closed(self) -> None:
        """See streams.Duplex."""
        await self._connection.wait_closed()

    def close(self) -> None:
        """See streams.Duplex."""

    async def readable(self) -> int:
        """See streams.Duplex: what is in the socket is not what is meant."""
        return -1

    async def end(self) -> None:
        """Tell the client, if it does not know yet, and drop the connection."""
        self._reader.cancel()
        try:
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._send_close(CloseReason.NORMAL_CLOSURE)
        finally:
            self._connection.close()

    # what is sent

    async def _send(self, event: Event) -> None:
        async with self._sending:
            try:
                frame = self._protocol.send(event)
            except LocalProtocolError:
                raise BrokenPipeError("the WebSocket is closed") from None
            await self._connection.send(frame)

    async def _send_close(self, code: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            await self._send(CloseConnection(code))

    # what comes

    async def _read(self) -> None:
        """Until the client closes, breaks the rules, or is gone; what waits for input is told in each case."""
        with contextlib.suppress(ConnectionError):
            await self._send_close(await self._take())
        if self._takes_input:
            await self._pieces.put(b"")
            # The client's part; meanwhile the end of its input reaches the container.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._connection.wait_closed()
        self._connection.close()

    async def _take(self) -> int:
        """Take all that comes; the code to close with at its end."""
        while data := await self._connection.recv(_PIECE):
            self._protocol.receive_data(data)
            for event in self._protocol.events():
                match event:
                    case BytesMessage():
                        await self._pass_on(bytes(event.data))
                    case TextMessage():
                        await self._pass_on(event.data.encode())
                    case Ping():
                        await self._send(event.response())
                    case CloseConnection():
                        is_theirs = self._protocol.state is not ConnectionState.OPEN
                        return CloseReason.NORMAL_CLOSURE if is_theirs else event.code
        return CloseReason.NORMAL_CLOSURE

    async def _pass_on(self, piece: bytes) -> None:
        if piece and self._takes_input:
            await self._pieces.put(piece)
