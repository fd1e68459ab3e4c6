"""From a request to its answer: routes, access, errors. No HTTP library in here."""

import logging

from sampan.errors import full_disk
from sampan.metrics import CONTENT_TYPE, Metrics
from sampan.registry import routes
from sampan.registry.access.access import TOKEN_PATH, Access
from sampan.registry.errors import RegistryError
from sampan.registry.handlers import mirrored
from sampan.registry.http import Answer, Request
from sampan.registry.mirror.mirrors import Mirrors
from sampan.registry.parts import Parts

log = logging.getLogger("sampan.registry")
COMMON = {"Docker-Distribution-Api-Version": "registry/2.0", "X-Content-Type-Options": "nosniff"}
DURATIONS = "sampan_registry_request_seconds"
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0, 300.0)
_TEXT = {"Content-Type": "text/plain; charset=utf-8"}


class App:
    """One registry's API. ready: whether it takes requests, or is about to stop."""

    def __init__(self, parts: Parts, access: Access, metrics: Metrics, mirrors: Mirrors | None = None, *, pages: bool = True) -> None:
        self._pages = pages
        self._parts = parts
        self._mirrors = mirrors
        self._access = access
        self._metrics = metrics
        self.ready = True
        metrics.describe("sampan_registry_requests_total", "Requests by route, method and status.")
        metrics.histogram(DURATIONS, "How long requests took, bodies included.", "route", BUCKETS)
        metrics.gauge("sampan_registry_uploads", "Uploads that have begun and not ended.", lambda: len(parts.uploads))
        metrics.counter("sampan_registry_failed_logins", "Wrong passwords.", lambda: access.logins.failures if access.logins else 0)
        if mirrors is not None:
            counts, cache = mirrors.mirror.counts, mirrors.mirror.cache
            metrics.counter("sampan_registry_mirror_hits", "Asked of a mirrored registry and here already.", lambda: counts.hits)
            metrics.counter("sampan_registry_mirror_misses", "Asked of a mirrored registry and fetched.", lambda: counts.misses)
            metrics.counter("sampan_registry_mirror_stale", "Given out although the upstream could not be asked.", lambda: counts.stale)
            metrics.counter("sampan_registry_mirror_fetched_bytes", "From mirrored registries.", lambda: counts.fetched_bytes)
            metrics.gauge("sampan_registry_mirror_bytes", "What of mirrored registries is kept.", lambda: cache.total)
            metrics.counter("sampan_registry_mirror_evicted", "Blobs that went for others.", lambda: cache.evicted)

    async def answer(self, request: Request) -> Answer:
        """Never raises but for a client that is gone (ConnectionError)."""
        try:
            answer = await self._answer(request)
        except RegistryError as error:
            answer = Answer.failure(error)
        except (ConnectionError, TimeoutError):
            raise
        except Exception as error:
            if (full := full_disk(error)) is not None:
                log.error("%s %a: %s", request.method, request.path, full.message)
                answer = Answer.failure(RegistryError("STORAGE_FULL"))
            else:
                log.exception("%s %a failed", request.method, request.path)
                answer = Answer.failure(RegistryError("UNKNOWN"))
        for name, value in COMMON.items():
            answer.headers.setdefault(name, value)
        return answer

    async def _answer(self, request: Request) -> Answer:
        if (own := self.operations(request)) is not None:
            return own
        if request.path == TOKEN_PATH and request.method in ("GET", "POST"):
            request.route = "token"
            return await self._access.token(request)
        match = routes.find(request.method, request.path)
        if match is None or (match.route.name == "pages" and not self._pages):
            return Answer(404, b"404 page not found\n", dict(_TEXT))
        request.route = match.route.name
        request.variables = match.variables
        name = match.variables.get("name", "")
        await self._access.admit(request, match.operation.action, name)
        place = await self._mirrors.place_of(request, self._parts) if self._mirrors is not None else None
        if place is None or self._mirrors is None:
            return await match.operation.handler(self._parts, request)
        self._access.admit_to_mirror(request, match.operation.action, place.name)
        return await mirrored.answer(self._mirrors.mirror, place, match.route.name, request)

    def operations(self, request: Request) -> Answer | None:
        """`/healthz`: the process answers. `/readyz`: it takes requests. Nobody need log in for these; None: something else."""
        if request.method not in ("GET", "HEAD") or request.path not in ("/healthz", "/readyz"):
            return None
        request.route = "health"
        if request.path == "/readyz" and not self.ready:
            return Answer(503, b"stopping\n", dict(_TEXT))
        return Answer(200, b"ok\n", dict(_TEXT))

    async def metrics_answer(self, request: Request) -> Answer:
        """What the address for metrics has."""
        if (own := self.operations(request)) is not None:
            return own
        if request.path == "/metrics" and request.method in ("GET", "HEAD"):
            return Answer(200, self._metrics.text().encode(), {"Content-Type": CONTENT_TYPE})
        return Answer(404, b"404 page not found\n", dict(_TEXT))

    def done(self, request: Request, status: int, seconds: float) -> None:
        """Count a request that has been answered."""
        method = request.method if request.method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE") else "other"
        self._metrics.add("sampan_registry_requests_total", route=request.route, method=method, status=str(status))
        self._metrics.took(DURATIONS, request.route, seconds)
