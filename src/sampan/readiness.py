"""Waiting, in a coroutine, until a descriptor can be read or written. One waiter a descriptor and direction."""

import asyncio


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
