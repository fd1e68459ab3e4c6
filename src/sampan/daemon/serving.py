"""What sampand does between its start and SIGTERM or SIGINT: it wires the engine, listens, and puts things in order at the end."""

import asyncio
import gc
import importlib
import logging
import signal
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from subprocess import Popen

from sampan.api.server import ApiServer, tcp_listener
from sampan.daemon.config import DaemonConfig
from sampan.daemon.dump import dump_on_signal
from sampan.daemon.hosts import tcp_address
from sampan.daemon.listening import open_listeners, shown
from sampan.daemon.loopwatch import LoopWatch
from sampan.daemon.orphans import reap_orphans
from sampan.daemon.reload import Reloader
from sampan.daemon.wiring import EngineParts, wire
from sampan.linux import libc
from sampan.systemd import Service

log = logging.getLogger("sampand")
LATE = ("sampan.daemon.latewiring", "sampan.network.dnsserver")
"""Modules that no start needs."""
LATE_SECONDS = 0.2
"""After the start, in which those have their answers who waited for it."""
SETTLE_SECONDS = 0.8
METRICS_CONNECTIONS = 32
"""At once; anybody who reaches the address can have them."""


def _settle() -> None:
    """What start-up needed goes back to the kernel; what lives as long as the process is no longer looked through for garbage."""
    gc.collect()
    gc.freeze()
    libc.trim_heap()


async def _start_registry(config: DaemonConfig, stack: AsyncExitStack) -> None:
    """The registry within sampand (docs/registry.md). Raises SystemFailure, OSError."""
    from sampan.registry.config import embedded

    serving = await asyncio.to_thread(importlib.import_module, "sampan.registry.serving")  # it is a quarter of a second
    registry = serving.Registry(embedded(config.registry, config.data_root))
    stack.push_async_callback(registry.stop)
    await registry.start()


async def _start_metrics(config: DaemonConfig, parts: EngineParts, stack: AsyncExitStack) -> None:
    """/metrics at an address of its own. Raises SystemFailure."""
    listener = tcp_listener(*tcp_address(f"tcp://{config.metrics_addr}", tls=False))
    server = ApiServer(parts.metrics.resolve, METRICS_CONNECTIONS)
    stack.push_async_callback(server.stop)
    await server.serve(listener)
    log.info("metrics at http://%s/metrics", shown(listener).removeprefix("tcp://"))


async def _load_late(parts: EngineParts) -> None:
    """Load what no start needs before somebody asks for it, and before its files are those of another version; then settle."""
    await asyncio.sleep(LATE_SECONDS)
    try:
        for name in LATE:
            await asyncio.to_thread(importlib.import_module, name)
        parts.late()
    except Exception:
        log.exception("pulls, builds and more do not work")
    await asyncio.sleep(SETTLE_SECONDS)
    _settle()


async def _ping(service: Service) -> None:
    """Tell systemd again and again that this loop runs."""
    while True:
        service.notify("WATCHDOG=1")
        await asyncio.sleep(service.watchdog_seconds / 3)


async def serve(config: DaemonConfig, keeper_process: Popen[bytes] | None, read: Callable[[], DaemonConfig], service: Service) -> None:
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
        watch = LoopWatch()
        watch.start()
        stack.callback(watch.stop)
        dump_on_signal(config.exec_root)
        parts = await wire(config, stack, watch, keeper_process)
        if config.registry:
            await _start_registry(config, stack)
        if config.metrics_addr:
            await _start_metrics(config, parts, stack)
        listeners = open_listeners(config, service.descriptors)
        for listener, tls in listeners:
            await parts.server.serve(listener, tls)
        reloader = Reloader(config, read, parts.take_over, parts.publish_reload)

        def reload() -> None:
            service.notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
            reloader.reload()
            service.notify("READY=1")

        loop.add_signal_handler(signal.SIGHUP, reload)
        log.info("API listen on %s", ", ".join(shown(listener) for listener, _ in listeners))
        service.notify("READY=1")
        if service.watchdog_seconds:
            stack.callback(loop.create_task(_ping(service)).cancel)
        stack.callback(loop.create_task(_load_late(parts)).cancel)
        await stopping.wait()
        service.notify("STOPPING=1")
        if not reloader.config.live_restore:
            await parts.shutdown.stop_all()
        await parts.server.stop()
        await parts.shutdown.end_lean_processes()
