"""Uploads: how many there may be, when they end, what a restart finds."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sampan.archive.room import Room
from sampan.registry.errors import RegistryError
from sampan.registry.store import digest_of
from sampan.registry.uploads import BATCH, Upload, Uploads
from tests.support.disks import files_up_to, tmpfs


async def pieces(*contents: bytes) -> AsyncIterator[bytes]:
    for content in contents:
        yield content


def code_of(caught: pytest.ExceptionInfo[RegistryError]) -> str:
    return caught.value.code


def test_not_more_than_so_many_at_once(tmp_path: Path) -> None:
    async def whole() -> None:
        uploads = Uploads(tmp_path, lifetime=60, at_once=2)
        first = await uploads.begin("a")
        await uploads.begin("a")
        with pytest.raises(RegistryError) as caught:
            await uploads.begin("a")
        assert (code_of(caught), caught.value.headers) == ("TOOMANYREQUESTS", {"Retry-After": "60"})
        await uploads.forget(first)
        await uploads.begin("a")

    asyncio.run(whole())


def test_one_user_does_not_take_all(tmp_path: Path) -> None:
    async def whole() -> None:
        uploads = Uploads(tmp_path, lifetime=60, at_once=3, each=2)
        for _ in range(2):
            await uploads.begin("a", owner="alice")
        uploads = Uploads(tmp_path, lifetime=60, at_once=3, each=2)  # they are hers after a restart, too
        with pytest.raises(RegistryError) as caught:
            await uploads.begin("a", owner="alice")
        assert (code_of(caught), caught.value.detail) == ("TOOMANYREQUESTS", "2 uploads of yours are under way")
        await uploads.begin("a", owner="bob")
        with pytest.raises(RegistryError) as caught:
            await uploads.begin("a", owner="carol")
        assert caught.value.detail == "3 uploads are under way"

    asyncio.run(whole())


@pytest.mark.root
def test_a_part_of_the_disk_is_kept_free(tmp_path: Path) -> None:
    size = 40 << 20

    async def many() -> AsyncIterator[bytes]:
        for _ in range(size >> 20):
            yield bytes(1 << 20)

    async def whole(directory: Path) -> None:
        uploads = Uploads(directory / "uploads", lifetime=60)
        upload = await uploads.begin("a")
        with pytest.raises(OSError, match="no space left") as caught:
            await upload.write(many(), 0)
        stat = os.statvfs(directory)
        assert (caught.value.errno, stat.f_bavail * stat.f_frsize >= size // 20) == (errno.ENOSPC, True)
        assert upload.file.stat().st_size == upload.size > size // 2  # and it can go on
        await uploads.begin("b")

    with tmpfs(tmp_path / "disk", f"size={size}") as directory:
        asyncio.run(whole(directory))


def test_the_idle_ones_expire(tmp_path: Path) -> None:
    async def whole() -> None:
        uploads = Uploads(tmp_path, lifetime=60)
        idle, used = await uploads.begin("a"), await uploads.begin("a")
        idle.used -= 61
        assert await uploads.expire() == 1
        assert [entry.name for entry in tmp_path.iterdir()] == [used.id]
        with pytest.raises(RegistryError) as caught:
            uploads.find("a", idle.id)
        assert code_of(caught) == "BLOB_UPLOAD_UNKNOWN"

    asyncio.run(whole())


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    async def whole() -> None:
        uploads = Uploads(tmp_path, lifetime=0)
        upload = await uploads.begin("a")
        arrived, go_on = asyncio.Event(), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"first "
            arrived.set()
            await go_on.wait()
            yield b"second"

        writing = asyncio.create_task(upload.write(slow(), 0))
        await arrived.wait()
        with pytest.raises(RegistryError) as caught:
            await upload.write(pieces(b"other"), 0)
        assert code_of(caught) == "BLOB_UPLOAD_INVALID"
        with pytest.raises(RegistryError):
            await uploads.finish(upload, digest_of(b"first "))
        upload.used -= 1
        assert await uploads.expire() == 0  # not while it is written
        go_on.set()
        await writing
        assert (await uploads.finish(upload, digest_of(b"first second"))).read_bytes() == b"first second"

    asyncio.run(whole())


def test_a_writer_that_is_cancelled_waits_for_its_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    appending, release = threading.Event(), threading.Event()
    append = Upload._append

    def slow(upload: Upload, fd: int, room: Room, waiting: list[bytes]) -> None:
        appending.set()
        release.wait(20)
        append(upload, fd, room, waiting)

    async def whole() -> None:
        upload = await Uploads(tmp_path, lifetime=60).begin("a")
        writing = asyncio.create_task(upload.write(pieces(*[b"x" * BATCH] * 3), 0))
        await asyncio.to_thread(appending.wait, 20)
        for _ in range(2):
            writing.cancel()
            for _ in range(100):  # turns of the loop
                await asyncio.sleep(0)
            assert not writing.done()
        release.set()
        await asyncio.wait([writing])
        assert writing.cancelled()
        assert upload.size == upload.file.stat().st_size > 0
        assert await upload.digest("sha256") == digest_of(b"x" * upload.size)

    monkeypatch.setattr(Upload, "_append", slow)
    asyncio.run(asyncio.wait_for(whole(), 20))


def test_large_bodies_in_many_pieces(tmp_path: Path) -> None:
    content = [bytes([number]) * 100_000 for number in range(50)]

    async def whole() -> None:
        uploads = Uploads(tmp_path, lifetime=60)
        upload = await uploads.begin("a", "sha512")
        await upload.write(pieces(*content), 0)
        assert upload.size == 5_000_000
        whole = b"".join(content)
        assert await upload.digest("sha512") == digest_of(whole, "sha512")
        assert await upload.digest("sha256") == digest_of(whole)

    asyncio.run(whole())


def test_a_restart_goes_on_and_drops_what_is_broken(tmp_path: Path) -> None:
    async def before() -> Upload:
        uploads = Uploads(tmp_path, lifetime=60)
        upload = await uploads.begin("team/app")
        await upload.write(pieces(b"01234"), 0)
        (await uploads.begin("team/app")).file.unlink()
        return upload

    async def after(id: str) -> None:
        uploads = Uploads(tmp_path, lifetime=60)
        assert len(uploads) == 1
        upload = uploads.find("team/app", id)
        assert upload.size == 5
        await upload.write(pieces(b"56789"), 0)
        await uploads.finish(upload, digest_of(b"0123456789"))

    asyncio.run(after(asyncio.run(before()).id))
    assert len(list(tmp_path.iterdir())) == 1


def test_the_limit_of_a_blob(tmp_path: Path) -> None:
    async def whole() -> None:
        upload = await Uploads(tmp_path, lifetime=60).begin("a")
        await upload.write(pieces(b"x" * 10), 10)
        with pytest.raises(RegistryError) as caught:
            await upload.write(pieces(b"y"), 10)
        assert (code_of(caught), upload.file.stat().st_size) == ("TOOLARGE", 10)

    asyncio.run(whole())


def test_what_a_full_disk_took_half_of_is_given_up(tmp_path: Path) -> None:
    first, second = b"a" * 200_000, b"b" * 200_000

    async def whole() -> None:
        uploads = Uploads(tmp_path, lifetime=60)
        upload = await uploads.begin("a")
        with files_up_to(300_000), pytest.raises(OSError, match="File too large"):
            await upload.write(pieces(first, second), 0)
        assert (upload.size, upload.file.stat().st_size) == (200_000, 200_000)
        await upload.write(pieces(second), 0)  # the client goes on from there
        file = await uploads.finish(upload, digest_of(first + second))
        assert file.read_bytes() == first + second

    asyncio.run(whole())


def test_a_file_that_is_not_what_was_counted_becomes_no_blob(tmp_path: Path) -> None:
    async def whole() -> None:
        uploads = Uploads(tmp_path, lifetime=60)
        upload = await uploads.begin("a")
        await upload.write(pieces(b"content"), 0)
        with upload.file.open("ab") as file:
            file.write(b"more")
        with pytest.raises(RegistryError) as caught:
            await uploads.finish(upload, digest_of(b"content"))
        assert (code_of(caught), len(uploads)) == ("BLOB_UPLOAD_INVALID", 0)

    asyncio.run(whole())
