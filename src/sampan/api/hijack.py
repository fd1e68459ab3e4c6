"""The raw connection after attach or exec took it over: streams.Duplex on asyncio's transport.

Half-close is kept: the client's EOF ends recv, not send. After that EOF asyncio no longer reads the socket, so a client that then goes away
altogether would go unseen until the next write; HangupWatcher sees it (a poll for no events still reports EPOLLHUP and EPOLLERR).
"""

import asyncio
import fcntl
import os
import select
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable

from sampan.api.http import Reading

UPGRADED = "HTTP/1.1 101 UPGRADED\r\nContent-Type: {content_type}\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n{extra}\r\n"
PLAIN = "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n{extra}\r\n"
RAW_STREAM = "application/vnd.docker.raw-stream"
MULTIPLEXED_STREAM = "application/vnd.docker.multiplexed-stream"

HEAD_SECONDS = 0.1
"""How long the first byte waits for the client to read the head."""


class HangupWatcher:
    """Calls back once when the other side of a socket is gone in both directions. One epoll for all connections of a loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._loop = loop
        loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, fd: int, gone: Callable[[], None]) -> None:
        """Watch until gone was called or forget(fd)."""
        if fd not in self._callbacks:
            self._epoll.register(fd, 0)
        self._callbacks[fd] = gone

    def forget(self, fd: int) -> None:
        """Stop watching; unknown descriptors are fine. Must precede the descriptor's close."""
        if self._callbacks.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0):
            gone = self._callbacks.get(fd)
            self.forget(fd)
            if gone is not None:
                gone()

    def close(self) -> None:
        """Release the epoll, which forgets all: connections that were cut a moment ago say so after this."""
        self._callbacks.clear()
        self._loop.remove_reader(self._epoll.fileno())
        self._epoll.close()


class HijackedStream:
    """A client's connection as streams.Duplex. Made by the connection; fed by it."""

    def __init__(self, transport: asyncio.Transport, connection: Reading, early: bytes, hangups: HangupWatcher) -> None:
        self._transport = transport
        self._connection = connection
        self._pieces: deque[bytes] = deque([early] if early else [])
        self._hangups = hangups
        self._fd = -1
        self._reader: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._gone = asyncio.Event()
        self._eof = False
        self._sent_eof = False
        self._head_read = False
        self.buffered = len(early)
        self._source = -1
        """The duplicate of the socket that readable() gives away, -1 while the transport reads it."""

    # what the connection calls

    def feed(self, data: bytes) -> None:
        """Bytes from the client."""
        self._pieces.append(data)
        self.buffered += len(data)
        self._wake(self._reader)
        self._connection.update_reading()

    def feed_eof(self) -> None:
        """The client ended its side; from here on only its hang-up is of interest."""
        self._eof = True
        self._wake(self._reader)
        raw = self._transport.get_extra_info("socket")
        if raw is not None and not self._gone.is_set():
            self._fd = raw.fileno()
            self._hangups.watch(self._fd, self._transport.abort)

    def connection_lost(self) -> None:
        """The connection is gone in both directions."""
        if self._fd >= 0:
            self._hangups.forget(self._fd)
        self._gone.set()
        self._end_raw()
        self._wake(self._reader)
        self._wake(self._writable)

    def pause_writing(self) -> None:
        """The transport's buffer is full."""
        if self._writable is None or self._writable.done():
            self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """The transport's buffer has room again."""
        self._wake(self._writable)

    @staticmethod
    def _wake(waiter: "asyncio.Future[None] | None") -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @property
    def raw(self) -> bool:
        """Whether somebody else reads the socket now."""
        return self._source >= 0

    # Duplex

    async def recv(self, limit: int = 65536) -> bytes:
        """See streams.Duplex."""
        self._end_raw()
        while not self._pieces:
            if self._eof:
                return b""
            if self._gone.is_set():
                raise ConnectionResetError("the client is gone")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        piece = self._pieces.popleft()
        if len(piece) > limit:
            self._pieces.appendleft(piece[limit:])
            piece = piece[:limit]
        self.buffered -= len(piece)
        self._connection.update_reading()
        return piece

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """See streams.Duplex."""
        if self._gone.is_set() or self._sent_eof or self._transport.is_closing():
            raise BrokenPipeError("the client is gone")
        if not self._head_read:
            await self._wait_for_head()
        self._transport.write(data)
        while self._writable is not None and not self._writable.done():
            await asyncio.shield(self._writable)
            if self._gone.is_set():
                raise BrokenPipeError("the client is gone")

    async def _wait_for_head(self) -> None:
        """Wait until the client has read the head: docker-py buffers it with what came with it, then reads past that buffer."""
        self._head_read = True
        raw = self._transport.get_extra_info("socket")
        if raw is None or raw.family != socket.AF_UNIX:
            return  # of other sockets only their kernel knows
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + HEAD_SECONDS
        while not self._gone.is_set() and _unread(raw.fileno()) and loop.time() < ends_at:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.0002)

    async def send_eof(self) -> None:
        """See streams.Duplex."""
        if self._sent_eof or self._gone.is_set():
            return
        self._sent_eof = True
        self._transport.write_eof()

    async def wait_closed(self) -> None:
        """See streams.Duplex."""
        await self._gone.wait()

    def close(self) -> None:
        """See streams.Duplex: what send() has accepted is still delivered."""
        if not self._transport.is_closing():
            self._transport.close()

    async def readable(self) -> int:
        """See streams.Duplex. asyncio leaves the socket alone meanwhile: what is read is a duplicate of its descriptor."""
        if self._pieces or self._eof:
            return -1
        loop = asyncio.get_running_loop()
        if self._source < 0:
            self._source = self._connection.duplicate()
            if self._source < 0:
                return -1
            self._connection.update_reading()
        source = self._source
        self._reader = loop.create_future()
        loop.add_reader(source, self._wake, self._reader)
        try:
            await self._reader
        finally:
            self._reader = None
            if self._source == source:
                loop.remove_reader(source)
        if self._gone.is_set():
            raise ConnectionResetError("the client is gone")
        return source

    def _end_raw(self) -> None:
        """Bytes come through the transport again."""
        if self._source >= 0:
            asyncio.get_running_loop().remove_reader(self._source)
            os.close(self._source)
            self._source = -1
            self._connection.update_reading()


def _unread(fd: int) -> int:
    """How much the other side of a Unix socket has not read, 0 for nothing (SIOCOUTQ, net/unix/af_unix.c)."""
    count: int = struct.unpack("i", fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0\0\0\0"))[0]
    return count


def upgrade_head(protocol: str) -> bytes:
    """The head before the raw bytes of another protocol."""
    return f"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n".encode()


def hijack_head(*, upgrade: bool, multiplexed: bool, extra: str = "") -> bytes:
    """The head that docker sends before the raw bytes; extra = further header lines with their CRLF."""
    if not upgrade:
        return PLAIN.format(extra=extra).encode()
    return UPGRADED.format(content_type=MULTIPLEXED_STREAM if multiplexed else RAW_STREAM, extra=extra).encode()
