"""GET, HEAD, PUT and DELETE of manifests, by tag or digest."""

from sampan.registry import documents
from sampan.registry.errors import RegistryError
from sampan.registry.handlers.blobs import is_known
from sampan.registry.http import Answer, Request
from sampan.registry.names import checked_digest, checked_tag, parts_of
from sampan.registry.parts import Parts
from sampan.registry.store import Manifest, digest_of

TAGS_AT_ONCE = 100


def checked_reference(text: str) -> str:
    """A tag or a digest. Raises RegistryError."""
    return checked_digest(text) if ":" in text else checked_tag(text)


def answer_with(request: Request, manifest: Manifest) -> Answer:
    """A manifest, byte for byte."""
    headers = {
        "Content-Type": manifest.media_type,
        "Docker-Content-Digest": manifest.digest,
        "Etag": f'"{manifest.digest}"',
        "Content-Length": str(len(manifest.body)),
    }
    if is_known(request, manifest.digest):
        del headers["Content-Length"]
        return Answer(304, headers=headers)
    return Answer(200, manifest.body, headers)


async def get(parts: Parts, request: Request) -> Answer:
    """`GET` and `HEAD /v2/NAME/manifests/REFERENCE`: who is about to push an index asks by HEAD for what it names."""
    reference = checked_reference(request.variables["reference"])
    if request.method == "HEAD" and ":" in reference:
        return answer_with(request, await parts.manifests.promise(request.name, checked_digest(reference)))
    return answer_with(request, await parts.manifests.get(request.name, reference))


async def put(parts: Parts, request: Request) -> Answer:
    """`PUT /v2/NAME/manifests/REFERENCE`; with a digest, `?tag=` may name tags (distribution-spec 1.2)."""
    name, reference = request.name, checked_reference(request.variables["reference"])
    body = await request.body.read(parts.limits.manifest)
    if ":" in reference:
        digest = digest_of(body, parts_of(reference).algorithm)
        if digest != reference:
            raise RegistryError("DIGEST_INVALID", {"digest": reference, "computed": digest})
        tags = tuple(checked_tag(tag) for tag in request.query.get("tag", [])[:TAGS_AT_ONCE])
    else:
        digest, tags = digest_of(body), (reference,)
    contents = documents.read(body, request.headers.get("Content-Type", ""))
    await parts.manifests.put(name, digest, tags, body, contents)
    headers = {"Location": f"/v2/{name}/manifests/{digest}", "Docker-Content-Digest": digest}
    if contents.subject is not None:
        headers["OCI-Subject"] = contents.subject
    if ":" in reference and tags:
        headers["OCI-Tag"] = ", ".join(tags)
    return Answer(201, headers=headers)


async def delete(parts: Parts, request: Request) -> Answer:
    """`DELETE /v2/NAME/manifests/REFERENCE`: the manifest and its tags, or one tag."""
    if not parts.delete:
        raise RegistryError("UNSUPPORTED")
    reference = checked_reference(request.variables["reference"])
    if ":" in reference:
        await parts.manifests.delete(request.name, checked_digest(reference))
    else:
        await parts.manifests.delete_tag(request.name, reference)
    return Answer(202)
