"""Containers (swagger tag Container) but for their streams."""

from collections.abc import Awaitable, Mapping

import msgspec

from sampan.api import encode
from sampan.api.decode import convert_body, dimension
from sampan.api.http import NO_CONTENT, Request, Response, json_response
from sampan.api.router import Route
from sampan.api.routes.common import ended
from sampan.api.services import Services
from sampan.api.versions import Version
from sampan.errors import InvalidArgument, NotImplementedYet
from sampan.spec.docker_api.container import CreateRequest, HostConfig, UpdateRequest
from sampan.spec.docker_api.network import NetworkingConfig

_NOT_CONFIG = frozenset(("hostconfig", "networkingconfig"))
_CONFIG_KEYS = frozenset(name.lower() for name in CreateRequest.__struct_encode_fields__) - _NOT_CONFIG
_DEFAULT_NETWORK = "bridge"


async def list_containers(request: Request, services: Services) -> Response:
    """GET /containers/json."""
    query = request.query
    found = await services.containers.list(
        all=query.flag("all"), limit=query.number("limit"), size=query.flag("size"), filters=query.filters()
    )
    return json_response(found)


def _default_network(host: HostConfig, networking: NetworkingConfig | None) -> tuple[HostConfig, NetworkingConfig | None]:
    """`default` and "" mean the default bridge, also as the key of its endpoint (moby container_routes.go)."""
    if host.network_mode not in ("", "default"):
        return host, networking
    host = msgspec.structs.replace(host, network_mode=_DEFAULT_NETWORK)
    if networking is not None and networking.endpoints_config and "default" in networking.endpoints_config:
        endpoints = dict(networking.endpoints_config)
        endpoints.setdefault(_DEFAULT_NETWORK, endpoints.pop("default"))
        networking = NetworkingConfig(endpoints_config=endpoints)
    return host, networking


def normalise(request: CreateRequest, version: Version) -> CreateRequest:
    """What an older client's body means today, and docker's own rewriting of odd values (moby postContainersCreate)."""
    host = request.host_config or HostConfig()
    changes: dict[str, object] = {}
    if version < (1, 25) and host.auto_remove:
        changes["auto_remove"] = False
    if version < (1, 40) and not host.ipc_mode:
        changes["ipc_mode"] = "shareable"
    if version < (1, 41):
        # Clients that old cannot know of it; docker's behaviour then was the host's cgroup namespace.
        changes["cgroupns_mode"] = "host"
    if host.pids_limit is not None and host.pids_limit <= 0:
        changes["pids_limit"] = None
    if host.memory_swappiness == -1:
        changes["memory_swappiness"] = None
    if host.kernel_memory or host.kernel_memory_tcp:
        changes.update(kernel_memory=0, kernel_memory_tcp=0)
    if version < (1, 43) and host.annotations:
        changes["annotations"] = None
    if changes:
        host = msgspec.structs.replace(host, **changes)
    host, networking = _default_network(host, request.networking_config)
    if version < (1, 44):
        if networking is not None and networking.endpoints_config and len(networking.endpoints_config) > 1:
            raise InvalidArgument("Container cannot be connected to network endpoints: " + ", ".join(networking.endpoints_config))
        if request.healthcheck is not None and request.healthcheck.start_interval:
            health = msgspec.structs.replace(request.healthcheck, start_interval=0)
            request = msgspec.structs.replace(request, healthcheck=health)
    return msgspec.structs.replace(request, host_config=host, networking_config=networking)


async def create(request: Request, services: Services) -> Response:
    """POST /containers/create."""
    body = await request.json_value()
    if body is None or (isinstance(body, Mapping) and not any(key.lower() in _CONFIG_KEYS for key in body)):
        raise InvalidArgument("config cannot be empty in order to create a container")
    wanted = normalise(convert_body(body, CreateRequest), request.version)
    platform = request.query.text("platform") if request.version >= (1, 41) else ""
    made = await services.containers.create(request.query.text("name"), wanted, platform)
    return json_response(made, 201)


def inspect(request: Request, services: Services) -> Response | Awaitable[Response]:
    """GET /containers/{id}/json. Waits only for sizes."""
    if request.query.flag("size"):
        return _inspect_with_sizes(request, services)
    return Response(body=encode.container_inspect(services.containers.inspect(request.variables["id"]), request.version))


async def _inspect_with_sizes(request: Request, services: Services) -> Response:
    shown = await services.containers.inspect_with_sizes(request.variables["id"])
    return Response(body=encode.container_inspect(shown, request.version))


async def start(request: Request, services: Services) -> Response:
    """POST /containers/{id}/start. A body (the HostConfig of API < 1.24) is ignored."""
    if request.query.text("checkpoint"):
        raise InvalidArgument("checkpoint is only supported in experimental mode")
    await services.containers.start(request.variables["id"])
    return NO_CONTENT


def experimental(request: Request, services: Services) -> Response:
    """What docker has in experimental mode only."""
    del request, services
    raise NotImplementedYet(
        "This experimental feature is disabled by default. Start the Docker daemon in experimental mode in order to enable it."
    )


def _timeout(request: Request) -> int | None:
    text = request.query.text("t")
    return request.query.number("t") if text else None


def _signal(request: Request) -> str:
    """signal came with 1.42."""
    return request.query.text("signal") if request.version >= (1, 42) else ""


async def stop(request: Request, services: Services) -> Response:
    """POST /containers/{id}/stop."""
    await services.containers.stop(request.variables["id"], timeout=_timeout(request), signal=_signal(request))
    return NO_CONTENT


async def restart(request: Request, services: Services) -> Response:
    """POST /containers/{id}/restart."""
    await services.containers.restart(request.variables["id"], timeout=_timeout(request), signal=_signal(request))
    return NO_CONTENT


async def kill(request: Request, services: Services) -> Response:
    """POST /containers/{id}/kill."""
    await services.containers.kill(request.variables["id"], request.query.text("signal"))
    return NO_CONTENT


async def pause(request: Request, services: Services) -> Response:
    """POST /containers/{id}/pause."""
    await services.containers.pause(request.variables["id"], frozen=True)
    return NO_CONTENT


async def unpause(request: Request, services: Services) -> Response:
    """POST /containers/{id}/unpause."""
    await services.containers.pause(request.variables["id"], frozen=False)
    return NO_CONTENT


async def rename(request: Request, services: Services) -> Response:
    """POST /containers/{id}/rename."""
    name = request.query.text("name")
    if not name:
        raise InvalidArgument("Neither old nor new names may be empty")
    await services.containers.rename(request.variables["id"], name)
    return NO_CONTENT


async def remove(request: Request, services: Services) -> Response:
    """DELETE /containers/{id}."""
    query = request.query
    await services.containers.remove(request.variables["id"], force=query.flag("force"), volumes=query.flag("v"), link=query.flag("link"))
    return NO_CONTENT


async def wait(request: Request, services: Services) -> Response | None:
    """POST /containers/{id}/wait: the head at once, so that the client knows the wait has begun (API < 1.30: only at the end)."""
    legacy = request.version < (1, 30)
    pending = await services.containers.wait(request.variables["id"], "" if legacy else request.query.text("condition"))
    if legacy:
        return json_response(await pending.result())
    out = request.start_stream("application/json")
    await out.write(encode.document(await pending.result()))
    return None


async def top(request: Request, services: Services) -> Response:
    """GET /containers/{id}/top."""
    return json_response(await services.containers.top(request.variables["id"], request.query.text("ps_args", "-ef") or "-ef"))


async def stats(request: Request, services: Services) -> Response | None:
    """GET /containers/{id}/stats: a document a second, or with stream=false one. one-shot came with 1.41."""
    name, query = request.variables["id"], request.query
    one_shot = request.version >= (1, 41) and query.flag("one-shot")
    if not query.flag("stream", default=True):
        found = await services.stats.once(name, one_shot=one_shot)
        return Response(body=encode.document(found) if found is not None else b"")
    async with ended(services.stats.stream(name, one_shot=one_shot)) as documents:
        out = request.start_stream("")  # docker names no type here
        async for document in documents:
            await out.write(encode.document(document))
    return None


async def resize(request: Request, services: Services) -> Response:
    """POST /containers/{id}/resize."""
    height, width = dimension(request.query, "h", "height"), dimension(request.query, "w", "width")
    await services.containers.resize(request.variables["id"], height=height, width=width)
    return Response(200, content_type="")


async def prune(request: Request, services: Services) -> Response:
    """POST /containers/prune."""
    return json_response(await services.containers.prune(request.query.filters()))


async def update(request: Request, services: Services) -> Response:
    """POST /containers/{id}/update. PidsLimit came with 1.40; limits of single devices came later than 1.51."""
    wanted = convert_body(await request.json_value(), UpdateRequest)
    if request.version < (1, 40):
        wanted = msgspec.structs.replace(wanted, pids_limit=None)
    return json_response(await services.containers.update(request.variables["id"], wanted))


_TAG = "Container"
ROUTES = (
    Route("GET", "/containers/json", list_containers, _TAG),
    Route("POST", "/containers/create", create, _TAG, note="SCTP ports ran only as plans: the kernel has no SCTP"),
    Route("POST", "/containers/prune", prune, _TAG),
    Route("GET", "/containers/{id}/json", inspect, _TAG),
    Route("POST", "/containers/{id}/start", start, _TAG, note="checkpoints are refused"),
    Route("POST", "/containers/{id}/stop", stop, _TAG),
    Route("POST", "/containers/{id}/restart", restart, _TAG),
    Route("POST", "/containers/{id}/kill", kill, _TAG),
    Route("POST", "/containers/{id}/pause", pause, _TAG),
    Route("POST", "/containers/{id}/unpause", unpause, _TAG),
    Route("POST", "/containers/{id}/rename", rename, _TAG),
    Route("POST", "/containers/{id}/wait", wait, _TAG, cancel=True),
    Route("GET", "/containers/{id}/top", top, _TAG),
    Route("POST", "/containers/{id}/resize", resize, _TAG),
    Route("POST", "/containers/{id}/update", update, _TAG, note="published ports, too: PublishAdd and PublishRm are ours"),
    Route("GET", "/containers/{id}/stats", stats, _TAG, cancel=True),
    Route("GET", "/containers/{id}/checkpoints", experimental, _TAG, "refused"),
    Route("POST", "/containers/{id}/checkpoints", experimental, _TAG, "refused"),
    Route("DELETE", "/containers/{id}/checkpoints/{checkpoint}", experimental, _TAG, "refused"),
    Route("DELETE", "/containers/{id:.*}", remove, _TAG),  # a link's name has a slash
)
