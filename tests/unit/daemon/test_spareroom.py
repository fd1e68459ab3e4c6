"""The room that sampand needs to start on a full disk: it is had again, by and by."""

import asyncio
import os
from pathlib import Path

import pytest

from sampan.daemon import spareroom
from tests.support.disks import full, tmpfs

pytestmark = pytest.mark.root


def free(root: Path) -> int:
    room = os.statvfs(root)
    return room.f_bavail * room.f_frsize


def held(root: Path) -> int:
    return (root / spareroom.NAME).stat().st_size


def test_a_disk_that_is_full_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sampand is started on it, and runs on when it is not full any more; then it is full again, before another start."""
    monkeypatch.setattr(spareroom, "RETRY_SECONDS", 0.01)

    async def main(root: Path) -> None:
        with full(root):
            spareroom.use(root)
            assert free(root) >= spareroom.SPARE_BYTES
            (root / "log").write_bytes(bytes(1 << 20))
            spareroom.keep(root)
            assert 0 < held(root) < spareroom.SPARE_BYTES
        async with asyncio.timeout(30):
            while held(root) < spareroom.SPARE_BYTES:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        with full(root):
            spareroom.use(root)
            assert free(root) >= spareroom.SPARE_BYTES

    with tmpfs(tmp_path / "disk", "size=16m") as root:
        spareroom.keep(root)
        assert held(root) == spareroom.SPARE_BYTES
        spareroom.use(root)
        assert held(root) == spareroom.SPARE_BYTES, "there is enough"
        asyncio.run(main(root))


def test_two_starts_on_a_full_disk(tmp_path: Path) -> None:
    """Others fill what is left after the first."""
    with tmpfs(tmp_path / "disk", "size=16m") as root:
        assert spareroom.hold(root)
        with full(root):
            spareroom.use(root)
            (root / "log").write_bytes(bytes(1 << 20))
            for _ in range(2):  # it is tried again
                assert not spareroom.hold(root)
                assert held(root) > 0
                assert free(root) > 0
            (root / "more").write_bytes(bytes(free(root)))
            spareroom.use(root)
            assert free(root) > 1 << 20


def test_a_disk_that_has_no_inode_left_is_no_failure(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "disk", "size=1m,nr_inodes=1") as root:
        assert not spareroom.hold(root)
        assert not (root / spareroom.NAME).exists()
