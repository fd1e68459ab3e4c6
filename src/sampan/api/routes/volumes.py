"""Volumes (swagger tag Volume): none can be made yet, so lists are empty and names unknown, in docker's words."""

from sampan.api.http import NO_CONTENT, Request, Response, json_response
from sampan.api.router import Route
from sampan.api.routes.common import fixed, missing
from sampan.api.services import Services
from sampan.errors import NotFound, Unavailable
from sampan.spec.docker_api.volume import VolumeListResponse


def list_volumes(request: Request, services: Services) -> Response:
    """GET /volumes."""
    del services
    request.query.filters()
    return json_response(VolumeListResponse())


def inspect(request: Request, services: Services) -> Response:
    """GET /volumes/{name}."""
    del services
    raise NotFound(f"get {request.variables['name']}: no such volume")


def remove(request: Request, services: Services) -> Response:
    """DELETE /volumes/{name}: with force an unknown one is no error."""
    if request.query.flag("force"):
        return NO_CONTENT
    return inspect(request, services)


def update(request: Request, services: Services) -> Response:
    """PUT /volumes/{name}: only for swarm's cluster volumes."""
    del request, services
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


_TAG = "Volume"
_NOTE = "there are no volumes yet"
ROUTES = (
    Route("GET", "/volumes", list_volumes, _TAG, note=_NOTE),
    Route("POST", "/volumes/create", missing("creating volumes"), _TAG, "missing"),
    Route("POST", "/volumes/prune", fixed(json_response({"VolumesDeleted": [], "SpaceReclaimed": 0})), _TAG, note=_NOTE),
    Route("GET", "/volumes/{name:.*}", inspect, _TAG, note=_NOTE),
    Route("PUT", "/volumes/{name:.*}", update, _TAG, "refused"),
    Route("DELETE", "/volumes/{name:.*}", remove, _TAG, note=_NOTE),
)
