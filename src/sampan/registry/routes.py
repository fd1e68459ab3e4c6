"""The API as data: every path, its methods, who may use them. Only what anybody may ask is not here: /token, /healthz, /readyz (app.py)."""

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from sampan.registry.errors import RegistryError
from sampan.registry.handlers import blobs, listing, manifests, pages, uploads
from sampan.registry.http import Answer, Request
from sampan.registry.names import checked_name
from sampan.registry.parts import Parts

Handler = Callable[[Parts, Request], Awaitable[Answer]]


class Operation(NamedTuple):
    """What one method does. action: what the user must be allowed to do in the repository (access/rules.py)."""

    handler: Handler
    action: str


class Route(NamedTuple):
    """One kind of path."""

    name: str
    pattern: re.Pattern[str]
    methods: Mapping[str, Operation]


def _route(name: str, pattern: str, **methods: Operation) -> Route:
    return Route(name, re.compile(pattern), methods)


ROUTES = (
    _route("base", r"/v2/?", GET=Operation(listing.ping, "")),
    _route("catalogue", r"/v2/_catalog", GET=Operation(listing.catalogue, "catalogue")),
    _route("tags", r"/v2/(?P<name>.+)/tags/list", GET=Operation(listing.tags, "pull")),
    _route("uploads", r"/v2/(?P<name>.+)/blobs/uploads/?", POST=Operation(uploads.begin, "push")),
    _route(
        "upload",
        r"/v2/(?P<name>.+)/blobs/uploads/(?P<upload>[^/]+)",
        GET=Operation(uploads.status, "push"),
        PATCH=Operation(uploads.patch, "push"),
        PUT=Operation(uploads.put, "push"),
        DELETE=Operation(uploads.cancel, "push"),
    ),
    _route(
        "blob",
        r"/v2/(?P<name>.+)/blobs/(?P<digest>[^/]+)",
        GET=Operation(blobs.get, "pull"),
        HEAD=Operation(blobs.head, "pull"),
        DELETE=Operation(blobs.delete, "delete"),
    ),
    _route(
        "manifest",
        r"/v2/(?P<name>.+)/manifests/(?P<reference>[^/]+)",
        GET=Operation(manifests.get, "pull"),
        PUT=Operation(manifests.put, "push"),
        DELETE=Operation(manifests.delete, "delete"),
    ),
    _route("pages", r"/", GET=Operation(pages.repositories, "catalogue")),
    _route("pages", r"/repositories/(?P<name>[^:@]+)", GET=Operation(pages.repository, "pull")),
    _route("pages", r"/repositories/(?P<name>[^:@]+)[:@](?P<reference>[^/]+)", GET=Operation(pages.image, "pull")),
    _route("referrers", r"/v2/(?P<name>.+)/referrers/(?P<digest>[^/]+)", GET=Operation(listing.referrers, "pull")),
)


class Match(NamedTuple):
    """A request's place in the table."""

    route: Route
    operation: Operation
    variables: dict[str, str]


def find(method: str, path: str) -> Match | None:
    """None: no such path. HEAD is what GET is where it has nothing of its own. Raises RegistryError UNSUPPORTED, NAME_INVALID."""
    for route in ROUTES:
        match = route.pattern.fullmatch(path)
        if match is None:
            continue
        operation = route.methods.get(method) or (route.methods.get("GET") if method == "HEAD" else None)
        if operation is None:
            allowed = sorted({*route.methods, *(["HEAD"] if "GET" in route.methods else [])})
            raise RegistryError("UNSUPPORTED", headers={"Allow": ", ".join(allowed)})
        variables = match.groupdict()
        if "name" in variables:
            checked_name(variables["name"])
        return Match(route, operation, variables)
    return None
