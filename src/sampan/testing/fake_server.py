"""The API with the fake engine behind it, as a program: `python -m sampan.testing.fake_server SOCKET`."""

import asyncio
import sys

from sampan.api.app import App
from sampan.api.server import ApiServer, unix_listener
from sampan.testing.fake_engine import fake_engine


async def serve(path: str) -> None:
    """Serve until cancelled."""
    server = ApiServer(App(fake_engine().services).resolve)
    await server.serve(unix_listener(path))
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
