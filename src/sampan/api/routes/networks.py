"""Networks (swagger tag Network)."""

from sampan.api.http import NO_CONTENT, Request, Response, json_response
from sampan.api.router import Route
from sampan.api.services import Services
from sampan.spec.docker_api.network import EndpointSettings, NetworkConnect, NetworkCreate, NetworkDisconnect


async def list_networks(request: Request, services: Services) -> Response:
    """GET /networks. Before 1.28 each entry held its containers."""
    found = await services.networks.list(request.query.filters())
    if request.version < (1, 28):
        found = [await services.networks.inspect(network.id) for network in found]
    return json_response(found)


async def inspect(request: Request, services: Services) -> Response:
    """GET /networks/{id}."""
    return json_response(await services.networks.inspect(request.variables["id"]))


async def create(request: Request, services: Services) -> Response:
    """POST /networks/create."""
    return json_response(await services.networks.create(await request.json(NetworkCreate)), 201)


async def remove(request: Request, services: Services) -> Response:
    """DELETE /networks/{id}."""
    await services.networks.remove(request.variables["id"])
    return NO_CONTENT


async def connect(request: Request, services: Services) -> Response:
    """POST /networks/{id}/connect."""
    body = await request.json(NetworkConnect)
    await services.networks.connect(request.variables["id"], body.container, body.endpoint_config or EndpointSettings())
    return Response(200)


async def disconnect(request: Request, services: Services) -> Response:
    """POST /networks/{id}/disconnect."""
    body = await request.json(NetworkDisconnect)
    await services.networks.disconnect(request.variables["id"], body.container, force=body.force)
    return Response(200)


async def prune(request: Request, services: Services) -> Response:
    """POST /networks/prune."""
    return json_response(await services.networks.prune(request.query.filters()))


_TAG = "Network"
ROUTES = (
    Route("GET", "/networks", list_networks, _TAG),
    Route("GET", "/networks/", list_networks, _TAG),
    Route(
        "POST",
        "/networks/create",
        create,
        _TAG,
        note="bridge, macvlan; ipvlan, VLAN and dummy parents ran only as plans (tests/golden/network): the kernel has none of them",
    ),
    Route("POST", "/networks/prune", prune, _TAG),
    Route("GET", "/networks/{id:.*}", inspect, _TAG),
    Route("DELETE", "/networks/{id:.*}", remove, _TAG),
    Route("POST", "/networks/{id:.*}/connect", connect, _TAG),
    Route("POST", "/networks/{id:.*}/disconnect", disconnect, _TAG),
)
