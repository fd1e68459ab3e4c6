"""Swarm mode (tags Swarm, Node, Service, Task, Secret, Config): this engine is never in a swarm, and says so in docker's words."""

from sampan.api.http import Request, Response
from sampan.api.router import Route
from sampan.api.routes.common import missing
from sampan.api.services import Services
from sampan.errors import Unavailable

NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.'
)
NOT_IN_SWARM = "This node is not part of a swarm"


def not_a_manager(request: Request, services: Services) -> Response:
    """What needs a manager."""
    del request, services
    raise Unavailable(NOT_A_MANAGER)


def leave(request: Request, services: Services) -> Response:
    """POST /swarm/leave."""
    del request, services
    raise Unavailable(NOT_IN_SWARM)


def _objects(tag: str, plural: str) -> tuple[Route, ...]:
    return (
        Route("GET", f"/{plural}", not_a_manager, tag, "refused"),
        Route("POST", f"/{plural}/create", not_a_manager, tag, "refused"),
        Route("GET", f"/{plural}/{{id}}", not_a_manager, tag, "refused"),
        Route("DELETE", f"/{plural}/{{id}}", not_a_manager, tag, "refused"),
        Route("POST", f"/{plural}/{{id}}/update", not_a_manager, tag, "refused"),
    )


ROUTES = (
    Route("GET", "/swarm", not_a_manager, "Swarm", "refused"),
    Route("POST", "/swarm/init", missing("swarm mode"), "Swarm", "missing"),
    Route("POST", "/swarm/join", missing("swarm mode"), "Swarm", "missing"),
    Route("POST", "/swarm/leave", leave, "Swarm", "refused"),
    Route("POST", "/swarm/update", not_a_manager, "Swarm", "refused"),
    Route("GET", "/swarm/unlockkey", not_a_manager, "Swarm", "refused"),
    Route("POST", "/swarm/unlock", not_a_manager, "Swarm", "refused"),
    Route("GET", "/nodes", not_a_manager, "Node", "refused"),
    Route("GET", "/nodes/{id}", not_a_manager, "Node", "refused"),
    Route("DELETE", "/nodes/{id}", not_a_manager, "Node", "refused"),
    Route("POST", "/nodes/{id}/update", not_a_manager, "Node", "refused"),
    *_objects("Service", "services"),
    Route("GET", "/services/{id}/logs", not_a_manager, "Service", "refused"),
    Route("GET", "/tasks", not_a_manager, "Task", "refused"),
    Route("GET", "/tasks/{id}", not_a_manager, "Task", "refused"),
    Route("GET", "/tasks/{id}/logs", not_a_manager, "Task", "refused"),
    *_objects("Secret", "secrets"),
    *_objects("Config", "configs"),
)
