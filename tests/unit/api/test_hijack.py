"""How the other side of a hijacked connection is watched."""

import asyncio
import socket

from sampan.api.hijack import HangupWatcher


def test_a_connection_may_end_after_its_watcher() -> None:
    async def main() -> None:
        watcher = HangupWatcher(asyncio.get_running_loop())
        ours, theirs = socket.socketpair()
        with ours, theirs:
            watcher.watch(ours.fileno(), ours.close)
            watcher.close()
            watcher.forget(ours.fileno())

    asyncio.run(main())
