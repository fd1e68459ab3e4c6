"""GET, HEAD and DELETE of blobs."""

import re

from sampan.registry.errors import RegistryError
from sampan.registry.http import Answer, ByteRange, Request
from sampan.registry.names import checked_digest
from sampan.registry.parts import Parts
from sampan.registry.storage import Stored

_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)
IMMUTABLE = "max-age=31536000, immutable"


def range_of(header: str, size: int) -> tuple[int, int] | None:
    """(start, length) that a Range header means of size bytes; None: it means nothing to us, all is sent (RFC 9110 §14.2).

    Raises RegistryError RANGE_INVALID: beyond the end.
    """
    match = _RANGE.fullmatch(header.strip())
    if match is None or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        start, end = max(0, size - int(last)), size
    else:
        start = int(first)
        if last and int(last) < start:
            return None
        end = min(size, int(last) + 1) if last else size
    if start >= size:
        raise RegistryError(
            "RANGE_INVALID", {"size": size}, message="requested range not satisfiable", headers={"Content-Range": f"bytes */{size}"}
        )
    return start, end - start


def headers_of(digest: str) -> dict[str, str]:
    """What every answer about a blob has."""
    return {
        "Content-Type": "application/octet-stream",
        "Docker-Content-Digest": digest,
        "Etag": f'"{digest}"',
        "Cache-Control": IMMUTABLE,
        "Accept-Ranges": "bytes",
    }


def is_known(request: Request, digest: str) -> bool:
    """Whether the client has it already (If-None-Match)."""
    return any(item.strip() in (f'"{digest}"', digest) for item in request.headers.get("If-None-Match", "").split(","))


def answer_with(request: Request, digest: str, content: Stored) -> Answer:
    """All of a blob, or the part that is asked for. Whoever sends the answer closes the content."""
    headers = headers_of(digest)
    if is_known(request, digest):
        content.close()
        return Answer(304, headers=headers)
    part = None
    if "Range" in request.headers and request.headers.get("If-Range", f'"{digest}"') == f'"{digest}"':
        try:
            part = range_of(request.headers["Range"], content.size)
        except RegistryError:
            content.close()
            raise
    if part is None:
        return Answer(200, ByteRange(content, 0, content.size), headers)
    start, length = part
    headers["Content-Range"] = f"bytes {start}-{start + length - 1}/{content.size}"
    return Answer(206, ByteRange(content, start, length), headers)


async def get(parts: Parts, request: Request) -> Answer:
    """`GET /v2/NAME/blobs/DIGEST`, with Range."""
    digest = checked_digest(request.variables["digest"])
    return answer_with(request, digest, await parts.blobs.open(request.name, digest))


async def head(parts: Parts, request: Request) -> Answer:
    """`HEAD /v2/NAME/blobs/DIGEST`: a client that is about to push asks this, and does not push what is there."""
    digest = checked_digest(request.variables["digest"])
    size = await parts.blobs.promise(request.name, digest)
    return Answer(200, headers={**headers_of(digest), "Content-Length": str(size)})


async def delete(parts: Parts, request: Request) -> Answer:
    """`DELETE /v2/NAME/blobs/DIGEST`"""
    if not parts.delete:
        raise RegistryError("UNSUPPORTED")
    await parts.blobs.delete(request.name, checked_digest(request.variables["digest"]))
    return Answer(202)
