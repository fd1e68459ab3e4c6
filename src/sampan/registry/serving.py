"""One registry's life: made of its configuration, serving until a signal, drained at the end."""

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from sampan.errors import SystemFailure
from sampan.metrics import Metrics
from sampan.registry import paths
from sampan.registry.access.access import Access, Logins
from sampan.registry.access.brake import Brake
from sampan.registry.access.htpasswd import Htpasswd
from sampan.registry.access.rules import Rules
from sampan.registry.access.tokens import Tokens, key_in
from sampan.registry.accesslog import AccessLog
from sampan.registry.app import App
from sampan.registry.config import AuthConfig, Config, address, place_of_mirror
from sampan.registry.control import Control
from sampan.registry.control import listener as control_listener
from sampan.registry.gate import Gate
from sampan.registry.gc import Collector
from sampan.registry.http import Request
from sampan.registry.mirror.mirrors import Mirrors
from sampan.registry.parts import Limits, Parts
from sampan.registry.server import SILENCE_SECONDS, AnswerTo, Server
from sampan.registry.storages import open_storage
from sampan.registry.store import Blobs, Manifests
from sampan.registry.tls import ServerTls
from sampan.registry.uploads import Uploads
from sampan.registry.verify import Verifier
from sampan.systemd import Service

log = logging.getLogger("sampan.registry")
THREADS = 32
"""For the disk and for hashing: most of the time they wait."""
LOOK_SECONDS = 5.0
EXPIRE_SECONDS = 60.0
DIRECTORY_MODE = 0o700
"""Of a root that is made: what is in it is given out by the rules of access, and by nothing else."""
LOOPBACK = ("127.", "::1", "localhost")


def listener(text: str) -> socket.socket:
    """A bound socket. Raises SystemFailure."""
    host, port = address(text)
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # All addresses of both families by one socket, where there are both.
        family, _, _, _, where = min(found, key=lambda item: item[0] != socket.AF_INET6) if not host else found[0]
        made = socket.create_server(where[:2], family=family, dualstack_ipv6=not host and family == socket.AF_INET6, backlog=1024)
    except OSError as error:
        raise SystemFailure(f"listen {text}: {error.strerror or error}") from None
    made.setblocking(False)
    # Of each connection: a client that reads nothing of what it has asked for is taken for gone.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(SILENCE_SECONDS * 1000))
    return made


def own(root: Path) -> int:
    """A lock on the directory, until the process ends: uploads and the collector count on being the only ones. Raises SystemFailure."""
    try:
        root.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
        (root / "sampan").mkdir(DIRECTORY_MODE, exist_ok=True)
        fd = os.open(root / "sampan/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemFailure(f"{root} belongs to another registry that is running") from None
    except OSError as error:
        raise SystemFailure(f"{root}: {error.strerror}") from None
    return fd


def access_of(config: AuthConfig, root: Path, url: str = "") -> Access:
    """Raises SystemFailure."""
    rules = Rules(config.all_rules())
    try:
        tokens = Tokens(key_in(root / "sampan/token.key"), config.token_seconds)
        logins = Logins(Htpasswd(Path(config.htpasswd)), Brake()) if config.htpasswd else None
    except OSError as error:
        raise SystemFailure(f"{error.filename or 'htpasswd'}: {error.strerror}") from None
    bearer = config.token if config.token is not None else logins is not None and rules.anonymous
    return Access(rules, logins, tokens, bearer=bearer, url=url, service=config.service)


async def every(seconds: float, action: Callable[[], object]) -> None:
    """Call it again and again; what it raises is logged."""
    while True:
        await asyncio.sleep(seconds)
        try:
            result = action()
            if asyncio.iscoroutine(result):
                await result
        except Exception:
            log.exception("a periodic task failed")


async def collect(collector: Collector) -> None:
    """As often as is configured; the log says what it did."""
    report = await collector.collect()
    log.info("collected %d blobs, %d bytes, in %.1f s", report.content, report.bytes, report.seconds)
    for damaged in report.damaged:
        log.error("%s is damaged: what it may name is kept until it is deleted", damaged)


def given_out_freely(config: Config) -> list[str]:
    """The mirrored registries of which everybody may pull what only a login of ours gets there."""
    rules = Rules(config.auth.all_rules())
    named = {name: f"{place_of_mirror(name, one)}/any/repository" for name, one in config.mirrors.items() if one.username}
    return [name for name, repository in named.items() if rules.allows("", "pull", repository)]


class Registry:
    """A registry that is not tied to a process: sampand has one inside it, too. start() and stop() once each."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._root = Path(config.root)
        self._stack = contextlib.AsyncExitStack()
        self._tls: ServerTls | None = None
        self._app: App | None = None
        self.addresses: list[tuple[str, int]] = []
        """Where it listens."""

    async def start(self) -> None:
        """Raises SystemFailure, OSError; stop() is to follow all the same."""
        config, root = self._config, self._root
        self._stack.callback(os.close, own(root))
        self._tls = ServerTls(config.tls) if config.tls is not None else None
        access = access_of(config.auth, root, config.url)
        storage, gate = await asyncio.to_thread(open_storage, config), Gate()
        limits = config.limits
        uploads = Uploads(root / paths.UPLOADS, lifetime=limits.upload_idle_seconds, at_once=limits.uploads, each=limits.uploads_each)
        parts = Parts(
            Blobs(storage, gate), Manifests(storage, gate), uploads, Limits(limits.manifest_bytes, limits.blob_bytes), config.delete
        )
        metrics = Metrics()
        mirrors = await self._open_mirrors() if config.mirrors else None
        collector = Collector(storage, gate, parts.manifests, policies=config.retention, grace=config.gc.grace_seconds)
        self._stack.push_async_callback(collector.ended)  # of a collection that was asked for by the control socket
        metrics.counter("sampan_registry_gc_runs", "Collections.", lambda: collector.runs)
        metrics.counter("sampan_registry_gc_freed_bytes", "Freed by them.", lambda: collector.freed_bytes)
        app = self._app = App(parts, access, metrics, mirrors, pages=config.web)
        if config.metrics_listen:  # the first to listen is the last to stop: it says to the end that we are not ready
            made = listener(config.metrics_listen)
            await self._server(app.metrics_answer).listen(made)
            log.info("metrics at http://%s:%d/metrics", *made.getsockname()[:2])
        await self._server(Control(collector, uploads, Verifier(storage)).answer).listen(control_listener(root))
        await self._listen(app, access)
        self._every(EXPIRE_SECONDS, uploads.expire)
        if config.gc.interval_seconds > 0:
            self._every(config.gc.interval_seconds, lambda: collect(collector))
            if mirrors is not None:
                self._every(config.gc.interval_seconds, mirrors.tidy)
        if self._tls is not None:
            self._every(LOOK_SECONDS, self._tls.refresh)
        log.info("registry listens on %s, data in %s", ", ".join(f"{host}:{port}" for host, port in self.addresses), root)

    async def _open_mirrors(self) -> Mirrors:
        for name in given_out_freely(self._config):
            log.warning("everybody who can reach us may pull what the login at %s may read there: see auth.rules", name)
        return await Mirrors.open(self._config.mirrors, self._root, self._config.cache_bytes, self._stack)

    def _server(self, answer_to: AnswerTo) -> Server:
        """One of those that are not drained."""
        made = Server(answer_to, grace=1)
        self._stack.push_async_callback(made.stop)
        return made

    async def _listen(self, app: App, access: Access) -> None:
        config, access_log = self._config, AccessLog(self._config.access_log)

        def done(request: Request, status: int, sent: int, seconds: float) -> None:
            app.done(request, status, seconds)
            access_log.write(request, status, request.body.received, sent, seconds)

        main = Server(app.answer, done, grace=config.drain_seconds, proxies=config.trusted_proxies)
        self._stack.push_async_callback(main.stop)
        for text in config.listen:
            made = listener(text)
            self.addresses.append(made.getsockname()[:2])
            await main.listen(made, self._tls.context if self._tls is not None else None)
            if access.logins is None and not address(text)[0].startswith(LOOPBACK):
                log.warning("%s is open to everybody who can reach it: set htpasswd, or listen on 127.0.0.1", text)

    def _every(self, seconds: float, action: Callable[[], object]) -> None:
        task = asyncio.get_running_loop().create_task(every(seconds, action))
        self._stack.push_async_callback(asyncio.wait, [task])
        self._stack.callback(task.cancel)

    def reload(self) -> None:
        """Look at the certificate now."""
        if self._tls is not None:
            self._tls.refresh()

    async def stop(self) -> None:
        """Drain: not ready for the configured time, then nothing new is accepted, what is under way ends within the configured time."""
        if self._app is not None:
            self._app.ready = False
        if self.addresses:
            await asyncio.sleep(self._config.unready_seconds)  # balancers look at /readyz now and then
        await self._stack.aclose()


async def serve(config: Config) -> None:
    """Until SIGTERM or SIGINT; a second one ends it at once. Raises SystemFailure, OSError."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(THREADS, "disk"))
    stopping = asyncio.Event()

    def stop() -> None:
        if stopping.is_set():
            os._exit(130)
        stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    service, registry = Service(), Registry(config)
    loop.add_signal_handler(signal.SIGHUP, registry.reload)
    try:
        await registry.start()
        service.notify("READY=1")
        await stopping.wait()
        log.info("draining")
    finally:
        await registry.stop()
