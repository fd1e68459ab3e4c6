"""What a mirrored repository can be asked. Nothing can be pushed there, and nothing deleted."""

from collections.abc import Awaitable, Callable

import msgspec

from sampan.registry.errors import RegistryError
from sampan.registry.handlers import blobs, listing, manifests
from sampan.registry.http import Answer, Request
from sampan.registry.mirror.mirror import STALE, Mirror
from sampan.registry.mirror.upstream import Place
from sampan.registry.names import checked_digest


async def _manifest(mirror: Mirror, place: Place, request: Request) -> Answer:
    found = await mirror.manifest(place, manifests.checked_reference(request.variables["reference"]))
    answer = manifests.answer_with(request, found.manifest)
    if found.stale:
        answer.headers.update(STALE)
    return answer


async def _blob(mirror: Mirror, place: Place, request: Request) -> Answer:
    digest = checked_digest(request.variables["digest"])
    if request.method == "HEAD":
        size = await mirror.blob_size(place, digest)
        return Answer(200, headers={**blobs.headers_of(digest), "Content-Length": str(size)})
    return blobs.answer_with(request, digest, await mirror.blob(place, digest))


async def _tags(mirror: Mirror, place: Place, request: Request) -> Answer:
    found, stale = await mirror.tags(place)
    page, headers = listing.page_of(request, found)
    body = msgspec.json.encode({"name": request.name, "tags": page})
    return Answer.json(body, headers={**headers, **(STALE if stale else {})})


async def _referrers(mirror: Mirror, place: Place, request: Request) -> Answer:
    wanted = request.one("artifactType")
    found, stale = await mirror.referrers(place, checked_digest(request.variables["digest"]))
    answer = listing.referrers_answer([entry for entry in found if wanted in ("", entry.artifact_type)], wanted)
    answer.headers.update(STALE if stale else {})
    return answer


_HANDLERS: dict[str, Callable[[Mirror, Place, Request], Awaitable[Answer]]] = {
    "manifest": _manifest,
    "blob": _blob,
    "tags": _tags,
    "referrers": _referrers,
}


async def answer(mirror: Mirror, place: Place, route: str, request: Request) -> Answer:
    """Raises RegistryError."""
    handler = _HANDLERS.get(route)
    if handler is None or request.method not in ("GET", "HEAD"):
        raise RegistryError("UNSUPPORTED", message=f"{place.name} is a mirror: nothing can be changed there")
    given = await handler(mirror, place, request)
    if place.namespace:
        given.headers["OCI-Namespace"] = place.namespace
    return given
