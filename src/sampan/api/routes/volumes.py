"""Volumes (swagger tag Volume)."""

from sampan.api.http import NO_CONTENT, Request, Response, json_response
from sampan.api.router import Route
from sampan.api.services import Services
from sampan.errors import Unavailable
from sampan.spec.docker_api.volume import VolumeCreateRequest


async def list_volumes(request: Request, services: Services) -> Response:
    """GET /volumes."""
    return json_response(await services.volumes.list(request.query.filters()))


async def create(request: Request, services: Services) -> Response:
    """POST /volumes/create."""
    body = await request.json(VolumeCreateRequest)
    if body.cluster_volume_spec is not None and request.version >= (1, 42):
        raise Unavailable(
            'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
        )
    made = await services.volumes.create(body.name, driver=body.driver, options=body.driver_opts, labels=body.labels)
    return json_response(made, 201)


def inspect(request: Request, services: Services) -> Response:
    """GET /volumes/{name}."""
    return json_response(services.volumes.inspect(request.variables["name"]))


async def remove(request: Request, services: Services) -> Response:
    """DELETE /volumes/{name}: with force an unknown one is no error."""
    await services.volumes.remove(request.variables["name"], force=request.query.flag("force"))
    return NO_CONTENT


def update(request: Request, services: Services) -> Response:
    """PUT /volumes/{name}: only for swarm's cluster volumes."""
    del request, services
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def prune(request: Request, services: Services) -> Response:
    """POST /volumes/prune. Before 1.42 named volumes went too."""
    filters = request.query.filters()
    if request.version < (1, 42):
        filters["all"] = ["true"]
    return json_response(await services.volumes.prune(filters))


_TAG = "Volume"
ROUTES = (
    Route("GET", "/volumes", list_volumes, _TAG),
    Route("POST", "/volumes/create", create, _TAG, note="driver local; other options than those of an existing volume: 409"),
    Route("POST", "/volumes/prune", prune, _TAG),
    Route("GET", "/volumes/{name:.*}", inspect, _TAG),
    Route("PUT", "/volumes/{name:.*}", update, _TAG, "refused"),
    Route("DELETE", "/volumes/{name:.*}", remove, _TAG),
)
