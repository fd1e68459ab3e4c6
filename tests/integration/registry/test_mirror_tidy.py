"""What a mirror's cache leaves behind when content goes, and what is said of logins that everybody shares."""

import asyncio
import os
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sampan.registry import documents, paths
from sampan.registry.access.rules import Rule
from sampan.registry.config import AuthConfig, Config, MirrorConfig
from sampan.registry.filesystem import FileSystem
from sampan.registry.mirror.mirrors import Mirrors
from sampan.registry.mirror.upstream import Place
from sampan.registry.serving import given_out_freely
from tests.support.faultyregistry import FaultyRegistry
from tests.support.registryserver import digest_of


@pytest.fixture
def upstream() -> Iterator[FaultyRegistry]:
    made = FaultyRegistry()
    yield made
    made.close()


async def pull(mirrors: Mirrors, name: str) -> None:
    place = mirrors.find(name, "up.example")
    assert isinstance(place, Place)
    found = await mirrors.mirror.manifest(place, "1")
    for digest, size in documents.read(found.manifest.body).blobs:
        stored = await mirrors.mirror.blob(place, digest)
        assert digest_of(b"".join([piece async for piece in stored.pieces(0, size)])) == digest
        stored.close()
        if tasks := list(mirrors.mirror._tasks):  # one after the other, so that they are cached in this order
            await asyncio.wait(tasks)


def test_links_of_what_has_gone_and_old_parts_of_blobs_go(tmp_path: Path, upstream: FaultyRegistry) -> None:
    layers = {name: os.urandom(50_000) for name in ("team/old", "team/new")}
    for name, layer in layers.items():
        upstream.add(name, "1", name.encode(), [layer])

    async def whole() -> None:
        async with AsyncExitStack() as stack:
            config = {"up.example": MirrorConfig(url=f"http://{upstream.host}")}
            mirrors = await Mirrors.open(config, tmp_path, 60_000, stack)
            storage = FileSystem(tmp_path / "sampan/mirror")
            parts = tmp_path / "sampan/mirror/content/partial"
            for name, age in (("0" * 64, 30 * 86400), ("1" * 64, 60)):
                (parts / name).write_bytes(b"part")
                os.utime(parts / name, (time.time() - age,) * 2)
            await pull(mirrors, "team/old")
            await mirrors.tidy()
            assert await storage.repositories() == ["up.example/team/old"]
            assert os.listdir(parts) == ["1" * 64]
            await pull(mirrors, "team/new")  # for which the other one's content goes, soon
            while await storage.repositories() != ["up.example/team/new"]:
                await mirrors.tidy()
            assert await storage.links(paths.layers("up.example/team/new")) == sorted(map(digest_of, (b"team/new", layers["team/new"])))
            asked = len(upstream.requests)
            await pull(mirrors, "team/new")
            assert len(upstream.requests) == asked
            await pull(mirrors, "team/old")

    asyncio.run(asyncio.wait_for(whole(), 60))


@pytest.mark.parametrize(
    ("auth", "found"),
    [
        (AuthConfig(), ["private.example"]),
        (AuthConfig(htpasswd="f", anonymous_pull=True), ["private.example"]),
        (AuthConfig(htpasswd="f"), []),
        (AuthConfig(htpasswd="f", rules=[Rule(("private.example/*",), ("anonymous",))]), ["private.example"]),
        (AuthConfig(htpasswd="f", rules=[Rule(("private.example/public/*",), ("anonymous",))]), []),
    ],
)
def test_a_login_that_everybody_shares_is_told_of(auth: AuthConfig, found: list[str]) -> None:
    mirrors = {"private.example": MirrorConfig(username="team", password_file="f"), "public.example": MirrorConfig()}
    assert given_out_freely(Config(auth=auth, mirrors=mirrors)) == found
