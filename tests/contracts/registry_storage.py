"""What every storage of the registry does. A test module makes the fixture `place`: a fresh directory's worth of one."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sampan.registry import paths
from sampan.registry.storage import Missing, Storage
from tests.support.registryserver import digest_of

BLOB = bytes(range(256)) * 1000
DIGEST = digest_of(BLOB)


class Place(NamedTuple):
    """A storage under test, and how to make it again on the same data. spool: where files to ingest lie."""

    make: Callable[[], Storage]
    spool: Path

    def run(self, body: Callable[[Storage], Coroutine[Any, Any, None]]) -> None:
        """Run body with it."""

        async def whole() -> None:
            await asyncio.wait_for(body(self.make()), 60)

        asyncio.run(whole())

    def file(self, content: bytes) -> Path:
        """A local file to be taken over."""
        path = self.spool / digest_of(content)[7:20]
        path.write_bytes(content)
        return path


async def whole_of(storage: Storage, key: str, start: int, length: int) -> bytes:
    stored = await storage.open(key)
    try:
        return b"".join([piece async for piece in stored.pieces(start, length)])
    finally:
        stored.close()


class StorageContract:
    """The tests."""

    def test_what_is_written_is_read_and_can_be_replaced(self, place: Place) -> None:
        async def body(storage: Storage) -> None:
            for content in (b"one", b"", b"another one"):
                await storage.write("sampan/a/b", content)
                assert await storage.read("sampan/a/b") == content
                assert (await storage.stat("sampan/a/b")).size == len(content)
            assert await place.make().read("sampan/a/b") == b"another one"

        place.run(body)

    @pytest.mark.parametrize("key", ["sampan/nothing", "sampan/a/b/below-a-file", "sampan/a"])
    def test_what_is_missing(self, place: Place, key: str) -> None:
        async def body(storage: Storage) -> None:
            await storage.write("sampan/a/b", b"x")
            with pytest.raises(Missing):
                await storage.open(key)
            await storage.remove(key + "/more")
            await storage.remove_all("sampan/nothing")
            assert await storage.names("sampan/nothing") == []
            assert await storage.read_all(["sampan/a/b", "sampan/c"]) == [b"x", None]
            if key != "sampan/a":
                for ask in (storage.read, storage.stat, storage.touch):
                    with pytest.raises(Missing):
                        await ask(key)
            assert await storage.read("sampan/a/b") == b"x"

        place.run(body)

    def test_a_file_is_taken_over(self, place: Place) -> None:
        async def body(storage: Storage) -> None:
            file = place.file(BLOB)
            await storage.ingest(file, paths.blob(DIGEST))
            assert not file.exists()
            assert await whole_of(storage, paths.blob(DIGEST), 0, len(BLOB)) == BLOB
            assert await whole_of(storage, paths.blob(DIGEST), 1000, 5000) == BLOB[1000:6000]
            assert [(digest, stat.size) for digest, stat in await storage.blobs()] == [(DIGEST, len(BLOB))]

        place.run(body)

    def test_what_is_open_can_be_removed(self, place: Place) -> None:
        async def body(storage: Storage) -> None:
            await storage.ingest(place.file(BLOB), paths.blob(DIGEST))
            stored = await storage.open(paths.blob(DIGEST))
            assert stored.size == len(BLOB)
            in_a_bucket = stored.file() is None
            await storage.remove(paths.blob(DIGEST))
            try:
                assert b"".join([piece async for piece in stored.pieces(0, len(BLOB))]) == BLOB
            except OSError:  # what is read by ranges is gone with its name, and never shorter than it was said to be
                assert in_a_bucket
            stored.close()
            stored.close()

        place.run(body)

    def test_touch_makes_it_new(self, place: Place) -> None:
        async def body(storage: Storage) -> None:
            await storage.write("sampan/x", b"x")
            before = (await storage.stat("sampan/x")).modified
            while (await storage.stat("sampan/x")).modified <= before:
                await storage.touch("sampan/x")
            assert await storage.read("sampan/x") == b"x"

        place.run(body)

    def test_lists(self, place: Place) -> None:
        async def body(storage: Storage) -> None:
            for tag in ("b", "a", "v1.0"):
                await storage.write(paths.tag("team/app", tag), DIGEST.encode())
            await storage.write(paths.layer("team/app", DIGEST), DIGEST.encode())
            await storage.write(paths.revision("team/app/sub", digest_of(b"", "sha512")), b"")
            await storage.write(paths.revision("other", DIGEST), b"")
            assert [await storage.has_links(paths.layers(name)) for name in ("team/app", "team", "other")] == [True, False, False]
            assert await storage.has_links(paths.revisions("team/app/sub"))
            assert await storage.names(paths.tags("team/app")) == ["a", "b", "v1.0"]
            assert await storage.links(paths.layers("team/app")) == [DIGEST]
            assert await storage.links(paths.revisions("team/app/sub")) == [digest_of(b"", "sha512")]
            assert await storage.repositories() == ["other", "team/app", "team/app/sub"]
            await storage.remove_all(paths.repository("team/app/sub"))
            assert await storage.repositories() == ["other", "team/app"]
            await storage.remove_all(paths.tag_directory("team/app", "a"))
            await storage.remove(paths.layer("team/app", DIGEST))
            assert await storage.names(paths.tags("team/app")) == ["b", "v1.0"]
            assert await storage.links(paths.layers("team/app")) == []
            assert not await storage.has_links(paths.layers("team/app"))
            await storage.remove(paths.revision("other", DIGEST))
            assert await storage.repositories() == ["team/app"]

        place.run(body)

    def test_writing_beside_removal(self, place: Place) -> None:
        """The directories above a key come and go with others' removals."""

        async def body(storage: Storage) -> None:
            digests = [digest_of(bytes([number])) for number in range(40)]

            async def come_and_go(digest: str) -> None:
                for _ in range(5):
                    await storage.write(paths.layer("team/app", digest), digest.encode())
                    assert await storage.read(paths.layer("team/app", digest)) == digest.encode()
                    await storage.remove(paths.layer("team/app", digest))

            await asyncio.gather(*map(come_and_go, digests))
            assert await storage.repositories() == []

        place.run(body)
