"""Exec (swagger tag Exec)."""

import msgspec

from sampan.api.decode import dimension
from sampan.api.http import Request, Response, json_response
from sampan.api.router import Route
from sampan.api.routes.streams import stream_opener
from sampan.api.services import Services
from sampan.errors import InvalidArgument
from sampan.spec.docker_api.container import ExecCreateRequest, ExecCreateResponse, ExecStartRequest


async def create(request: Request, services: Services) -> Response:
    """POST /containers/{id}/exec."""
    wanted = await request.json(ExecCreateRequest)
    if not wanted.cmd:
        raise InvalidArgument("No exec command specified")
    if request.version < (1, 35) and wanted.working_dir:
        wanted = msgspec.structs.replace(wanted, working_dir="")
    exec_id = await services.execs.create(request.variables["id"], wanted)
    return json_response(ExecCreateResponse(id=exec_id), 201)


async def start(request: Request, services: Services) -> Response | None:
    """POST /exec/{id}/start: streams over the connection, or 200 at once with Detach."""
    wanted = await request.json(ExecStartRequest)
    if wanted.console_size is not None and (request.version < (1, 42) or not wanted.tty or wanted.detach):
        wanted = msgspec.structs.replace(wanted, console_size=None)
    await services.execs.start(request.variables["id"], wanted, stream_opener(request, common_headers=True))
    return Response(200, content_type="") if wanted.detach else None


async def resize(request: Request, services: Services) -> Response:
    """POST /exec/{id}/resize."""
    height, width = dimension(request.query, "h", "height"), dimension(request.query, "w", "width")
    await services.execs.resize(request.variables["id"], height=height, width=width)
    return Response(200, content_type="")


async def inspect(request: Request, services: Services) -> Response:
    """GET /exec/{id}/json."""
    return json_response(await services.execs.inspect(request.variables["id"]))


_TAG = "Exec"
ROUTES = (
    Route("POST", "/containers/{id}/exec", create, _TAG),
    Route("POST", "/exec/{id}/start", start, _TAG),
    Route("POST", "/exec/{id}/resize", resize, _TAG),
    Route("GET", "/exec/{id}/json", inspect, _TAG),
)
