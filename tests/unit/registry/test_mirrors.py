"""Which requests go to an upstream, and what is asked of our own store to find that out."""

import asyncio
from pathlib import Path
from typing import Any, NoReturn

import pytest

from sampan.registry import documents, paths
from sampan.registry.config import MirrorConfig
from sampan.registry.filesystem import FileSystem
from sampan.registry.http import Request
from sampan.registry.mirror.mirrors import Mirrors
from sampan.registry.mirror.upstream import Upstream
from sampan.registry.store import digest_of
from tests.support.registryserver import EMPTY, manifest_of, parts_over

BODY = manifest_of(EMPTY)


class Unlisted(FileSystem):
    """It may be asked whether there is something, but not for all of it: a repository can have ten thousand of each."""

    async def _refuse(self, *_: object) -> NoReturn:
        raise AssertionError("listed")

    names: Any = _refuse
    links: Any = _refuse
    repositories: Any = _refuse


def upstream(name: str) -> Upstream:
    return Upstream(name, MirrorConfig(), None, "")  # type: ignore[arg-type]


def mirrors_of(*names: str, default: str = "") -> Mirrors:
    upstreams = {name: upstream(name) for name in names}
    return Mirrors(None, upstreams, upstreams.get(default), None)  # type: ignore[arg-type]


def request_for(name: str, route: str = "manifest", *, method: str = "GET", **query: str) -> Request:
    variables = {"name": name, "reference": "1", "digest": digest_of(EMPTY)}
    return Request(method, "/", {key: [value] for key, value in query.items()}, {}, None, variables=variables, route=route)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("request_", "place"),
    [
        (request_for("docker.io/busybox"), "docker.io/library/busybox"),
        (request_for("docker.io/busybox", "uploads", method="POST"), "docker.io/library/busybox"),
        (request_for("docker.io/busybox", "pages"), ""),
        (request_for("app", ns="other.example"), "other.example/app"),
        (request_for("app", ns="third.example"), ""),
        (request_for("here"), ""),
        (request_for("here", "blob"), ""),
        (request_for("there"), "docker.io/library/there"),
        (request_for("there", "blob", method="HEAD"), "docker.io/library/there"),
        (request_for("there", "tags"), "docker.io/library/there"),
        (request_for("there", method="PUT"), ""),
        (request_for("there", "uploads", method="POST"), ""),
        (request_for("pushing", "blob"), ""),
        (request_for("pushing"), "docker.io/library/pushing"),
    ],
)
def test_where_a_request_is_for(tmp_path: Path, request_: Request, place: str) -> None:
    async def whole() -> None:
        storage = Unlisted(tmp_path)
        parts = parts_over(storage, storage.uploads)
        await parts.manifests.put("here", digest_of(BODY), ("1",), BODY, documents.read(BODY), complete=False)
        await storage.write(paths.layer("pushing", digest_of(EMPTY)), digest_of(EMPTY).encode())
        found = await mirrors_of("docker.io", "other.example", default="docker.io").place_of(request_, parts)
        assert (found.name if found is not None else "") == place

    asyncio.run(whole())


def test_without_a_default_the_store_is_not_asked() -> None:
    assert asyncio.run(mirrors_of("docker.io").place_of(request_for("there"), None)) is None  # type: ignore[arg-type]
