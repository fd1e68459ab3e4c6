"""A pair of streams.Duplex in memory."""

import asyncio

_LIMIT = 256 * 1024


class _Pipe:
    """One direction: bytes, a bound, an end."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.eof = False
        self.broken = False
        self.changed = asyncio.Condition()

    async def notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()


class MemoryDuplex:
    """One end of duplex_pair(). Follows streams.Duplex, half-close and back-pressure included."""

    def __init__(self, incoming: _Pipe, outgoing: _Pipe) -> None:
        self._in = incoming
        self._out = outgoing

    async def recv(self, limit: int = 65536) -> bytes:
        """See streams.Duplex."""
        async with self._in.changed:
            await self._in.changed.wait_for(lambda: self._in.data or self._in.eof or self._in.broken)
            if self._in.data:
                piece = bytes(self._in.data[:limit])
                del self._in.data[:limit]
                self._in.changed.notify_all()
                return piece
            if self._in.eof:
                return b""
            raise ConnectionResetError("the peer is gone")

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """See streams.Duplex."""
        async with self._out.changed:
            if self._out.eof or self._out.broken:
                raise BrokenPipeError("the peer is gone")
            self._out.data += data
            self._out.changed.notify_all()
            await self._out.changed.wait_for(lambda: len(self._out.data) <= _LIMIT or self._out.broken)
            if self._out.broken:
                raise BrokenPipeError("the peer is gone")

    async def send_eof(self) -> None:
        """See streams.Duplex."""
        self._out.eof = True
        await self._out.notify()

    async def wait_closed(self) -> None:
        """See streams.Duplex."""
        async with self._in.changed:
            await self._in.changed.wait_for(lambda: self._in.broken)

    def close(self) -> None:
        """See streams.Duplex."""
        for pipe in (self._in, self._out):
            if not pipe.broken:
                pipe.broken = True
                waker = asyncio.get_running_loop().create_task(pipe.notify())
                _wakers.add(waker)
                waker.add_done_callback(_wakers.discard)

    async def readable(self) -> int:
        """See streams.Duplex: there is no socket."""
        return -1


_wakers: set["asyncio.Task[None]"] = set()
"""Keeps the tasks that wake waiters alive; asyncio itself holds only weak references."""


def duplex_pair() -> tuple[MemoryDuplex, MemoryDuplex]:
    """Two connected ends. Call in a running loop."""
    one, other = _Pipe(), _Pipe()
    return MemoryDuplex(one, other), MemoryDuplex(other, one)
