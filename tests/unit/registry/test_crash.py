"""kill -9 before each single change: what was acknowledged is there, and nothing is half there."""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from sampan.digest import Digest
from sampan.registry import documents, paths
from sampan.registry.config import MirrorConfig
from sampan.registry.errors import RegistryError
from sampan.registry.filesystem import FileSystem
from sampan.registry.gate import Gate
from sampan.registry.gc import Collector
from sampan.registry.mirror.mirrors import Mirrors
from sampan.registry.mirror.upstream import Place
from sampan.registry.retention import Policy
from sampan.registry.s3 import S3
from sampan.registry.storage import Missing, Storage
from sampan.registry.store import Blobs, Manifests, digest_of
from sampan.registry.uploads import Uploads
from tests.support.crashes import CHANGE, instants_of
from tests.support.faultyregistry import FaultyRegistry
from tests.support.registryserver import descriptor, manifest_of

Tell = Callable[[str], None]
DAY = 86400.0
NAME, OTHER = "team/app", "team/other"
CONFIG, OLD_LAYER, NEW_LAYER = b"{}", b"old layer", b"new layer"
OLD, NEW = manifest_of(CONFIG, OLD_LAYER), manifest_of(CONFIG, NEW_LAYER)
SIGNATURE = manifest_of(CONFIG, subject=descriptor(OLD, "application/vnd.oci.image.manifest.v1+json"))


class Store:
    """A registry's store, opened as at a start. tell: of what has been acknowledged."""

    def __init__(self, storage: Storage, root: Path, tell: Tell = lambda _: None) -> None:
        gate = Gate()
        self.storage, self._tell = storage, tell
        self.blobs, self.manifests = Blobs(storage, gate), Manifests(storage, gate)
        self.uploads = Uploads(root / paths.UPLOADS, lifetime=60)
        policies = (Policy(("ci/*",), keep_last=0, untagged_days=1),)
        self.collector = Collector(storage, gate, self.manifests, policies=policies, now=lambda: time.time() + 8 * DAY)

    async def push_blob(self, name: str, content: bytes) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield content

        upload = await self.uploads.begin(name)
        await upload.write(pieces(), 0)
        digest = digest_of(content)
        await self.blobs.add(name, digest, await self.uploads.finish(upload, digest))
        await self.uploads.forget(upload)
        self._tell(f"blob {name} {digest}")

    async def put(self, name: str, manifest: bytes, *tags: str) -> None:
        await self.manifests.put(name, digest_of(manifest), tags, manifest, documents.read(manifest))
        for tag in tags:
            self._tell(f"tag {name} {tag} {digest_of(manifest)}")

    async def push(self, name: str, layer: bytes, manifest: bytes, *tags: str) -> None:
        for content in (CONFIG, layer):
            await self.push_blob(name, content)
        await self.put(name, manifest, *tags)

    async def check(self, told: list[str]) -> None:
        """Nothing is half there; what was told is there, up to the word `deleting`."""
        for digest, _ in await self.storage.blobs():  # content is what it is called
            assert digest_of(await self.storage.read(paths.blob(digest))) == digest
        for name in await self.storage.repositories():
            for linked in await self.storage.links(paths.layers(name)):  # content comes before its link
                (await self.blobs.open(name, Digest(linked))).close()
            for digest in await self.manifests.revisions(name):  # a manifest that is shown has all it names
                for blob, size in documents.read((await self.manifests.get(name, digest)).body).blobs:
                    stored = await self.blobs.open(name, blob)
                    assert stored.size == size
                    stored.close()
                for entry in (await self.manifests.referrers(name, Digest(digest)))[0]:
                    await self.manifests.get(name, entry.digest)
            for tag in await self.storage.names(paths.tags(name)):
                await self.manifests.get(name, tag)
        tags: dict[tuple[str, str], str] = {}
        for words in map(str.split, [] if "deleting" in told else told):
            if words[0] == "blob":
                (await self.blobs.open(words[1], Digest(words[2]))).close()
            else:
                tags[words[1], words[2]] = words[3]
        for (name, tag), told_digest in tags.items():
            found = await self.manifests.resolve(name, tag)
            assert found == told_digest or (tag == "latest" and found == digest_of(NEW))


class Pushes:
    """Two images, a tag that moves, a manifest and a tag deleted."""

    @staticmethod
    def open(root: Path, tell: Tell = lambda _: None) -> Store:
        return Store(FileSystem(root), root, tell)

    async def prepare(self, root: Path) -> None:
        pass

    async def run(self, root: Path, tell: Tell) -> None:
        store = self.open(root, tell)
        await store.push(NAME, OLD_LAYER, OLD, "latest", "old")
        await store.push(NAME, NEW_LAYER, NEW, "latest")
        tell("deleting")
        await store.manifests.delete(NAME, digest_of(OLD))
        await store.manifests.delete_tag(NAME, "latest")

    async def check(self, root: Path, told: list[str], *, ended: bool) -> None:
        store = self.open(root)
        assert not os.listdir(root / paths.TEMPORARY)
        await store.check(told)
        if ended:
            assert await store.manifests.tags(NAME) == []
            assert await store.manifests.revisions(NAME) == [digest_of(NEW)]
            with pytest.raises(RegistryError):
                await store.manifests.get(NAME, "old")


class Mounts(Pushes):
    """An image that is mounted from another repository, which is deleted then: its referrer, manifest and blobs."""

    async def prepare(self, root: Path) -> None:
        store = self.open(root)
        await store.push(OTHER, OLD_LAYER, OLD, "1", "2")
        await store.put(OTHER, SIGNATURE)

    async def run(self, root: Path, tell: Tell) -> None:
        store = self.open(root, tell)
        for content in (CONFIG, OLD_LAYER):
            assert await store.blobs.mount(NAME, digest_of(content), OTHER)
            tell(f"blob {NAME} {digest_of(content)}")
        await store.put(NAME, OLD, "latest")
        for manifest in (SIGNATURE, OLD):
            await store.manifests.delete(OTHER, digest_of(manifest))
        for content in (CONFIG, OLD_LAYER):
            await store.blobs.delete(OTHER, digest_of(content))

    async def check(self, root: Path, told: list[str], *, ended: bool) -> None:
        store = self.open(root)
        await store.check(told)
        if ended:
            assert await store.storage.repositories() == [NAME]
            assert (await store.manifests.get(NAME, "latest")).body == OLD


class Collections(Pushes):
    """What retention takes, what a deleted manifest leaves behind, an empty repository, and a list of referrers that is missing."""

    async def prepare(self, root: Path) -> None:
        store = self.open(root)
        await store.push(NAME, OLD_LAYER, OLD, "latest")
        await store.put(NAME, SIGNATURE)
        await store.storage.remove_all(f"{paths.repository(NAME)}/_manifests/referrers")
        await store.push(NAME, NEW_LAYER, NEW, "gone")
        await store.manifests.delete(NAME, digest_of(NEW))
        await store.push("ci/app", b"of ci", manifest_of(CONFIG, b"of ci"), "1", "2")

    async def run(self, root: Path, tell: Tell) -> None:
        await self.open(root).collector.collect()

    async def check(self, root: Path, told: list[str], *, ended: bool) -> None:
        store = self.open(root)
        await store.check(told)
        assert (await store.manifests.get(NAME, "latest")).body == OLD
        if not ended:
            await store.collector.collect()  # the next one takes what this one has not
        assert await store.storage.repositories() == [NAME]
        assert {digest for digest, _ in await store.storage.blobs()} == set(map(digest_of, (CONFIG, OLD_LAYER, OLD, SIGNATURE)))
        assert [entry.digest for entry in (await store.manifests.referrers(NAME, digest_of(OLD)))[0]] == [digest_of(SIGNATURE)]


class DyingS3(S3):
    """Says before each request that changes something that it does; of several things it takes one away after the other, as S3 may."""

    async def _ask(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        if call.__name__ == "delete_async":
            for key in arguments[0]:
                sys.audit(CHANGE)
                with suppress(Missing):  # S3 does not mind
                    await super()._ask(call, key)
            return None
        if call.__name__ == "put_async":
            sys.audit(CHANGE)
        return await super()._ask(call, *arguments, **options)


class Bucket(Collections):
    """The same, and a push, with the content in a bucket: obstore's that is a directory. It takes a hundredth of the time of S3's."""

    def __init__(self) -> None:
        import_module("obstore.store")  # once, not in every child

    def open(self, root: Path, tell: Tell = lambda _: None) -> Store:  # type: ignore[override]
        return Store(DyingS3(import_module("obstore.store").LocalStore(root / "bucket", mkdir=True, automatic_cleanup=True)), root, tell)

    async def run(self, root: Path, tell: Tell) -> None:
        store = self.open(root, tell)
        await store.push(NAME, OLD_LAYER, OLD, "latest")
        await store.collector.collect()


class Fetches:
    """An image by the mirror. Whoever comes next gets all of it, and nothing is kept that is not what it is called."""

    def __init__(self, upstream: str) -> None:
        self._upstream = {"up.example": MirrorConfig(url=f"http://{upstream}")}

    async def prepare(self, root: Path) -> None:
        pass

    async def _pull(self, root: Path) -> None:
        async with AsyncExitStack() as stack:
            mirrors = await Mirrors.open(self._upstream, root, 1 << 30, stack)
            place = mirrors.find("team/app", "up.example")
            assert isinstance(place, Place)
            found = await mirrors.mirror.manifest(place, "1")
            for digest, size in documents.read(found.manifest.body).blobs:
                stored = await mirrors.mirror.blob(place, digest)
                assert digest_of(b"".join([piece async for piece in stored.pieces(0, size)])) == digest
                stored.close()
            if tasks := list(mirrors.mirror._tasks):  # a blob is put in its place when its readers have it already
                await asyncio.wait(tasks)

    async def run(self, root: Path, tell: Tell) -> None:
        await self._pull(root)

    async def check(self, root: Path, told: list[str], *, ended: bool) -> None:
        storage = FileSystem(root / "sampan/mirror")
        for digest, _ in await storage.blobs():
            assert digest_of(await storage.read(paths.blob(digest))) == digest
        await self._pull(root)
        assert len(await storage.blobs()) == 3
        assert not os.listdir(root / "sampan/mirror/content/partial")


@pytest.mark.parametrize(("scenario", "at_least"), [(Pushes, 60), (Mounts, 40), (Collections, 25)])
def test_a_kill_at_each_step(tmp_path: Path, scenario: type[Pushes], at_least: int) -> None:
    assert instants_of(f"{__name__}:{scenario.__name__}", tmp_path) > at_least


@pytest.mark.slow
def test_a_kill_at_each_request_to_a_bucket(tmp_path: Path) -> None:
    pytest.importorskip("obstore", reason="pip install obstore")
    assert instants_of(f"{__name__}:Bucket", tmp_path) > 25


def test_a_kill_at_each_step_of_a_mirror(tmp_path: Path) -> None:
    upstream = FaultyRegistry()
    try:
        upstream.add("team/app", "1", CONFIG, [os.urandom(100_000)])
        assert instants_of(f"{__name__}:Fetches", tmp_path, upstream.host) > 25
    finally:
        upstream.close()
