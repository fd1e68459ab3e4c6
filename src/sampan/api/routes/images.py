"""Images (swagger tag Image), and registries as far as they are here."""

from collections.abc import AsyncIterator, Mapping

from sampan.api import decode, encode
from sampan.api.http import NO_CONTENT, Request, Response, json_response
from sampan.api.router import Route
from sampan.api.routes.common import ended
from sampan.api.services import CommitOptions, Services
from sampan.errors import EngineError, InvalidArgument
from sampan.spec.docker_api.container import CommitResponse, Config


async def stream_progress(request: Request, progress: AsyncIterator[Mapping[str, object]], *, always: bool = False) -> None:
    """Docker's JSON progress: one object a line ending CR LF. Once the first line is out, errors are lines too; always: at once."""
    async with ended(progress):
        try:
            first = await anext(progress, None)
            out = request.start_stream("application/json")
            if first is None:
                return
            await out.write(encode.encode(first) + b"\r\n")
            async for line in progress:
                await out.write(encode.encode(line) + b"\r\n")
        except EngineError as error:
            if request.stream is None and not always:
                raise
            out = request.stream or request.start_stream("application/json")
            line = {"errorDetail": {"message": error.message}, "error": error.message}
            await out.write(encode.encode(line) + b"\r\n")


async def list_images(request: Request, services: Services) -> Response:
    """GET /images/json."""
    query = request.query
    filters = query.filters()
    if request.version < (1, 41) and query.text("filter"):
        filters.setdefault("reference", []).append(query.text("filter"))
    shared = query.flag("shared-size") and request.version >= (1, 42)
    found = await services.images.list(all=query.flag("all"), filters=filters, shared_size=shared)
    return Response(body=encode.image_summaries(found, request.version))


async def inspect(request: Request, services: Services) -> Response:
    """GET /images/{name}/json."""
    platform = decode.platform(request.query) if request.version >= (1, 49) else None
    return Response(body=encode.image_inspect(await services.images.inspect(request.variables["name"], platform), request.version))


async def history(request: Request, services: Services) -> Response:
    """GET /images/{name}/history."""
    platform = decode.platform(request.query) if request.version >= (1, 48) else None
    return json_response(await services.images.history(request.variables["name"], platform))


async def create(request: Request, services: Services) -> None:
    """POST /images/create: import (fromSrc) or pull (fromImage). fromSrc=bootstrap is ours: makes a base image."""
    query = request.query
    if query.text("fromImage"):
        reference = decode.registry_reference(query.text("fromImage"), query.text("tag"))
        credentials = decode.registry_auth(request.headers.get("x-registry-auth", ""))
        verify = query.flag("tlsVerify", True)  # ours; podman's API has it too
        progress = services.pulls.pull(reference, platform=query.text("platform"), credentials=credentials, verify=verify)
        await stream_progress(request, progress)
        return
    source = query.text("fromSrc")
    if source == "bootstrap":
        await stream_progress(request, services.bootstraps.bootstrap(query.text("repo"), query.texts("include")))
        return
    if not source:
        raise InvalidArgument("fromImage or fromSrc must be given")
    repo, tag, platform = query.text("repo"), query.text("tag"), query.text("platform")
    message, changes = query.text("message") or f"Imported from {source}", query.texts("changes")
    if source == "-":
        progress = services.images.import_(request.body, repo=repo, tag=tag, message=message, changes=changes, platform=platform)
    else:
        progress = services.imports.import_from(source, repo=repo, tag=tag, message=message, changes=changes, platform=platform)
    await stream_progress(request, progress)


async def push(request: Request, services: Services) -> None:
    """POST /images/{name}/push: a tag, or without one every tag of the repository."""
    reference = decode.registry_reference(request.variables["name"], request.query.text("tag"))
    platform = decode.platform(request.query) if request.version >= (1, 46) else None
    credentials = decode.registry_auth(request.headers.get("x-registry-auth", ""))
    verify = request.query.flag("tlsVerify", True)  # as for create
    await stream_progress(request, services.pushes.push(reference, platform=platform, credentials=credentials, verify=verify))


async def tag(request: Request, services: Services) -> Response:
    """POST /images/{name}/tag."""
    await services.images.tag(request.variables["name"], request.query.text("repo"), request.query.text("tag"))
    return Response(201, content_type="")


async def remove(request: Request, services: Services) -> Response:
    """DELETE /images/{name}."""
    query = request.query
    platform = decode.removed_platform(query) if request.version >= (1, 50) else None
    force, parents = query.flag("force"), not query.flag("noprune")
    return json_response(await services.images.remove(request.variables["name"], force=force, prune=parents, platform=platform))


async def prune(request: Request, services: Services) -> Response:
    """POST /images/prune."""
    return json_response(await services.images.prune(request.query.filters()))


async def mount(request: Request, services: Services) -> Response:
    """POST /images/{name}/mount, which is ours: show an image at `target`, a directory of the host."""
    await services.image_mounts.mount(request.variables["name"], request.query.text("target"))
    return NO_CONTENT


def umount(request: Request, services: Services) -> Response:
    """POST /images/umount, which is ours: take the image off `target`."""
    services.image_mounts.umount(request.query.text("target"))
    return NO_CONTENT


async def commit(request: Request, services: Services) -> Response:
    """POST /commit. `source-date-epoch` is ours: seconds, as reproducible-builds.org has it."""
    query = request.query
    config = await request.json_value(required=False)
    options = CommitOptions(
        repo=query.text("repo"),
        tag=query.text("tag"),
        author=query.text("author"),
        comment=query.text("comment"),
        changes=query.texts("changes"),
        pause=query.flag("pause") if query.text("pause") else True,
        epoch=query.number("source-date-epoch") if query.text("source-date-epoch") else None,
    )
    body = None if config is None else decode.convert_body(config, Config)
    made = await services.commits.commit(query.text("container"), options, body)
    return json_response(CommitResponse(id=made), 201)


async def load(request: Request, services: Services) -> None:
    """POST /images/load. Docker tells every error in the stream."""
    platform = decode.platform(request.query) if request.version >= (1, 48) else None
    progress = services.archives.load(request.body, quiet=request.query.flag("quiet", True), platform=platform)
    await stream_progress(request, progress, always=True)


async def save(request: Request, services: Services) -> None:
    """GET /images/{name}/get and /images/get?names=."""
    names = [request.variables["name"]] if "name" in request.variables else request.query.texts("names")
    platform = decode.platform(request.query) if request.version >= (1, 48) else None
    async with ended(services.archives.save(names, platform)) as pieces:
        first = await anext(pieces)
        out = request.start_stream("application/x-tar")
        await out.write(first)
        async for piece in pieces:
            await out.write(piece)


async def distribution(request: Request, services: Services) -> Response:
    """GET /distribution/{name}/json: what a registry has by a name."""
    reference = decode.registry_reference(request.variables["name"], "").with_default_tag()
    credentials = decode.registry_auth(request.headers.get("x-registry-auth", ""))
    return json_response(await services.remotes.inspect(reference, credentials))


async def search(request: Request, services: Services) -> Response:
    """GET /images/search."""
    query = request.query
    credentials = decode.registry_auth(request.headers.get("x-registry-auth", ""))
    try:
        limit = query.number("limit")
    except InvalidArgument as error:
        raise InvalidArgument(f"invalid limit specified: {error.message}") from None
    return json_response(await services.remotes.search(query.text("term"), limit=limit, filters=query.filters(), credentials=credentials))


_TAG = "Image"
ROUTES = (
    Route("GET", "/images/json", list_images, _TAG),
    Route(
        "POST",
        "/images/create",
        create,
        _TAG,
        cancel=True,
        note="pull, import, and fromSrc=bootstrap, which is ours",
    ),
    Route("POST", "/images/prune", prune, _TAG),
    Route("POST", "/images/load", load, _TAG, cancel=True),
    Route("GET", "/images/search", search, _TAG, cancel=True),
    Route("GET", "/images/get", save, _TAG, cancel=True),
    Route("GET", "/images/{name:.*}/json", inspect, _TAG),
    Route("GET", "/images/{name:.*}/history", history, _TAG),
    Route("GET", "/images/{name:.*}/get", save, _TAG, cancel=True),
    Route("POST", "/images/{name:.*}/push", push, _TAG, cancel=True),
    Route("POST", "/images/{name:.*}/tag", tag, _TAG),
    Route("DELETE", "/images/{name:.*}", remove, _TAG),
    Route("POST", "/commit", commit, _TAG),
    Route("POST", "/images/umount", umount, _TAG, note="Sampan's own"),
    Route("POST", "/images/{name:.*}/mount", mount, _TAG, note="Sampan's own"),
    Route("GET", "/distribution/{name:.*}/json", distribution, "Distribution", cancel=True),
)
