"""The room that sampand holds on the data root's disk, so that it starts on a full one."""

from pathlib import Path

import pytest

from sampan.daemon import spareroom
from tests.support import disks

pytestmark = pytest.mark.root


def test_it_is_let_go_of_where_there_is_no_more_than_that(tmp_path: Path) -> None:
    with disks.tmpfs(tmp_path / "disk", f"size={spareroom.SPARE_BYTES + (64 << 10)}") as disk:
        spareroom.hold(disk)
        assert (disk / spareroom.NAME).stat().st_blocks * 512 == spareroom.SPARE_BYTES
        spareroom.use(disk)
        assert not (disk / spareroom.NAME).exists()
        spareroom.use(disk)  # there is enough now, and nothing to let go of


@pytest.mark.parametrize(("options", "left"), [("size=1m", 0), ("size=1m,nr_inodes=1", None)])
def test_a_disk_that_does_not_have_it_is_no_failure(tmp_path: Path, options: str, left: int | None) -> None:
    with disks.tmpfs(tmp_path / "disk", options) as disk:
        spareroom.hold(disk)
        file = disk / spareroom.NAME
        assert (file.stat().st_blocks if file.exists() else None) == left
