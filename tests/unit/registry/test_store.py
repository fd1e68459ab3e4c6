"""Repositories: changes that meet each other."""

import asyncio
from pathlib import Path

import pytest

from sampan.registry import documents, paths
from sampan.registry.errors import RegistryError
from sampan.registry.filesystem import FileSystem
from sampan.registry.gate import Gate
from sampan.registry.store import Blobs, Manifests, digest_of
from tests.support.registryserver import EMPTY, manifest_of

NAME = "team/app"
BODY = manifest_of(EMPTY)
DIGEST = digest_of(BODY)


def test_a_tag_never_means_a_manifest_that_is_deleted_at_the_same_time(tmp_path: Path) -> None:
    async def whole() -> None:
        storage = FileSystem(tmp_path)
        manifests = Manifests(storage, Gate())

        async def delete() -> None:
            try:
                await manifests.delete(NAME, DIGEST)
            except RegistryError as error:
                if error.code not in ("MANIFEST_UNKNOWN", "NAME_UNKNOWN"):
                    raise

        async def push(tag: str) -> None:
            await manifests.put(NAME, DIGEST, (tag,), BODY, documents.read(BODY), complete=False)

        for round in range(20):
            await push("first")
            await asyncio.gather(delete(), push("a"), push("b"), push(f"t{round}"))
            for tag in await storage.names(paths.tags(NAME)):
                assert await manifests.resolve(NAME, tag) == DIGEST

    asyncio.run(asyncio.wait_for(whole(), 30))


@pytest.mark.parametrize("damaged", [b"", b"conten", b"content and more"])
def test_a_push_repairs_what_is_damaged(tmp_path: Path, damaged: bytes) -> None:
    async def whole() -> None:
        storage, gate = FileSystem(tmp_path), Gate()
        blobs, manifests = Blobs(storage, gate), Manifests(storage, gate)
        for _ in range(2):
            (tmp_path / "came").write_bytes(b"content")
            await blobs.add(NAME, digest_of(b"content"), tmp_path / "came")
            await manifests.put(NAME, DIGEST, ("1",), BODY, documents.read(BODY), complete=False)
            assert not (tmp_path / "came").exists()
            for digest, content in ((digest_of(b"content"), b"content"), (DIGEST, BODY)):
                file = tmp_path / paths.blob(digest)
                assert file.read_bytes() == content
                file.write_bytes(damaged)

    asyncio.run(whole())
