"""The overlay driver keeps the snapshot contract on a real file system with real mounts."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import SystemFailure
from sampan.snapshot import treelimits
from sampan.snapshot.api import Snapshots
from sampan.snapshot.probe import probe_overlay
from sampan.snapshot.store import LayeredSnapshots
from sampan.state.database import Database
from sampan.worker.client import WorkerPool
from tests.contracts.snapshots import Driver, SnapshotsContract

pytestmark = pytest.mark.root


class TestOverlay(SnapshotsContract):
    @pytest.fixture
    def driver(self, root: Path) -> Iterator[Driver]:
        databases: list[Database] = []

        def make(workers: WorkerPool) -> Snapshots:
            for database in databases:
                database.close()
            databases.append(Database(root / "state.db"))
            return LayeredSnapshots(root, databases[-1], workers)

        yield Driver(make, root)
        for database in databases:
            database.close()

    def test_a_half_made_tree_is_made_again(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            snapshots.prepare("c", None)
            path = Path(snapshots.upper("c")).parent
            (path / "parent").unlink()
            snapshots.prepare("c", None)
            assert os.path.islink(path / "parent")

        driver.run(body)

    def test_what_is_not_named_as_a_tree_is_left_alone(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            snapshots.prepare("c", None)
            trees = Path(snapshots.upper("c")).parent.parent
            for name in ("*", "stray"):
                (trees / name / "upper").mkdir(parents=True)
            assert snapshots.repair(["c"]) == ["tree stray is of no container: repaired"]
            assert sorted(os.listdir(trees)) == ["*", "c"]
            assert snapshots.keys() == ["c"]
            (trees / "*/upper").rmdir()
            (trees / "*").rmdir()

        driver.run(body)

    def test_a_size_that_cannot_be_leaves_nothing(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            if not treelimits.problem(str(driver.root)):
                pytest.skip("there are project quotas here")
            with pytest.raises(SystemFailure, match="--storage-opt is supported only for overlay over xfs with 'pquota' mount option"):
                snapshots.prepare("c", None, 20 << 20)
            assert snapshots.keys() == snapshots.trash() == []

        driver.run(body)


def test_the_probe_passes_and_leaves_nothing(root: Path) -> None:
    probe_overlay(root)
    assert list(root.iterdir()) == []


def test_the_probe_says_what_is_wrong(root: Path) -> None:
    with pytest.raises(SystemFailure, match="overlayfs does not work in"):
        probe_overlay(Path("/proc/1"))
