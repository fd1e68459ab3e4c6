"""Networks (swagger tag Network): bridge, host and none are there; others cannot be made yet."""

from sampan.api.http import Request, Response, json_response
from sampan.api.router import Route
from sampan.api.routes.common import fixed, missing
from sampan.api.services import Services
from sampan.errors import Forbidden, NotImplementedYet


async def list_networks(request: Request, services: Services) -> Response:
    """GET /networks. Before 1.28 each entry held its containers."""
    found = await services.networks.list(request.query.filters())
    if request.version < (1, 28):
        found = [await services.networks.inspect(network.id) for network in found]
    return json_response(found)


async def inspect(request: Request, services: Services) -> Response:
    """GET /networks/{id}."""
    return json_response(await services.networks.inspect(request.variables["id"]))


async def remove(request: Request, services: Services) -> Response:
    """DELETE /networks/{id}: those that exist are docker's predefined ones."""
    network = await services.networks.inspect(request.variables["id"])
    raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")


async def connect(request: Request, services: Services) -> Response:
    """POST /networks/{id}/connect and disconnect."""
    await services.networks.inspect(request.variables["id"])
    raise NotImplementedYet("connecting containers to networks is not implemented in Sampan yet")


_TAG = "Network"
ROUTES = (
    Route("GET", "/networks", list_networks, _TAG),
    Route("GET", "/networks/", list_networks, _TAG),
    Route("POST", "/networks/create", missing("creating networks"), _TAG, "missing"),
    Route("POST", "/networks/prune", fixed(json_response({"NetworksDeleted": None})), _TAG, note="there are only predefined networks yet"),
    Route("GET", "/networks/{id:.*}", inspect, _TAG),
    Route("DELETE", "/networks/{id:.*}", remove, _TAG),
    Route("POST", "/networks/{id:.*}/connect", connect, _TAG, "missing", note="unknown network: 404"),
    Route("POST", "/networks/{id:.*}/disconnect", connect, _TAG, "missing", note="unknown network: 404"),
)
