"""Waiting, in a coroutine, until a descriptor can be read or written. One waiter a descriptor and direction."""

import asyncio
import os
from typing import Final

_VECTORS_MAX: Final = 1024
"""Pieces of one writev(2): IOV_MAX."""


def _set(waiting: "asyncio.Future[None]") -> None:
    if not waiting.done():
        waiting.set_result(None)


async def readable(fd: int) -> None:
    """Wait until there is something to read, the end included."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[None] = loop.create_future()
    loop.add_reader(fd, _set, waiting)
    try:
        await waiting
    finally:
        loop.remove_reader(fd)


async def writable(fd: int) -> None:
    """Wait until it takes bytes, or nobody reads any more."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[None] = loop.create_future()
    loop.add_writer(fd, _set, waiting)
    try:
        await waiting
    finally:
        loop.remove_writer(fd)


async def write_all(fd: int, *pieces: bytes | memoryview) -> int:
    """Write to a non-blocking descriptor, waiting while it is full; the number of bytes. Raises BrokenPipeError, OSError."""
    views = [memoryview(piece) for piece in pieces if piece]
    total = 0
    first = 0
    while first < len(views):
        try:
            written = os.writev(fd, views[first : first + _VECTORS_MAX])
        except BlockingIOError:
            await writable(fd)
            continue
        total += written
        while written:
            taken = min(written, len(views[first]))
            views[first] = views[first][taken:]
            written -= taken
            first += not views[first]
    return total
