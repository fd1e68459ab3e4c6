"""The application: the route table of all tags, bound to the engine's services."""

from functools import cache
from itertools import chain

from sampan.api.connection import Target
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

    def __init__(self, services: Services) -> None:
        self._services = services
        self._router = _router()

    def resolve(self, request: Request) -> Target:
        """The handler of a request. Raises InvalidArgument for a version out of range."""
        request.version, request.path = split_version(request.path)
        found = self._router.find(request.method, request.path)
        if found is None:
            return _OPTIONS if request.method == "OPTIONS" else _NOT_FOUND
        route, request.variables = found
        services, handler = self._services, route.handler
        return Target(lambda request: handler(request, services), route.cancel)
