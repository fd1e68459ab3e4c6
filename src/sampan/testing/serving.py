"""Run an ApiServer in a thread of its own, for tests whose clients block."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sampan.api.connection import Resolve
from sampan.api.server import ApiServer

Listener = tuple[socket.socket, ssl.SSLContext | None]


async def _cancel_rest() -> None:
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)


@contextmanager
def serving(make: Callable[[], Resolve], listeners: list[Listener]) -> Iterator[asyncio.AbstractEventLoop]:
    """Serve while the block runs; make() is called in the server's loop. Exceptions nobody handled fail the block's end."""
    started, problems = threading.Event(), []
    loop = asyncio.new_event_loop()
    stopping = asyncio.Event()

    async def main() -> None:
        server = ApiServer(make())
        for listener, tls in listeners:
            await server.serve(listener, tls)
        started.set()
        await stopping.wait()
        await server.stop(1.0)

    def run() -> None:
        loop.set_exception_handler(lambda _, context: problems.append(context))
        try:
            loop.run_until_complete(main())
            loop.run_until_complete(_cancel_rest())
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            started.set()
            loop.close()

    thread = threading.Thread(target=run, name="api-server")
    thread.start()
    started.wait(10)
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(stopping.set)
        thread.join(10)
    assert not problems, problems
