"""Building images (swagger tag Image)."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sampan import sessionframes
from sampan.api import decode, encode
from sampan.api.hijack import upgrade_head
from sampan.api.http import Request, Response, json_response
from sampan.api.router import Route
from sampan.api.routes.common import ended, missing
from sampan.api.services import BuildOptions, CacheLimits, Services
from sampan.build.errors import DockerfileError
from sampan.engine.buildoptions import StepFailed
from sampan.errors import EngineError, InvalidArgument, NotImplementedYet, SystemFailure
from sampan.spec import gojson
from sampan.spec.docker_api.container import Ulimit
from sampan.streams import Duplex

T = TypeVar("T")

_UNWANTED_MAX = 256 << 10
"""Bytes."""


def _json(request: Request, name: str, kind: type[T], empty: T, shown: str) -> T:
    """A parameter that is JSON. Raises InvalidArgument."""
    text = request.query.text(name)
    if not text:
        return empty
    try:
        return gojson.typed(gojson.parse(text.encode("utf-8", "replace"), whole=True), kind) or empty
    except gojson.GoJsonError as error:
        raise InvalidArgument(f"{shown}: {error}") from None


def _number(request: Request, name: str) -> int:
    """A parameter, of which docker takes what is no number as 0."""
    try:
        return request.query.number(name)
    except InvalidArgument:
        return 0


def _shm_size(request: Request) -> int:
    """Raises SystemFailure: docker answers 500."""
    text = request.query.text("shmsize")
    try:
        return decode.atoi(text, "ParseInt") if text else 0
    except InvalidArgument as error:
        raise SystemFailure(error.message) from None


def options_of(request: Request) -> BuildOptions:
    """The parameters of POST /build. Raises InvalidArgument, NotImplementedYet, SystemFailure."""
    query = request.query
    version = query.text("version") or "1"
    if version not in ("1", "2"):
        raise InvalidArgument(f"invalid version {decode.go_quote(version)}")
    if version == "2":
        raise NotImplementedYet("BuildKit's protocol (version 2 of the builder) is not implemented by Sampan yet")
    if query.has("securityopt"):
        raise InvalidArgument("security options are not supported on linux")
    if _json(request, "outputs", list[Any], [], "invalid outputs specified"):
        raise NotImplementedYet("outputs of a build other than an image are not implemented by Sampan yet")
    isolation = query.text("isolation")
    if isolation not in ("", "default"):
        raise InvalidArgument(f'unsupported isolation: "{isolation}"')
    return BuildOptions(
        dockerfile=query.text("dockerfile") or "Dockerfile",
        remote=query.text("remote"),
        tags=[tag for tag in query.texts("t") if tag],
        target=query.text("target"),
        platform=query.text("platform"),
        build_args=_json(request, "buildargs", dict[str, str | None], {}, "error reading build args"),
        labels=_json(request, "labels", dict[str, str], {}, "error reading labels"),
        no_cache=query.flag("nocache"),
        cache_from=_json(request, "cachefrom", list[str], [], "error reading cache-from"),
        pull=query.flag("pull"),
        remove=query.flag("forcerm") or not query.text("rm") or query.flag("rm"),
        force_remove=query.flag("forcerm"),
        quiet=query.flag("q"),
        squash=query.flag("squash"),
        network=query.text("networkmode"),
        extra_hosts=[host for text in query.texts("extrahosts") for host in text.split(",") if host],
        cgroup_parent=query.text("cgroupparent"),
        shm_size=_shm_size(request),
        memory=_number(request, "memory"),
        memory_swap=_number(request, "memswap"),
        cpu_shares=_number(request, "cpushares"),
        cpu_period=_number(request, "cpuperiod"),
        cpu_quota=_number(request, "cpuquota"),
        cpuset_cpus=query.text("cpusetcpus"),
        cpuset_mems=query.text("cpusetmems"),
        ulimits=_json(request, "ulimits", list[Ulimit], [], "error reading ulimit settings"),
        steps=query.flag("steps"),
        only_output=query.flag("only-output"),
        credentials=decode.registry_config(request.headers.get("x-registry-config", "")),
        session=query.text("session"),
    )


async def build(request: Request, services: Services) -> Response | None:
    """POST /build: docker's JSON progress. Errors before the first line are HTTP's, later ones are lines; both have docker's words.

    `lines` beside the message of a Dockerfile that cannot be read is ours: where in it.
    """
    try:
        options = options_of(request)
    except EngineError:
        await _take_in(request)
        raise
    progress = services.builds.build(options, request.body)
    async with ended(progress):
        try:
            first = await anext(progress, None)
            out = request.start_stream("application/json", first=_lines(first or ()))
            async for batch in progress:
                await out.write(_lines(batch))
        except DockerfileError as error:
            if request.stream is None and error.lines is not None:
                return json_response({"message": error.message, "lines": [error.lines.first, error.lines.last]}, 400)
            await _tell(request, error)
        except EngineError as error:
            await _tell(request, error)
    return None


async def _take_in(request: Request) -> None:
    """A context that nobody wants, to a bound: Go's server takes it in before it answers, and docker's client tells that it was sent."""
    taken = 0
    while taken < _UNWANTED_MAX and (piece := await request.body.read()):
        taken += len(piece)


async def _tell(request: Request, error: EngineError) -> None:
    """In the stream, if it has begun."""
    if request.stream is None:
        raise error
    await request.stream.write(_lines([_error(error)]))


def _lines(batch: Sequence[Mapping[str, object]]) -> bytes:
    return b"\r\n".join([*map(encode.encode, batch), b""])


def _error(error: EngineError) -> Mapping[str, object]:
    code = {"code": error.code} if isinstance(error, StepFailed) else {}
    return {"errorDetail": {**code, "message": error.message}, "error": error.message}


async def export(request: Request, services: Services) -> None:
    """GET /images/{name}/export, which is ours: the image's whole root file system, for `sampan build --output`."""
    async with ended(services.builds.export(request.variables["name"])) as pieces:
        first = await anext(pieces)
        out = request.start_stream("application/x-tar")
        await out.write(first)
        async for piece in pieces:
            await out.write(piece)


def _refuse_buildkit(request: Request, *, unless: str = "") -> None:
    """A connection that is to become something else than `unless`. Raises InvalidArgument, NotImplementedYet."""
    if not request.upgrade:
        raise InvalidArgument("no upgrade proto in request")
    if request.headers["upgrade"].lower() != unless:
        raise NotImplementedYet("BuildKit (session and gRPC) is not implemented in Sampan")


def grpc(request: Request, services: Services) -> None:
    """POST /grpc: BuildKit's own protocol over an upgraded connection."""
    del services
    _refuse_buildkit(request)


async def session(request: Request, services: Services) -> Response | None:
    """POST /session: the connection becomes a session of builds, in a protocol of our own (sessionframes.py); BuildKit's is refused."""
    _refuse_buildkit(request, unless=sessionframes.UPGRADE)
    await request.body.read_all()

    async def open_stream() -> Duplex:
        return await request.exchange.hijack(request, upgrade_head(sessionframes.UPGRADE))

    await services.builds.session(request.headers.get(sessionframes.SESSION_HEADER.lower(), ""), open_stream)
    return None


async def prune(request: Request, services: Services) -> Response:
    """POST /build/prune."""
    query = request.query
    filters = query.filters()
    if request.version >= (1, 48):
        limits = CacheLimits(
            reserved=_bytes(query, "reserved-space") or _bytes(query, "keep-storage"),
            max_used=_bytes(query, "max-used-space"),
            min_free=_bytes(query, "min-free-space"),
        )
    else:
        limits = CacheLimits(reserved=_bytes(query, "keep-storage"))
    report = await services.builds.prune(everything=query.flag("all"), limits=limits, filters=filters)
    return json_response(report)


def _bytes(query: decode.Query, name: str) -> int:
    try:
        return query.number(name)
    except InvalidArgument as error:
        raise InvalidArgument(f"{name} is in bytes and expects an integer, got {query.text(name)}: {error.message}") from None


_TAG = "Image"
ROUTES = (
    Route("POST", "/build", build, _TAG, "partial", cancel=True, note="outputs and BuildKit's protocol: 501"),
    Route("POST", "/build/cancel", missing("cancelling a build by its ID"), _TAG, "missing"),
    Route("POST", "/build/prune", prune, _TAG),
    Route("GET", "/images/{name:.*}/export", export, _TAG, cancel=True, note="Sampan's own"),
    Route("POST", "/session", session, "Session", "partial", note="Sampan's own protocol, for secrets and SSH agents; BuildKit's: 501"),
    Route("POST", "/grpc", grpc, "Session", "missing", note="400 without an Upgrade header, as docker"),
)
