"""Containers' files: cp's archive calls, diff, export (swagger tag Container)."""

import base64

from sampan.api import encode
from sampan.api.http import Request, Response, json_response
from sampan.api.router import Route
from sampan.api.routes.common import ended
from sampan.api.services import Services
from sampan.errors import InvalidArgument
from sampan.spec.docker_api.container import PathStat

TAR = "application/x-tar"


def _path(request: Request) -> str:
    path = request.query.text("path")
    if not path:
        raise InvalidArgument("bad parameter: pathcannot be empty")
    return path


def _stat_header(found: PathStat) -> tuple[tuple[str, str], ...]:
    return (("X-Docker-Container-Path-Stat", base64.b64encode(encode.encode(found)).decode()),)


async def stat_archive(request: Request, services: Services) -> Response:
    """HEAD /containers/{id}/archive."""
    found = await services.files.stat_path(request.variables["id"], _path(request))
    return Response(200, content_type="", headers=_stat_header(found))


async def get_archive(request: Request, services: Services) -> None:
    """GET /containers/{id}/archive."""
    found, pieces = await services.files.archive(request.variables["id"], _path(request))
    async with ended(pieces) as chunks:
        out = request.start_stream(TAR, headers=_stat_header(found))
        async for chunk in chunks:
            await out.write(chunk)


async def put_archive(request: Request, services: Services) -> Response:
    """PUT /containers/{id}/archive."""
    query = request.query
    await services.files.extract(
        request.variables["id"],
        _path(request),
        request.body,
        replace=not query.flag("noOverwriteDirNonDir"),
        as_user=query.flag("copyUIDGID"),
    )
    return Response(200, content_type="")


async def changes(request: Request, services: Services) -> Response:
    """GET /containers/{id}/changes."""
    return json_response(await services.files.changes(request.variables["id"]) or None)


async def export(request: Request, services: Services) -> None:
    """GET /containers/{id}/export."""
    async with ended(await services.files.export(request.variables["id"])) as chunks:
        out = request.start_stream("application/octet-stream")
        async for chunk in chunks:
            await out.write(chunk)


_TAG = "Container"
ROUTES = (
    Route("HEAD", "/containers/{id}/archive", stat_archive, _TAG),
    Route("GET", "/containers/{id}/archive", get_archive, _TAG, cancel=True),
    Route("PUT", "/containers/{id}/archive", put_archive, _TAG),
    Route("GET", "/containers/{id}/changes", changes, _TAG),
    Route("GET", "/containers/{id}/export", export, _TAG, cancel=True),
)
