"""Pushing a blob: in one request, in two, or in chunks (distribution-spec, "Pushing blobs"). docker sends one PATCH without a range."""

import asyncio
import re

from sampan.digest import Digest
from sampan.registry.errors import RegistryError
from sampan.registry.http import Answer, Request, source_of
from sampan.registry.names import checked_digest, checked_name, is_digest, parts_of
from sampan.registry.parts import Parts
from sampan.registry.store import digest_of
from sampan.registry.uploads import Upload

_CONTENT_RANGE = re.compile(r"(?:bytes[ =])?(\d{1,18})-(\d{1,18})(?:/(?:\d+|\*))?", re.ASCII)


def _progress(upload: Upload) -> dict[str, str]:
    return {
        "Location": f"/v2/{upload.repository}/blobs/uploads/{upload.id}",
        "Range": f"0-{max(upload.size - 1, 0)}",
        "Docker-Upload-UUID": upload.id,
    }


def _created(name: str, digest: Digest) -> Answer:
    return Answer(201, headers={"Location": f"/v2/{name}/blobs/{digest}", "Docker-Content-Digest": digest})


def _length(request: Request) -> int | None:
    text = request.headers.get("Content-Length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


async def begin(parts: Parts, request: Request) -> Answer:
    """`POST /v2/NAME/blobs/uploads/`, with `?digest=` and the blob, or `?mount=&from=`, or nothing."""
    name, owner = request.name, request.user.name or source_of(request.remote)
    mount, source = request.one("mount"), request.one("from")
    if mount and is_digest(mount) and source:
        digest = checked_digest(mount)
        if request.user.may("pull", checked_name(source)) and await parts.blobs.mount(name, digest, source):
            return _created(name, digest)
    text = request.one("digest")
    if not text:
        upload = await parts.uploads.begin(name, request.one("digest-algorithm", "sha256"), owner)
        return Answer(202, headers=_progress(upload))
    digest = checked_digest(text)
    algorithm = parts_of(digest).algorithm
    upload = await parts.uploads.begin(name, algorithm, owner)
    if _length(request) == 0 and digest != digest_of(b"", algorithm):  # to be sent by PUT
        return Answer(202, headers=_progress(upload))
    try:
        await _take(parts, upload, request)
        return await _finish(parts, upload, digest)
    except BaseException:  # nobody knows of this upload
        await asyncio.shield(parts.uploads.forget(upload))
        raise


async def _take(parts: Parts, upload: Upload, request: Request) -> None:
    """Append the request's body. Raises RegistryError RANGE_INVALID, SIZE_INVALID, after which the upload is as it was before."""
    before, expected = upload.size, None
    text = request.headers.get("Content-Range", "")
    if text:
        match = _CONTENT_RANGE.fullmatch(text.strip())
        if match is None or int(match[2]) < int(match[1]):
            raise RegistryError("RANGE_INVALID", {"Content-Range": text[:100]}, headers=_progress(upload))
        if int(match[1]) != upload.size:
            raise RegistryError("RANGE_INVALID", {"Content-Range": text[:100], "expected": upload.size}, headers=_progress(upload))
        expected = int(match[2]) - int(match[1]) + 1
        if _length(request) not in (None, expected):
            raise RegistryError(
                "SIZE_INVALID", {"Content-Range": text[:100], "Content-Length": _length(request)}, headers=_progress(upload)
            )
    try:
        await upload.write(request.body.pieces(), parts.limits.blob)
    except RegistryError as error:
        if error.code == "TOOLARGE":  # but not for another request that is writing to it
            await parts.uploads.forget(upload)
        raise
    if expected is not None and upload.size - before != expected:
        came = upload.size - before
        await upload.cut(before)
        raise RegistryError("SIZE_INVALID", {"Content-Range": text[:100], "received": came}, headers=_progress(upload))


async def _finish(parts: Parts, upload: Upload, digest: Digest) -> Answer:
    file = await parts.uploads.finish(upload, digest)
    try:
        await parts.blobs.add(upload.repository, digest, file)
    finally:
        await asyncio.shield(parts.uploads.forget(upload))
    return _created(upload.repository, digest)


async def status(parts: Parts, request: Request) -> Answer:
    """`GET` of an upload's location: how much has come."""
    return Answer(204, headers=_progress(parts.uploads.find(request.name, request.variables["upload"])))


async def patch(parts: Parts, request: Request) -> Answer:
    """`PATCH` of an upload's location: more of it."""
    upload = parts.uploads.find(request.name, request.variables["upload"])
    await _take(parts, upload, request)
    return Answer(202, headers=_progress(upload))


async def put(parts: Parts, request: Request) -> Answer:
    """`PUT` of an upload's location with `?digest=`: the last of it, or nothing more."""
    upload = parts.uploads.find(request.name, request.variables["upload"])
    if "digest" not in request.query:
        raise RegistryError("DIGEST_INVALID", message="digest missing")
    digest = checked_digest(request.one("digest"))
    await _take(parts, upload, request)
    return await _finish(parts, upload, digest)


async def cancel(parts: Parts, request: Request) -> Answer:
    """`DELETE` of an upload's location."""
    await parts.uploads.forget(parts.uploads.find(request.name, request.variables["upload"]))
    return Answer(204)
