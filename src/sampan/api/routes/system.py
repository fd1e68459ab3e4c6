"""Ping, version, info, events (swagger tag System), and what belongs to no other tag."""

from sampan.api import encode
from sampan.api.decode import timestamp_ns
from sampan.api.http import Request, Response, json_response
from sampan.api.router import Route
from sampan.api.routes.common import ended
from sampan.api.services import Services
from sampan.errors import InvalidArgument
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.docker_api.system import EventMessage


def ping(request: Request, services: Services) -> Response:
    """GET and HEAD /_ping. Not a coroutine: clients call it before everything else."""
    del request
    state = services.system.ping()
    headers = (
        ("Builder-Version", state.builder_version),
        ("Swarm", state.swarm),
        ("Cache-Control", "no-cache, no-store, must-revalidate"),
        ("Pragma", "no-cache"),
    )
    return Response(200, b"OK", "text/plain; charset=utf-8", headers)


def ping_head(request: Request, services: Services) -> Response:
    """HEAD says Content-Length: 0, as docker does."""
    return ping(request, services)._replace(body=b"")


async def version(request: Request, services: Services) -> Response:
    """GET /version."""
    del request
    return json_response(await services.system.version())


async def info(request: Request, services: Services) -> Response:
    """GET /info."""
    return Response(body=encode.system_info(await services.system.info(), request.version))


def _shown(event: EventMessage, version: tuple[int, int]) -> bool:
    """Image create events came with 1.46; exec_die with 1.36 (moby api/server/router/system)."""
    if version < (1, 46) and event.type == "image" and event.action == "create":
        return False
    return not (version < (1, 36) and event.action == "exec_die")


async def events(request: Request, services: Services) -> None:
    """GET /events: one JSON object a line, each sent as it happens; the head goes out before the first."""
    query = request.query
    since, until = timestamp_ns(query.text("since")), timestamp_ns(query.text("until"))
    if since and until and since > until:
        raise InvalidArgument(f"`since` time ({query.text('since')}) cannot be after `until` time ({query.text('until')})")
    messages = services.system.events(since=since, until=until, filters=query.filters())
    out = request.start_stream("application/json")
    async with ended(messages):
        async for message in messages:
            if _shown(message, request.version):
                await out.write(encode.document(message))


async def disk_usage(request: Request, services: Services) -> Response:
    """GET /system/df: all kinds, or since 1.42 those of `type`."""
    kinds = request.query.texts("type") if request.version >= (1, 42) else []
    for kind in kinds:
        if kind not in _USAGE_KINDS:
            raise InvalidArgument(f"unknown object type: {kind}")
    return Response(body=encode.disk_usage(await services.disk_usage.usage(kinds or _USAGE_KINDS), request.version))


async def check(request: Request, services: Services) -> Response:
    """GET /system/check and POST /system/check, which are ours: what does not fit together; POST mends what is certain."""
    return json_response(await services.checks.check(repair=request.method == "POST", deep=request.query.flag("deep")))


async def auth(request: Request, services: Services) -> Response:
    """POST /auth: whether a registry takes these credentials."""
    return json_response(await services.logins.login(await request.json(AuthConfig)))


_USAGE_KINDS = ("container", "image", "volume", "build-cache")
ROUTES = (
    Route("GET", "/_ping", ping, "System"),
    Route("HEAD", "/_ping", ping_head, "System"),
    Route("GET", "/version", version, "System"),
    Route("GET", "/info", info, "System"),
    Route("GET", "/events", events, "System", cancel=True),
    Route("POST", "/auth", auth, "System", cancel=True),
    Route("GET", "/system/df", disk_usage, "System", cancel=True, note="bytes on the disk, as du counts"),
    Route("GET", "/system/check", check, "System", cancel=True, note="Sampan's own"),
    Route("POST", "/system/check", check, "System", note="Sampan's own: repairs"),
)
