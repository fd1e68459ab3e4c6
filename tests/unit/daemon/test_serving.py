"""What sampand serves beside its API."""

import asyncio
import socket
from contextlib import AsyncExitStack, ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from sampan.daemon import serving
from sampan.daemon.metrics import EngineMetrics


def test_who_asks_for_metrics_leaves_descriptors_for_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    listeners: list[socket.socket] = []
    listen = serving.tcp_listener

    def listened(host: str, port: int) -> socket.socket:
        listeners.append(listen(host, port))
        return listeners[0]

    monkeypatch.setattr(serving, "tcp_listener", listened)
    config: Any = SimpleNamespace(metrics_addr="127.0.0.1:0")
    parts: Any = SimpleNamespace(metrics=EngineMetrics())

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as servers:
            await serving._start_metrics(config, parts, servers)
            with ExitStack() as clients:
                for _ in range(100):
                    client = clients.enter_context(socket.socket())
                    client.setblocking(False)
                    await loop.sock_connect(client, listeners[0].getsockname())
                assert (await loop.sock_recv(client, 4096))[:12] in (b"HTTP/1.1 503", b"")

    asyncio.run(asyncio.wait_for(main(), 10))


def test_what_cannot_be_loaded_late_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("LATE_SECONDS", "SETTLE_SECONDS"):
        monkeypatch.setattr(serving, name, 0)
    settled: list[bool] = []
    monkeypatch.setattr(serving, "_settle", lambda: settled.append(True))

    def late() -> None:
        raise ImportError("half of another version")

    parts: Any = SimpleNamespace(late=late)
    asyncio.run(serving._load_late(parts))
    assert "half of another version" in caplog.text
    assert settled
