"""What is wrong in a store is found and told, and nothing else is."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.registry import documents, paths
from sampan.registry.filesystem import FileSystem
from sampan.registry.gate import Gate
from sampan.registry.storage import Storage
from sampan.registry.store import Blobs, Manifests, digest_of
from sampan.registry.verify import Problem, Verifier
from tests.support.buckets import bucket_at, s3_server
from tests.support.registryserver import index_of, manifest_of

NAME = "team/app"
CONFIG, LAYER, OTHER = b"{}", b"a layer" * 50_000, b"another layer"
IMAGE, SECOND = manifest_of(CONFIG, LAYER), manifest_of(CONFIG, OTHER)
INDEX = index_of(IMAGE, SECOND)


@pytest.fixture(params=["files", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "files":
        (tmp_path / "store").mkdir()
        yield FileSystem(tmp_path / "store")
        return
    with s3_server() as endpoint:
        yield bucket_at(endpoint)()


async def fill(storage: Storage, scratch: Path) -> None:
    blobs, manifests = Blobs(storage, Gate()), Manifests(storage, Gate())
    for content in (CONFIG, LAYER, OTHER):
        scratch.write_bytes(content)
        await blobs.add(NAME, digest_of(content), scratch)
    for body, tag in ((IMAGE, "1"), (SECOND, "2"), (INDEX, "latest")):
        await manifests.put(NAME, digest_of(body), (tag,), body, documents.read(body))


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def test_nothing_is_wrong(storage: Storage, scratch: Path) -> None:
    async def whole() -> None:
        await fill(storage, scratch)
        found = await Verifier(storage).verify()
        everything = (CONFIG, LAYER, OTHER, IMAGE, SECOND, INDEX)
        assert (found.problems, found.content, found.bytes) == ([], 6, sum(map(len, everything)))
        assert (found.repositories, found.manifests) == (1, 3)

    asyncio.run(whole())


def test_everything_that_can_be_wrong(storage: Storage, scratch: Path) -> None:
    async def whole() -> None:
        await fill(storage, scratch)
        await storage.write(paths.blob(digest_of(CONFIG)), b"[]")  # of the same size
        await storage.write(paths.blob(digest_of(LAYER)), LAYER[:-1])
        await storage.remove(paths.blob(digest_of(OTHER)))
        await storage.remove(paths.revision(NAME, digest_of(SECOND)))
        await storage.remove(paths.layer(NAME, digest_of(CONFIG)))
        await storage.write(paths.tag(NAME, "odd"), b"nonsense")
        found = await Verifier(storage).verify()
        image, config = digest_of(IMAGE), digest_of(CONFIG)
        assert set(found.problems) == {
            Problem(config, f"the content is {digest_of(b'[]')}, 2 bytes"),
            Problem(digest_of(LAYER), f"the content is {digest_of(LAYER[:-1])}, {len(LAYER) - 1} bytes"),
            Problem(digest_of(OTHER), "the blob's content is missing", NAME),
            Problem(image, f"it names the blob {config}, which the repository has not", NAME),
            Problem(image, f"it names the blob {digest_of(LAYER)} of {len(LAYER)} bytes, which has {len(LAYER) - 1}", NAME),
            Problem(digest_of(INDEX), f"it names the manifest {digest_of(SECOND)}, which the repository has not", NAME),
            Problem("2", f"the tag means {digest_of(SECOND)}, which the repository has not", NAME),
            Problem("odd", "the tag means nothing", NAME),
        }
        assert found.lines()[-1].endswith(": 8 problems")

    asyncio.run(whole())


def test_what_goes_while_it_looks_is_not_wrong(tmp_path: Path) -> None:
    """A manifest that is deleted, and collected, after the first look has begun."""

    class Passing(FileSystem):
        async def read_all(self, keys):  # type: ignore[no-untyped-def]
            await self.remove(paths.revision(NAME, digest_of(INDEX)))
            await self.remove_all(paths.tag_directory(NAME, "latest"))
            await self.remove(paths.blob(digest_of(INDEX)))
            return await super().read_all(keys)

    async def whole() -> None:
        storage = Passing(tmp_path)
        await fill(storage, tmp_path / "scratch")
        assert (await Verifier(storage).verify()).problems == []

    asyncio.run(whole())
