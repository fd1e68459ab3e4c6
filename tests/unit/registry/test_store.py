"""Repositories: changes that meet each other."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from sampan.registry import documents, paths
from sampan.registry.errors import RegistryError
from sampan.registry.filesystem import FileSystem
from sampan.registry.gate import STEP, Gate
from sampan.registry.storage import Missing
from sampan.registry.store import Blobs, Manifests, digest_of
from sampan.spec.oci_layout import MANIFEST
from tests.support.disks import files_up_to
from tests.support.registryserver import EMPTY, descriptor, manifest_of

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


class CountingGate(Gate):
    """exclusive() begins a new count. storage: told of every key that is read or removed."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[int] = []

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        async with super().exclusive():
            self.counts.append(0)
            yield


class Counted(FileSystem):
    def __init__(self, root: Path, gate: CountingGate) -> None:
        super().__init__(root)
        self._gate = gate

    def _count(self, keys: int) -> None:
        if self._gate._alone:
            self._gate.counts[-1] += keys

    async def read_all(self, keys: Iterable[str]) -> list[bytes | None]:
        listed = list(keys)
        self._count(len(listed))
        return await super().read_all(listed)

    async def remove_all(self, key: str) -> None:
        self._count(1)
        await super().remove_all(key)


def test_a_deletion_keeps_nobody_waiting_for_all_tags(tmp_path: Path) -> None:
    async def whole() -> None:
        gate = CountingGate()
        storage = Counted(tmp_path, gate)
        manifests = Manifests(storage, gate)
        await manifests.put(NAME, DIGEST, ("first",), BODY, documents.read(BODY), complete=False)
        for number in range(300):
            for tag, digest in ((f"mine{number}", DIGEST), (f"other{number}", digest_of(b"another"))):
                link = tmp_path / paths.tag(NAME, tag)
                link.parent.mkdir(parents=True)
                link.write_text(digest)
        gone = await manifests.delete(NAME, DIGEST)
        assert (len(gone), len(set(gone))) == (301, 301)
        assert await storage.names(paths.tags(NAME)) == sorted(f"other{number}" for number in range(300))
        assert 0 < max(gate.counts) <= 2 * STEP

    asyncio.run(asyncio.wait_for(whole(), 30))


def test_a_full_disk_takes_no_part_of_a_manifest(tmp_path: Path) -> None:
    async def whole() -> None:
        storage = FileSystem(tmp_path)
        with files_up_to(300_000), pytest.raises(OSError, match="File too large"):
            await storage.write("docker/registry/v2/large", b"x" * 400_000)
        with pytest.raises(Missing):
            await storage.read("docker/registry/v2/large")

    asyncio.run(whole())


@pytest.mark.parametrize("change", ["put", "delete", "add", "mount"])
def test_a_change_that_is_cancelled_ends_before_the_collector_comes_in(tmp_path: Path, change: str) -> None:
    """Else it would take away what a link that is being written is about to need."""
    release, happened = threading.Event(), []

    async def whole() -> None:
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        class Slow(FileSystem):
            def _wait(self) -> None:
                loop.call_soon_threadsafe(begun.set)
                release.wait(20)
                happened.append("changed")

            async def write(self, key: str, content: bytes) -> None:
                await asyncio.to_thread(self._wait)

            async def remove_all(self, key: str) -> None:
                await asyncio.to_thread(self._wait)

        gate = Gate()
        usual = FileSystem(tmp_path)
        await Manifests(usual, gate).put(NAME, DIGEST, ("first",), BODY, documents.read(BODY), complete=False)
        (tmp_path / "came").write_bytes(EMPTY)
        await Blobs(usual, gate).add(NAME, digest_of(EMPTY), tmp_path / "came")
        (tmp_path / "came").write_bytes(EMPTY)
        blobs, manifests = Blobs(Slow(tmp_path), gate), Manifests(Slow(tmp_path), gate)
        changes: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "put": lambda: manifests.put(NAME, DIGEST, ("second",), BODY, documents.read(BODY)),
            "delete": lambda: manifests.delete(NAME, DIGEST),
            "add": lambda: blobs.add(NAME, digest_of(EMPTY), tmp_path / "came"),
            "mount": lambda: blobs.mount("team/other", digest_of(EMPTY), NAME),
        }
        changing = asyncio.create_task(changes[change]())

        async def collect() -> None:
            async with gate.exclusive():
                happened.append("collected")

        await begun.wait()
        changing.cancel()
        collecting = asyncio.create_task(collect())
        for _ in range(100):  # turns of the loop: whoever may come in has come in
            await asyncio.sleep(0)
        release.set()
        await asyncio.wait([changing, collecting])
        assert changing.cancelled()

    asyncio.run(asyncio.wait_for(whole(), 20))
    assert happened[0] == "changed"
    assert happened[-1] == "collected"


@pytest.mark.parametrize("content", [None, b"damaged", b'{"schemaVersion": 1}'])
def test_what_cannot_be_read_can_be_deleted(tmp_path: Path, content: bytes | None) -> None:
    async def whole() -> None:
        gate = Gate()
        storage = FileSystem(tmp_path)
        manifests = Manifests(storage, gate)
        await manifests.put(NAME, DIGEST, ("first",), BODY, documents.read(BODY), complete=False)
        place = tmp_path / paths.blob(DIGEST)
        place.unlink(missing_ok=True)
        if content is not None:
            place.write_bytes(content)
        assert await manifests.delete(NAME, DIGEST) == ["first"]
        with pytest.raises(RegistryError):
            await manifests.resolve(NAME, DIGEST)

    asyncio.run(whole())


@pytest.mark.parametrize("link", [b"", b"nonsense", b"\xff", b"sha256:x", digest_of(b"not here").encode()])
def test_a_tag_that_means_nothing_can_be_deleted(tmp_path: Path, link: bytes) -> None:
    async def whole() -> None:
        storage = FileSystem(tmp_path)
        manifests = Manifests(storage, Gate())
        await manifests.put(NAME, DIGEST, ("first", "damaged"), BODY, documents.read(BODY), complete=False)
        await storage.write(paths.tag(NAME, "damaged"), link)
        with pytest.raises(RegistryError) as raised:
            await manifests.get(NAME, "damaged")
        assert raised.value.code == "MANIFEST_UNKNOWN"
        await manifests.delete_tag(NAME, "damaged")
        assert await manifests.tags(NAME) == ["first"]
        with pytest.raises(RegistryError):
            await manifests.delete_tag(NAME, "damaged")
        assert await manifests.delete(NAME, DIGEST) == ["first"]

    asyncio.run(whole())


@pytest.mark.parametrize("content", [None, b"damaged"])
def test_a_damaged_referrer_does_not_hide_the_others(tmp_path: Path, content: bytes | None) -> None:
    async def whole() -> None:
        storage = FileSystem(tmp_path)
        manifests = Manifests(storage, Gate())
        bodies = [manifest_of(EMPTY, subject=descriptor(BODY, MANIFEST), annotations={"number": str(number)}) for number in range(2)]
        for body in bodies:
            await manifests.put(NAME, digest_of(body), (), body, documents.read(body), complete=False)
        await storage.remove(paths.blob(digest_of(bodies[0])))
        if content is not None:
            await storage.write(paths.blob(digest_of(bodies[0])), content)
        found, _ = await manifests.referrers(NAME, DIGEST)
        assert [entry.digest for entry in found] == [digest_of(bodies[1])]

    asyncio.run(whole())


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
