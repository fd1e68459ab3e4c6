"""Partial blobs never fill a disk."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.content import partial
from sampan.content.partial import PartialBlobs
from sampan.errors import InvalidArgument, SystemFailure

A, B, C = ("sha256:" + letter * 64 for letter in "abc")


@pytest.fixture
def blobs(tmp_path: Path) -> Iterator[PartialBlobs]:
    return PartialBlobs(tmp_path)


def test_what_cannot_fit_is_refused_before_its_first_byte(blobs: PartialBlobs, tmp_path: Path) -> None:
    with pytest.raises(SystemFailure, match="no space left on device"):
        blobs.open(A, 10**15)
    assert os.listdir(tmp_path / "content/partial") == []


def test_a_false_promise_drops_nothing(blobs: PartialBlobs, tmp_path: Path) -> None:
    left = blobs.open(B, 5000)
    left.append(bytes(4000))
    left.close()
    with pytest.raises(SystemFailure, match="no space left on device"):
        blobs.open(A, 1 << 62)
    assert os.listdir(tmp_path / "content/partial") == [B[7:]]


def test_a_promise_keeps_little_of_the_disk(blobs: PartialBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat = os.statvfs(tmp_path)
    most = stat.f_bavail * stat.f_frsize * 6 // 10
    first = blobs.open(A, most)
    blobs.open(B, most).close()
    monkeypatch.setattr(partial, "AHEAD_BYTES", most)
    with pytest.raises(SystemFailure, match="no space left on device"):
        blobs.open(B, most)
    first.close()
    blobs.open(B, most).close()


def test_all_of_an_image_must_fit(blobs: PartialBlobs, tmp_path: Path) -> None:
    stat = os.statvfs(tmp_path)
    most = stat.f_bavail * stat.f_frsize * 6 // 10
    blobs.check({A: most})
    with pytest.raises(SystemFailure, match="no space left on device"):
        blobs.check({A: most, B: most})


def test_a_smaller_promise_does_not_cut_what_has_come(blobs: PartialBlobs, tmp_path: Path) -> None:
    left = blobs.open(A, 5000)
    left.append(bytes(4000))
    left.close()

    async def scenario() -> None:
        lying = blobs.open(A, 10)
        await lying.load()
        assert lying.size == 0
        lying.append(bytes(10))
        with pytest.raises(InvalidArgument):
            lying.finish()
        lying.spoil()
        lying.close()

    asyncio.run(scenario())
    assert os.listdir(tmp_path / "content/partial") == [A[7:]]
    assert os.stat(tmp_path / "content/partial" / A[7:]).st_size == 4000


def test_what_a_killed_engine_left_alone_goes(blobs: PartialBlobs, tmp_path: Path) -> None:
    blobs.open(A, 10, alone=True).append(b"x")
    assert len(os.listdir(tmp_path / "content/partial")) == 1
    PartialBlobs(tmp_path)
    assert os.listdir(tmp_path / "content/partial") == []


def test_a_disk_that_fills_up_meanwhile(blobs: PartialBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = blobs.open(A, 200 << 20)
    blob.append(bytes(1000))
    real = os.fstatvfs(blob.fd)
    full = os.statvfs_result((*real[:3], 0, 0, *real[5:]))
    monkeypatch.setattr(os, "fstatvfs", lambda _fd: full)
    with pytest.raises(SystemFailure, match="no space left on device"):
        blob.append(bytes(64 << 20))
    blob.close()
    assert os.listdir(tmp_path / "content/partial") == []


def test_what_nobody_fetches_gives_way(blobs: PartialBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, digest in enumerate((A, B)):
        blob = blobs.open(digest, 5000)
        blob.append(bytes(4000))
        blob.close()
        os.utime(tmp_path / "content/partial" / digest[7:], (number, number))
    assert len(os.listdir(tmp_path / "content/partial")) == 2
    stat = os.statvfs(tmp_path)
    monkeypatch.setattr(partial, "KEEP_PART", stat.f_blocks * stat.f_frsize // 9000)
    blob = blobs.open(C, 5000)
    blob.append(bytes(4000))
    blob.close()
    assert sorted(os.listdir(tmp_path / "content/partial")) == [B[7:], C[7:]], "the oldest has gone"
    kept = blobs.open(C, 5000)
    assert blobs.drop_idle() == 4000
    kept.close()
    assert os.listdir(tmp_path / "content/partial") == [C[7:]]


def test_no_digest_no_file(blobs: PartialBlobs) -> None:
    with pytest.raises(InvalidArgument):
        blobs.open("sha256:../../etc/passwd", 1)


def test_who_gets_nothing_keeps_nobody_from_a_blob(blobs: PartialBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "SLOW_SECONDS", 0.05)

    async def scenario() -> None:
        async with blobs.turn(A) as first:
            assert first
            held = blobs.open(A, 5000)
            held.append(bytes(100))
            async with blobs.turn(A) as second:
                assert not second
                mine = blobs.open(A, 5000, alone=True)
                mine.append(bytes(5000))
                assert (held.size, mine.size) == (100, 5000)
                mine.close()
            assert os.listdir(tmp_path / "content/partial") == [A[7:]]  # one's own is gone
            held.close()
        async with blobs.turn(A) as third:
            assert third

    asyncio.run(scenario())


def test_who_gets_something_has_all_the_time(blobs: PartialBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "SLOW_SECONDS", 0.05)
    monkeypatch.setattr(partial, "SLOW_BYTES", 1)

    async def scenario() -> None:
        async with blobs.turn(A):
            held = blobs.open(A, 1 << 20)

            async def wait() -> bool:
                async with blobs.turn(A) as ours:
                    return ours

            waiting = asyncio.create_task(wait())
            for _ in range(20):
                held.append(b"x")
                await asyncio.sleep(0.01)
            assert not waiting.done()
            held.close()
        assert await waiting

    asyncio.run(scenario())


def test_usage_does_not_mind_files_that_go(blobs: PartialBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blob = blobs.open(A, 5000)
    blob.append(bytes(4000))
    gone = tmp_path / "content/partial" / B[7:]
    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda _self: iter([blob.path, gone]))
        assert blobs.disk_usage() >= 4000
    blob.close()


def test_what_an_unfinished_pull_has_fetched_stays(blobs: PartialBlobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partial, "KEEP_PART", 1 << 60)
    with blobs.held([A]):
        for digest in (A, B):
            blob = blobs.open(digest, 5000)
            blob.append(bytes(4000))
            blob.close()
        assert os.listdir(tmp_path / "content/partial") == [A[7:]]
        assert blobs.drop_idle() == 4000  # but not where others have no room
    blob = blobs.open(A, 5000)
    blob.append(bytes(4000))
    blob.close()
    assert os.listdir(tmp_path / "content/partial") == []
