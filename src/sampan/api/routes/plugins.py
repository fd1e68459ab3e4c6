"""Managed plugins (swagger tag Plugin): there are none."""

from sampan.api.http import Request, Response, json_response
from sampan.api.router import Route
from sampan.api.routes.common import fixed, missing
from sampan.api.services import Services
from sampan.errors import NotFound


def unknown(request: Request, services: Services) -> Response:
    """Anything about a plugin by name."""
    del services
    raise NotFound(f'plugin "{request.variables["name"]}" not found')


_TAG = "Plugin"
_FEATURE = "managed plugins"
ROUTES = (
    Route("GET", "/plugins", fixed(json_response([])), _TAG),
    Route("GET", "/plugins/privileges", missing(_FEATURE), _TAG, "missing"),
    Route("POST", "/plugins/pull", missing(_FEATURE), _TAG, "missing"),
    Route("POST", "/plugins/create", missing(_FEATURE), _TAG, "missing"),
    Route("GET", "/plugins/{name:.*}/json", unknown, _TAG),
    Route("DELETE", "/plugins/{name:.*}", unknown, _TAG),
    Route("POST", "/plugins/{name:.*}/enable", unknown, _TAG),
    Route("POST", "/plugins/{name:.*}/disable", unknown, _TAG),
    Route("POST", "/plugins/{name:.*}/upgrade", unknown, _TAG),
    Route("POST", "/plugins/{name:.*}/push", unknown, _TAG),
    Route("POST", "/plugins/{name:.*}/set", unknown, _TAG),
)
