"""sampand: reads its configuration, wires the engine, serves until SIGTERM or SIGINT."""

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import resource
import signal
import sys
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from sampan.api.server import group_id, tcp_listener, tls_context, unix_listener
from sampan.daemon.config import DaemonConfig, parse_command_line
from sampan.daemon.orphans import reap_orphans
from sampan.daemon.shutdown import end_helpers, stop_all
from sampan.daemon.wiring import EngineParts, wire
from sampan.errors import EngineError, SystemFailure
from sampan.linux import libc, prctl

log = logging.getLogger("sampand")
SETTLE_SECONDS = 1.0
LEVELS = {
    "trace": logging.DEBUG, "debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "warning": logging.WARNING,
    "error": logging.ERROR, "fatal": logging.CRITICAL, "panic": logging.CRITICAL,
}  # fmt: skip


def _prepare_process() -> None:
    """Every descriptor the host allows, and orphans of a killed keeper come to us."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    libc.share_malloc_arena()
    prctl.set_child_subreaper()
    os.umask(0o022)


def _settle() -> None:
    """What start-up needed goes back to the kernel; what lives as long as the process is no longer looked through for garbage."""
    gc.collect()
    gc.freeze()
    libc.trim_heap()


def _take_pidfile(path: str) -> int:
    """Write our PID; the lock on the file tells a second daemon. Raises SystemFailure."""
    os.makedirs(os.path.dirname(path), 0o711, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(fd, 32).decode(errors="replace").strip()
        os.close(fd)
        raise SystemFailure(f"failed to start daemon: process with PID {holder} is still running ({path})") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


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
            else:
                log.warning("%s is open to everybody who can reach it: whoever connects is root on this host", host)
            default_port = 2376 if tls is not None else 2375
            await parts.server.serve(tcp_listener(address.hostname or "127.0.0.1", address.port or default_port), tls)
        else:
            raise SystemFailure(f"unsupported address {host}: use unix:// or tcp://")


async def serve(config: DaemonConfig) -> None:
    """Run the engine until a signal asks for its end."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with AsyncExitStack() as stack:
        orphans = loop.create_task(reap_orphans())
        stack.callback(orphans.cancel)
        parts = await wire(config, stack)
        await _listen(config, parts)
        log.info("API listen on %s", ", ".join(config.hosts))
        loop.call_later(SETTLE_SECONDS, _settle)
        await stopping.wait()
        if not config.live_restore:
            await stop_all(parts.service, parts.containers, parts.runner, config.shutdown_timeout)
        await parts.server.stop()
        await end_helpers(parts.containers, parts.runner)


def entry() -> None:
    """The program `sampand`."""
    config = parse_command_line(sys.argv[1:])
    logging.basicConfig(level=LEVELS[config.log_level], stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if os.geteuid() != 0:
        print("sampand needs to be started with root privileges", file=sys.stderr)
        raise SystemExit(1)
    _prepare_process()
    try:
        pidfile = _take_pidfile(config.pidfile)
        asyncio.run(serve(config))
    except EngineError as error:
        print(f"failed to start daemon: {error.message.removeprefix('failed to start daemon: ')}", file=sys.stderr)
        raise SystemExit(1) from None
    except OSError as error:
        print(f"failed to start daemon: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    with contextlib.suppress(OSError):
        os.unlink(config.pidfile)
    os.close(pidfile)
