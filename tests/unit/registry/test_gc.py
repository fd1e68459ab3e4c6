"""The collector: what goes and what stays, and that nothing goes while it is being pushed."""

import asyncio
import json
import os
import random
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.digest import Digest
from sampan.registry import documents, paths
from sampan.registry.errors import RegistryError
from sampan.registry.filesystem import FileSystem
from sampan.registry.gate import Gate
from sampan.registry.gc import Collector, Report, RepositoryReport
from sampan.registry.retention import Policy
from sampan.registry.storage import Storage
from sampan.registry.store import READ_AT_ONCE, Blobs, Manifests, digest_of
from sampan.registry.uploads import Uploads
from sampan.spec.oci_layout import INDEX, MANIFEST
from tests.support.buckets import bucket_at, s3_server
from tests.support.registryserver import descriptor, index_of, manifest_of

DAY = 86400.0
TICK = 0.02
"""Seconds: a grace shorter than can be set, longer than file systems' clocks take from one time to the next."""


class Store:
    """A store and its collector. Pushes are of now; `later` is how far the collector's clock is ahead."""

    def __init__(self, root: Path, *policies: Policy, grace: float = DAY, storage: Storage | None = None) -> None:
        self.storage, self.gate = storage or FileSystem(root), Gate()
        self.blobs, self.manifests = Blobs(self.storage, self.gate), Manifests(self.storage, self.gate)
        self.uploads = Uploads(root / paths.UPLOADS, lifetime=60)
        self.later = 0.0
        self.collector = Collector(self.storage, self.gate, self.manifests, policies=policies, grace=grace, now=self.now)

    def now(self) -> float:
        return time.time() + self.later

    async def push_blob(self, name: str, content: bytes) -> Digest:
        async def pieces() -> AsyncIterator[bytes]:
            yield content

        upload = await self.uploads.begin(name)
        await upload.write(pieces(), 0)
        digest = digest_of(content)
        await self.blobs.add(name, digest, await self.uploads.finish(upload, digest))
        await self.uploads.forget(upload)
        return digest

    async def put(self, name: str, body: bytes, *tags: str) -> Digest:
        await self.manifests.put(name, digest_of(body), tags, body, documents.read(body))
        return digest_of(body)

    async def push(self, name: str, layer: bytes, *tags: str, **more: object) -> Digest:
        for content in (b"{}", layer):
            await self.push_blob(name, content)
        return await self.put(name, manifest_of(b"{}", layer, **more), *tags)

    async def contents(self) -> set[str]:
        return {digest for digest, _ in await self.storage.blobs()}

    async def collect(self, *, dry_run: bool = False) -> Report:
        return await self.collector.collect(dry_run=dry_run)


@pytest.fixture(params=["files", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Storage]:
    if request.param == "files":
        yield FileSystem(tmp_path)
        return
    with s3_server() as endpoint:
        yield bucket_at(endpoint)()


def test_what_a_deleted_manifest_leaves_behind(tmp_path: Path, storage: Storage) -> None:
    async def whole() -> None:
        store = Store(tmp_path, storage=storage)
        kept = await store.push("team/app", b"kept layer", "kept")
        gone = await store.push("team/app", b"a layer that goes", "gone")
        await store.push("team/other", b"kept layer", "1")
        await store.manifests.delete("team/app", gone)
        assert (await store.collect()).bytes == 0  # within the grace
        store.later = 2 * DAY
        lost = len(b"a layer that goes") + len(manifest_of(b"{}", b"a layer that goes"))
        plan = await store.collect(dry_run=True)
        assert (plan.content, plan.bytes, plan.dry_run) == (2, lost, True)
        assert plan.repositories["team/app"].blobs == [digest_of(b"a layer that goes")]
        assert digest_of(b"a layer that goes") in await store.contents()
        report = await store.collect()
        assert (report.content, report.bytes) == (2, lost)
        assert await store.contents() == {kept, digest_of(b"{}"), digest_of(b"kept layer")}
        assert (await store.collect()).content == 0

    asyncio.run(whole())


def test_retention_untagged_and_empty_repositories(tmp_path: Path, storage: Storage) -> None:
    async def whole() -> None:
        store = Store(tmp_path, Policy(("ci/*",), keep=("latest",), max_age_days=7, untagged_days=1), storage=storage)
        moved = await store.push("ci/app", b"one", "latest")
        latest = await store.push("ci/app", b"two", "latest")
        await store.push("ci/app", b"three", "build-3")
        signature = await store.push("ci/app", b"signature", subject=descriptor(manifest_of(b"{}", b"two"), MANIFEST))
        index = index_of(manifest_of(b"{}", b"two"))
        await store.put("ci/app", index, "latest")
        await store.push("ci/old", b"four", "1")
        await store.push("prod/app", b"three", "build-3")
        store.later = 8 * DAY
        report = await store.collect()
        entry = report.repositories["ci/app"]
        assert entry.tags == ["build-3"]
        assert set(entry.manifests) == {moved, digest_of(manifest_of(b"{}", b"three"))}
        assert report.repositories["ci/old"].removed
        assert await store.storage.repositories() == ["ci/app", "prod/app"]
        assert not (tmp_path / paths.repository("ci/old")).exists()
        assert set(await store.manifests.revisions("ci/app")) == {latest, signature, digest_of(index)}
        assert digest_of(b"three") in await store.contents()
        assert digest_of(b"one") not in await store.contents()

    asyncio.run(whole())


def test_a_repository_of_docker_registry(tmp_path: Path) -> None:
    """It has no list of referrers, perhaps manifests of schema 1, and old uploads."""

    async def whole() -> None:
        store = Store(tmp_path)
        subject = await store.push("team/app", b"layer", "1")
        sbom = await store.push("team/app", b"sbom", subject=descriptor(manifest_of(b"{}", b"layer"), MANIFEST))
        await store.storage.remove_all(f"{paths.repository('team/app')}/_manifests/referrers")
        named = digest_of(b"layer of schema 1")
        old = json.dumps({"schemaVersion": 1, "name": "team/legacy", "fsLayers": [{"blobSum": named}, {"blobSum": named}]}).encode()
        await store.storage.write(paths.blob(digest_of(old)), old)
        await store.storage.write(paths.revision("team/legacy", digest_of(old)), digest_of(old).encode())
        for layer in (b"layer of schema 1", b"layer of nothing"):
            await store.push_blob("team/legacy", layer)
        os.makedirs(tmp_path / paths.repository("team/empty") / "_uploads/one")
        store.later = 2 * DAY
        for id, modified in (("old", time.time()), ("new", store.now())):
            for name in ("data", "startedat"):
                await store.storage.write(f"{paths.repository('team/app')}/_uploads/{id}/{name}", b"a part of a blob")
                os.utime(tmp_path / paths.repository("team/app") / "_uploads" / id / name, (modified, modified))
        plan = await store.collect(dry_run=True)
        report = await store.collect()
        for found in (plan, report):
            assert found.repositories["team/app"].uploads == ["old"]
            assert "team/app: upload old" in found.lines()
        assert await store.storage.names(f"{paths.repository('team/app')}/_uploads") == ["new"]
        assert report.repaired_referrers == 1
        assert [entry.digest for entry in (await store.manifests.referrers("team/app", subject))[0]] == [sbom]
        assert report.damaged == []
        assert {named, digest_of(old)} <= await store.contents()
        assert digest_of(b"layer of nothing") not in await store.contents()
        assert await store.storage.repositories() == ["team/app", "team/legacy"]

    asyncio.run(whole())


async def damage(store: Store, digest: Digest, body: bytes | None) -> None:
    await store.storage.remove(paths.blob(digest))
    if body is not None:
        await store.storage.write(paths.blob(digest), body)


@pytest.mark.parametrize("damaged", [None, b"", b"nonsense", manifest_of(b"{}", b"a layer of another digest")])
def test_a_damaged_manifest_keeps_what_was_there_when_it_was_noticed(tmp_path: Path, storage: Storage, damaged: bytes | None) -> None:
    """It may name any of this, and nothing that came later."""

    async def whole() -> None:
        store = Store(tmp_path, storage=storage)
        lost = await store.push("team/app", b"layer", "1")
        await store.push("team/app", b"other layer", "2")
        await damage(store, lost, damaged)
        store.later = 2 * DAY
        plan = await store.collect(dry_run=True)
        report = await store.collect()
        for found in (plan, report):
            assert (found.damaged, found.content) == ([f"team/app@{lost}"], 0)
            assert f"team/app@{lost} is damaged" in "".join(found.lines())
        later = await store.push("team/app", b"later layer", "3")
        for deleted in (later, await store.manifests.resolve("team/app", "2")):
            await store.manifests.delete("team/app", deleted)
        report = await store.collect()
        assert report.repositories["team/app"].blobs == [digest_of(b"later layer")]
        assert await store.contents() >= {digest_of(b"{}"), digest_of(b"layer"), digest_of(b"other layer")}
        await store.manifests.delete("team/app", lost)
        assert (await store.collect()).damaged == []
        assert await store.contents() == set()
        assert await store.storage.repositories() == []

    asyncio.run(whole())


def test_a_damaged_manifest_that_is_pushed_again(tmp_path: Path, storage: Storage) -> None:
    async def whole() -> None:
        store = Store(tmp_path, storage=storage)
        lost = await store.push("team/app", b"layer", "1")
        await store.push_blob("team/app", b"of nothing")
        await damage(store, lost, b"nonsense")
        store.later = 2 * DAY
        assert (await store.collect()).content == 0
        await store.push("team/app", b"layer", "1")
        assert (await store.collect()).repositories["team/app"].blobs == [digest_of(b"of nothing")]
        assert "damaged" not in await store.storage.names(f"{paths.repository('team/app')}/_manifests")

    asyncio.run(whole())


def test_a_damaged_index_keeps_the_images_it_may_name(tmp_path: Path, storage: Storage) -> None:
    """Nothing else says what they are there for; without a tag it goes itself, and they with it."""

    async def whole() -> None:
        store = Store(tmp_path, Policy(("*",), untagged_days=1), storage=storage)
        image = await store.push("team/app", b"layer")
        index = await store.put("team/app", index_of(manifest_of(b"{}", b"layer")), "1")
        await damage(store, index, b"nonsense")
        store.later = 2 * DAY
        assert (await store.collect()).repositories == {}
        later = await store.push("team/app", b"later layer")
        store.later = 4 * DAY
        assert (await store.collect()).repositories["team/app"].manifests == [later]
        await store.manifests.delete_tag("team/app", "1")
        assert set((await store.collect()).repositories["team/app"].manifests) == {index, image}
        await store.collect()
        assert await store.contents() == set()

    asyncio.run(whole())


def test_of_what_is_named_and_not_there_nothing_is_in_memory(tmp_path: Path) -> None:
    """Layers that lie elsewhere need not be pushed: a manifest may name tens of thousands."""

    async def whole() -> None:
        store = Store(tmp_path)
        elsewhere = [{**descriptor(bytes([number]), "x/y"), "urls": ["https://example"]} for number in range(100)]
        digest = await store.push("team/app", b"layer", "1", layers=[descriptor(b"layer", "x/y"), *elsewhere])
        plan = await store.collector._look("team/app", set())
        assert set(plan.references[digest].blobs) == {digest_of(b"{}"), digest_of(b"layer")}

    asyncio.run(whole())


def test_many_damaged_manifests_name_the_same(tmp_path: Path) -> None:
    """One that came after the others were noticed may name what came with it."""

    async def whole() -> None:
        store = Store(tmp_path, Policy(("*",), untagged_days=1))
        store.later = 2 * DAY
        for number in range(4):
            digest = await store.push("team/app", f"layer {number}".encode(), f"tag {number}")
            await damage(store, digest, b"nonsense")
            assert len((await store.collect()).damaged) == number + 1
        plan = await store.collector._look("team/app", set())
        assert len({id(references) for references in plan.references.values()}) == 1
        assert await store.contents() >= {digest_of(f"layer {number}".encode()) for number in range(4)}
        assert (await store.collect()).content == 0

    asyncio.run(whole())


def test_few_manifests_are_in_memory_at_once(tmp_path: Path) -> None:
    """Each may have 4 MiB, and a repository thousands."""

    class Counting(FileSystem):
        most = 0

        async def read_all(self, keys: Iterable[str]) -> list[bytes | None]:
            listed = list(keys)
            self.most = max(self.most, sum(key.startswith(paths.BLOBS) for key in listed))
            return await super().read_all(listed)

    async def whole() -> None:
        storage = Counting(tmp_path)
        store = Store(tmp_path, storage=storage)
        for number in range(2 * READ_AT_ONCE + 1):
            body = manifest_of(b"{}", annotations={"number": str(number)})
            await store.manifests.put("team/app", digest_of(body), (), body, documents.read(body), complete=False)
        await store.collect()
        assert 0 < storage.most <= READ_AT_ONCE

    asyncio.run(whole())


def test_pushes_mounts_deletes_and_collections_at_once(tmp_path: Path) -> None:
    """Hardly a grace, and the collector never rests: every manifest has all it names at every moment, and what is pushed is there."""

    async def whole() -> None:
        store = Store(tmp_path, Policy(("*",), untagged_days=0))
        store.collector._grace = TICK
        chance = random.Random(7)
        layers = [f"layer {number}".encode() for number in range(6)]
        pushed = collected = retried = 0
        running = True

        async def whole_of(name: str, digest: str) -> None:
            contents = documents.read((await store.manifests.get(name, digest)).body)
            for manifest in contents.manifests:
                await whole_of(name, manifest)
            for blob, size in contents.blobs:
                stored = await store.blobs.open(name, blob)
                assert stored.size == size
                assert b"".join([piece async for piece in stored.pieces(0, size)]) in (*layers, b"{}")
                stored.close()

        async def put_if_missing(name: str, image: bytes) -> None:
            try:
                if chance.random() < 0.3:
                    raise RegistryError("MANIFEST_UNKNOWN")
                await store.manifests.promise(name, digest_of(image))
            except RegistryError:
                await store.put(name, image)

        async def push_once(name: str, tag: str) -> None:
            nonlocal retried
            layer = chance.choice(layers)
            image = manifest_of(b"{}", layer)
            of_index = chance.random() < 0.4
            body = index_of(image) if of_index else image
            while True:
                for content in (b"{}", layer):
                    try:
                        if chance.random() < 0.3:
                            raise RegistryError("BLOB_UNKNOWN")
                        await store.blobs.promise(name, digest_of(content))
                    except RegistryError:
                        if not await store.blobs.mount(name, digest_of(content), chance.choice(["r0", "r1", "r2"])):
                            await store.push_blob(name, content)
                try:
                    if of_index:
                        await put_if_missing(name, image)
                    await store.put(name, body, tag)
                    if referred := chance.random() < 0.4:
                        await store.put(name, manifest_of(b"{}", layer, subject=descriptor(body, INDEX if of_index else MANIFEST)))
                except RegistryError as error:
                    if error.code != "MANIFEST_BLOB_UNKNOWN":
                        raise
                    retried += 1  # no grace: a client begins again
                    continue
                break
            assert await store.manifests.resolve(name, tag) == digest_of(body)
            await whole_of(name, digest_of(body))
            for referrer in (await store.manifests.referrers(name, digest_of(body)))[0]:
                await whole_of(name, referrer.digest)
                referred = False
            assert not referred  # if there is to be one, there is

        async def pusher(number: int) -> None:
            nonlocal pushed, running
            for _ in range(15):
                name = f"r{number % 3}"
                tag = f"t{number}"
                await push_once(name, tag)
                pushed += 1
                if chance.random() < 0.5:
                    await store.manifests.delete_tag(name, tag)

        async def collector() -> None:
            nonlocal collected
            while running:
                collected += (await store.collect()).content
                await asyncio.sleep(0)

        collecting = asyncio.create_task(collector())
        await asyncio.gather(*(pusher(number) for number in range(6)))
        running = False
        await collecting
        await asyncio.sleep(2 * TICK)
        await store.collect()
        assert (pushed, collected > 0) == (90, True)
        live = set()
        for name in await store.storage.repositories():
            for digest in await store.manifests.revisions(name):
                await whole_of(name, digest)
                live |= {digest, *documents.read((await store.manifests.get(name, digest)).body).named}
        assert await store.contents() == live

    asyncio.run(asyncio.wait_for(whole(), 60))


def test_with_a_grace_nobody_has_to_begin_again(tmp_path: Path) -> None:
    async def whole() -> None:
        store = Store(tmp_path)
        store.collector._grace = 5.0
        running = True

        async def collector() -> None:
            while running:
                await store.collect()
                await asyncio.sleep(0)

        collecting = asyncio.create_task(collector())
        for round in range(20):
            digest = await store.push("team/app", f"layer {round % 3}".encode(), "latest")
            await store.manifests.delete("team/app", digest)
        running = False
        await collecting

    asyncio.run(asyncio.wait_for(whole(), 60))


def test_content_that_is_pushed_again_after_the_look(tmp_path: Path) -> None:
    async def whole() -> None:
        store = Store(tmp_path)
        store.later = 2 * DAY

        class Interrupted(Collector):
            async def _take_away_content(self, *arguments: Any) -> None:
                await store.push("team/app", b"layer", "again")
                await super()._take_away_content(*arguments)

        gone = await store.push("team/app", b"layer", "1")
        await store.manifests.delete("team/app", gone)
        await Interrupted(store.storage, store.gate, store.manifests, now=store.now).collect()
        assert (await store.manifests.get("team/app", "again")).digest == gone
        assert await store.contents() == {gone, digest_of(b"layer"), digest_of(b"{}")}

    asyncio.run(whole())


def test_what_a_client_was_told_of_after_the_look(tmp_path: Path) -> None:
    async def whole() -> None:
        store = Store(tmp_path)
        store.later = 2 * DAY

        class Interrupted(Collector):
            async def _take_away(self, *arguments: Any) -> RepositoryReport:
                await store.blobs.promise("team/app", digest_of(b"layer"))
                assert await store.blobs.mount("team/second", digest_of(b"{}"), "team/app")
                return await super()._take_away(*arguments)

        for content in (b"layer", b"{}", b"never asked for"):
            await store.push_blob("team/app", content)
        report = await Interrupted(store.storage, store.gate, store.manifests, now=store.now).collect()
        assert report.repositories["team/app"].blobs == [digest_of(b"never asked for")]
        await store.put("team/second", manifest_of(b"{}"), "1")
        await store.put("team/app", manifest_of(b"{}", b"layer"), "1")

    asyncio.run(whole())


def test_untagged_manifests_have_the_grace_of_a_push(tmp_path: Path) -> None:
    """Those of an index come before it, without tags."""

    async def whole() -> None:
        store = Store(tmp_path, Policy(("*",), untagged_days=0))
        image = await store.push("team/app", b"layer")
        store.later = DAY / 2
        await store.collect()
        await store.put("team/app", index_of(manifest_of(b"{}", b"layer")), "1")
        other = await store.push("team/app", b"never named")
        store.later = 2 * DAY
        assert (await store.collect()).repositories["team/app"].manifests == [other]
        assert (await store.manifests.get("team/app", image)).digest == image

    asyncio.run(whole())


def test_a_manifest_that_a_client_was_told_of_after_the_look(tmp_path: Path) -> None:
    async def whole() -> None:
        store = Store(tmp_path, Policy(("*",), untagged_days=1))
        images = [await store.push("team/app", f"layer {number}".encode()) for number in range(3)]
        index = index_of(manifest_of(b"{}", b"layer 1"))
        await store.put("team/app", index)
        store.later = 2 * DAY

        class Interrupted(Collector):
            async def _take_away(self, *arguments: Any) -> RepositoryReport:
                await store.manifests.promise("team/app", images[0])
                await store.manifests.promise("team/app", digest_of(index))  # and so what it names
                return await super()._take_away(*arguments)

        report = await Interrupted(
            store.storage, store.gate, store.manifests, policies=[Policy(("*",), untagged_days=1)], now=store.now
        ).collect()
        assert report.repositories["team/app"].manifests == [images[2]]
        await store.put("team/app", index_of(manifest_of(b"{}", b"layer 0"), index), "1")
        assert await store.contents() >= {*images[:2], digest_of(b"layer 0"), digest_of(b"layer 1")}

    asyncio.run(whole())


def test_a_collector_that_is_cancelled_ends_its_step_before_others_come_in(tmp_path: Path) -> None:
    release, happened = threading.Event(), []

    async def whole() -> None:
        loop, removing = asyncio.get_running_loop(), asyncio.Event()

        class Slow(FileSystem):
            async def remove(self, key: str) -> None:
                def in_thread() -> None:
                    loop.call_soon_threadsafe(removing.set)
                    release.wait(20)
                    os.unlink(self._path(key))
                    happened.append("removed")

                await asyncio.to_thread(in_thread)

        store = Store(tmp_path)

        async def enter() -> None:
            async with store.gate.shared():
                happened.append("entered")

        await store.push_blob("team/app", b"to go")
        store.later = 2 * DAY
        collector = Collector(Slow(tmp_path), store.gate, store.manifests, now=store.now)
        collecting = asyncio.create_task(collector.collect())
        await removing.wait()
        collecting.cancel()
        entering, ended = asyncio.create_task(enter()), asyncio.create_task(collector.ended())
        for _ in range(100):  # turns of the loop: whoever may come in has come in
            await asyncio.sleep(0)
        assert not ended.done()
        release.set()
        await asyncio.wait([collecting, entering, ended])
        assert collecting.cancelled()

    asyncio.run(asyncio.wait_for(whole(), 20))
    assert happened == ["removed", "entered"]
