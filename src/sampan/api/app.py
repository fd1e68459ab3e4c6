"""The application: the route table of all tags, bound to the engine's services."""

import time
from collections.abc import Awaitable, Callable
from functools import cache
from itertools import chain

from sampan.api.connection import Handler, Target
from sampan.api.http import Request, Response, error_response
from sampan.api.router import Route, Router
from sampan.api.routes import build, containers, execs, files, images, networks, plugins, streams, swarm, system, volumes
from sampan.api.services import Services
from sampan.api.versions import split_version

ROUTES: tuple[Route, ...] = tuple(
    chain(
        system.ROUTES,
        containers.ROUTES,
        files.ROUTES,
        streams.ROUTES,
        execs.ROUTES,
        images.ROUTES,
        build.ROUTES,
        networks.ROUTES,
        volumes.ROUTES,
        plugins.ROUTES,
        swarm.ROUTES,
    )
)

Observe = Callable[[Route, float], None]
"""Of a request: its route, and how many seconds its answer took."""


@cache
def _router() -> Router:
    return Router(ROUTES)


def _not_found(request: Request) -> Response:
    del request
    return error_response(404, "page not found")._replace(routed=False)


def _options(request: Request) -> Response:
    del request
    return Response(200, content_type="")


_NOT_FOUND = Target(_not_found, False)
_OPTIONS = Target(_options, False)


class App:
    """`resolve` is what ApiServer and Connection want."""

    def __init__(self, services: Services, observe: Observe | None = None) -> None:
        """observe: told of every request that a route has answered."""
        self._services, self._observe = services, observe
        self._router = _router()

    def resolve(self, request: Request) -> Target:
        """The handler of a request. Raises InvalidArgument for a version out of range."""
        request.version, request.path = split_version(request.path)
        found = self._router.find(request.method, request.path)
        if found is None:
            return _OPTIONS if request.method == "OPTIONS" else _NOT_FOUND
        route, request.variables = found
        services, handler = self._services, route.handler
        if self._observe is not None:
            return Target(_timed(route, services, self._observe), route.cancel)
        return Target(lambda request: handler(request, services), route.cancel)


def _timed(route: Route, services: Services, observe: Observe) -> Handler:
    """The route's handler, whose duration is told."""

    def handler(request: Request) -> Response | Awaitable[Response | None] | None:
        started = time.monotonic()
        answer = route.handler(request, services)
        if isinstance(answer, Awaitable):
            return ended(answer, started)
        observe(route, time.monotonic() - started)
        return answer

    async def ended(answer: Awaitable[Response | None], started: float) -> Response | None:
        try:
            return await answer
        finally:
            observe(route, time.monotonic() - started)

    return handler
