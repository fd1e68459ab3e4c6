"""What sampand does between its start and SIGTERM or SIGINT: it wires the engine, listens, and puts things in order at the end."""

import asyncio
import gc
import importlib
import logging
import os
import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from subprocess import Popen
from urllib.parse import urlsplit

from sampan.api.server import group_id, tcp_listener, tls_context, unix_listener
from sampan.daemon.config import DaemonConfig
from sampan.daemon.orphans import reap_orphans
from sampan.daemon.reload import Reloader
from sampan.daemon.wiring import EngineParts, wire
from sampan.errors import EngineError, SystemFailure
from sampan.linux import libc

log = logging.getLogger("sampand")
SETTLE_SECONDS = 1.0


def _settle() -> None:
    """What start-up needed goes back to the kernel; what lives as long as the process is no longer looked through for garbage."""
    gc.collect()
    gc.freeze()
    libc.trim_heap()


async def _listen(config: DaemonConfig, parts: EngineParts) -> None:
    """Serve on every address of the configuration. Raises OSError, SystemFailure."""
    for host in config.hosts:
        address = urlsplit(host)
        if address.scheme == "unix":
            path = host.removeprefix("unix://")
            os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
            try:
                gid: int | None = group_id(config.group)
            except (LookupError, EngineError, ValueError):
                gid = None
            await parts.server.serve(unix_listener(path, gid=gid))
        elif address.scheme == "tcp":
            tls = None
            if config.tls or config.tlsverify:
                tls = tls_context(config.tlscert, config.tlskey, config.tlscacert or None, verify=config.tlsverify)
            if tls is None or not config.tlsverify:
                log.warning("%s is open to everybody who can reach it: whoever connects is root on this host", host)
            default_port = 2376 if tls is not None else 2375
            await parts.server.serve(tcp_listener(address.hostname or "127.0.0.1", address.port or default_port), tls)
        else:
            raise SystemFailure(f"unsupported address {host}: use unix:// or tcp://")


async def _start_registry(config: DaemonConfig, stack: AsyncExitStack) -> None:
    """The registry within sampand (docs/registry.md). Raises SystemFailure, OSError."""
    from sampan.registry.config import embedded

    serving = await asyncio.to_thread(importlib.import_module, "sampan.registry.serving")  # it is a quarter of a second
    registry = serving.Registry(embedded(config.registry, config.data_root))
    stack.push_async_callback(registry.stop)
    await registry.start()


async def serve(config: DaemonConfig, keeper_process: Popen[bytes] | None, read: Callable[[], DaemonConfig]) -> None:
    """Run the engine until a signal asks for its end. keeper_process: see wire. read: see Reloader.

    Raises EngineError, OSError: it does not start.
    """
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        orphans = loop.create_task(reap_orphans())
        stack.callback(orphans.cancel)
        loop.add_signal_handler(signal.SIGHUP, log.warning, "SIGHUP: the engine is still starting")
        parts = await wire(config, stack, keeper_process)
        if config.registry:
            await _start_registry(config, stack)
        await _listen(config, parts)
        reloader = Reloader(config, read, parts.take_over, parts.publish_reload)
        loop.add_signal_handler(signal.SIGHUP, reloader.reload)
        log.info("API listen on %s", ", ".join(config.hosts))
        loop.call_later(SETTLE_SECONDS, _settle)
        await stopping.wait()
        if not reloader.config.live_restore:
            await parts.shutdown.stop_all()
        await parts.server.stop()
        await parts.shutdown.end_lean_processes()
