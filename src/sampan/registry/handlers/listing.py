"""Lists: tags, repositories, referrers; and the answer to `is this a registry?`"""

from bisect import bisect_right
from collections.abc import Sequence
from urllib.parse import quote, urlencode

import msgspec

from sampan.registry.documents import Referrer
from sampan.registry.errors import RegistryError
from sampan.registry.http import Answer, Request
from sampan.registry.names import checked_digest
from sampan.registry.parts import Parts
from sampan.spec.oci_layout import INDEX


class _Tags(msgspec.Struct):
    name: str
    tags: Sequence[str]


class _Catalogue(msgspec.Struct):
    repositories: Sequence[str]


class _Referrers(msgspec.Struct, rename="camel"):
    manifests: list[Referrer]
    schema_version: int = 2
    media_type: str = INDEX


def page_of(request: Request, items: Sequence[str]) -> tuple[Sequence[str], dict[str, str]]:
    """What `n` and `last` mean of a sorted list, and the Link to the next page. Raises RegistryError PAGINATION_NUMBER_INVALID."""
    last, text = request.one("last"), request.one("n")
    start = bisect_right(items, last) if last else 0
    if not text:
        return items[start:], {}
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise RegistryError("PAGINATION_NUMBER_INVALID", {"n": text[:40]})
    count = int(text)
    page = items[start : start + count]
    if not page or start + count >= len(items):
        return page, {}
    others = [(name, request.one(name)) for name in ("ns",) if request.one(name)]
    query = urlencode([("last", page[-1]), ("n", text), *others])
    return page, {"Link": f'<{quote(request.path)}?{query}>; rel="next"'}


async def ping(parts: Parts, request: Request) -> Answer:
    """`GET /v2/`"""
    del parts, request
    return Answer.json(b"{}")


async def tags(parts: Parts, request: Request) -> Answer:
    """`GET /v2/NAME/tags/list`"""
    page, headers = page_of(request, await parts.manifests.tags(request.name))
    return Answer.json(msgspec.json.encode(_Tags(request.name, page)), headers=headers)


async def catalogue(parts: Parts, request: Request) -> Answer:
    """`GET /v2/_catalog`: the repositories that the user may pull from."""
    names = [name for name in await parts.manifests.repositories() if request.user.sees(name)]
    page, headers = page_of(request, names)
    return Answer.json(msgspec.json.encode(_Catalogue(page)), headers=headers)


def referrers_answer(found: list[Referrer], wanted: str) -> Answer:
    """The index of referrers; wanted: the artifactType it was filtered by."""
    headers = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
    return Answer.json(msgspec.json.encode(_Referrers(found)), headers=headers, kind=INDEX)


async def referrers(parts: Parts, request: Request) -> Answer:
    """`GET /v2/NAME/referrers/DIGEST`, with `?artifactType=`; a long list has pages."""
    wanted, digest = request.one("artifactType"), checked_digest(request.variables["digest"])
    found, last = await parts.manifests.referrers(request.name, digest, wanted, request.one("last"))
    answer = referrers_answer(found, wanted)
    if last:
        others = [(key, request.one(key)) for key in ("artifactType", "ns") if request.one(key)]
        query = urlencode([("last", last), *others])
        answer.headers["Link"] = f'<{quote(request.path)}?{query}>; rel="next"'
    return answer
