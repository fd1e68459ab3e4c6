"""WebSockets (RFC 6455) over a connection that was taken over: a streams.Duplex of the messages' payloads, one after the other.

What comes is passed on piece by piece, however long a message is. Pings are answered and a close is seen whether anybody reads or not.
"""

import asyncio
import base64
import binascii
import contextlib
import hashlib
import struct
from collections.abc import Mapping
from typing import Final

from sampan.errors import InvalidArgument
from sampan.streams import Duplex

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_NORMAL, _PROTOCOL_ERROR = 1000, 1002
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


class _Violation(Exception):
    """The client does not keep to the protocol."""


class WebSocket:
    """A client's WebSocket as streams.Duplex. Use end() when all is over; close() leaves the connection to it."""

    def __init__(self, connection: Duplex, *, binary: bool, takes_input: bool) -> None:
        """binary: what is sent goes in binary messages, else in text. takes_input: somebody calls recv(); else what comes is dropped."""
        self._connection = connection
        self._kind = _BINARY if binary else _TEXT
        self._takes_input = takes_input
        self._buffer = bytearray()
        self._rest = b""
        self._pieces: asyncio.Queue[bytes] = asyncio.Queue(_PIECES)
        self._ended = False
        self._sending = asyncio.Lock()
        self._closing = False
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
        await self._send(self._kind, bytes(data))

    async def send_eof(self) -> None:
        """See streams.Duplex: the closing handshake, which ends what we send."""
        await self._send_close(_NORMAL)

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
                    await self._send_close(_NORMAL)
        finally:
            self._connection.close()

    # what is sent

    async def _send(self, kind: int, payload: bytes) -> None:
        async with self._sending:
            if self._closing:
                raise BrokenPipeError("the WebSocket is closed")
            self._closing = kind == _CLOSE
            size = len(payload)
            length = (
                struct.pack(">B", size) if size < 126 else struct.pack(">BH" if size < 65536 else ">BQ", 126 if size < 65536 else 127, size)
            )
            await self._connection.send(bytes([0x80 | kind]) + length + payload)

    async def _send_close(self, code: int) -> None:
        with contextlib.suppress(BrokenPipeError):
            await self._send(_CLOSE, struct.pack(">H", code))

    # what comes

    async def _read(self) -> None:
        """Until the client closes, breaks the rules, or is gone; what waits for input is told in each case."""
        try:
            while await self._frame():
                pass
            code = _NORMAL
        except _Violation:
            code = _PROTOCOL_ERROR
        except ConnectionError:
            code = 0
        if code:
            with contextlib.suppress(ConnectionError):
                await self._send_close(code)
        if self._takes_input:
            await self._pieces.put(b"")
            # The client's part; meanwhile the end of its input reaches the container.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._connection.wait_closed()
        self._connection.close()

    async def _frame(self) -> bool:
        """Take one frame; False at the end of all."""
        head = await self._exactly(2)
        if not head:
            return False
        kind, size = head[0] & 0x0F, head[1] & 0x7F
        if head[0] & 0x70 or not head[1] & 0x80 or kind not in (_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG):
            raise _Violation
        if kind >= _CLOSE and (size > 125 or not head[0] & 0x80):
            raise _Violation
        if size >= 126:
            size = int.from_bytes(await self._exactly(2 if size == 126 else 8))
        mask = await self._exactly(4)
        if size >> 63:
            raise _Violation
        if kind >= _CLOSE:
            return await self._control(kind, _unmasked(await self._exactly(size), mask))
        while size:
            piece = await self._some(min(size, _PIECE - _PIECE % 4))
            size -= len(piece)
            if self._takes_input:
                await self._pieces.put(_unmasked(piece, mask))
            mask = mask[len(piece) % 4 :] + mask[: len(piece) % 4]
        return True

    async def _control(self, kind: int, payload: bytes) -> bool:
        if kind == _PING:
            await self._send(_PONG, payload)
        return kind != _CLOSE

    async def _exactly(self, size: int) -> bytes:
        """So many bytes; none at the end, if it comes between frames. Raises ConnectionResetError within one."""
        while len(self._buffer) < size:
            data = await self._connection.recv(_PIECE)
            if not data:
                if self._buffer or size != 2:
                    raise ConnectionResetError("the client is gone")
                return b""
            self._buffer += data
        found = bytes(self._buffer[:size])
        del self._buffer[:size]
        return found

    async def _some(self, most: int) -> bytes:
        """One byte at least. Raises ConnectionResetError."""
        if not self._buffer:
            data = await self._connection.recv(_PIECE)
            if not data:
                raise ConnectionResetError("the client is gone")
            self._buffer += data
        found = bytes(self._buffer[:most])
        del self._buffer[:most]
        return found


def _unmasked(data: bytes, mask: bytes) -> bytes:
    """A client's bytes, which come exclusive-ored with its mask."""
    size = len(data)
    key = (mask * (size // 4 + 1))[:size]
    return (int.from_bytes(data) ^ int.from_bytes(key)).to_bytes(size)
