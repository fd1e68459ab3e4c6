"""The erofs driver keeps the snapshot contract with real mounts: layers stacked by overlayfs, and folded into one index."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.snapshot.api import Snapshots
from sampan.snapshot.erofs import ErofsLayers
from sampan.snapshot.store import LayeredSnapshots
from sampan.state.database import Database
from sampan.worker.client import WorkerPool
from tests.contracts.snapshots import Driver, SnapshotsContract

pytestmark = pytest.mark.root


def drivers(root: Path, fold_above: int) -> Iterator[Driver]:
    """A driver that folds images of more layers than that."""
    databases: list[Database] = []

    def make(workers: WorkerPool) -> Snapshots:
        for database in databases:
            database.close()
        databases.append(Database(root / "state.db"))

        def more(empty: Path) -> list[ErofsLayers]:
            return [ErofsLayers(root / "erofs", empty, workers, fold_above=fold_above)]

        return LayeredSnapshots(root, databases[-1], workers, driver="erofs", more=more)

    yield Driver(make, root)
    for database in databases:
        database.close()


class TestErofs(SnapshotsContract):
    @pytest.fixture
    def driver(self, root: Path) -> Iterator[Driver]:
        yield from drivers(root, 40)


class TestFolded(SnapshotsContract):
    @pytest.fixture
    def driver(self, root: Path) -> Iterator[Driver]:
        yield from drivers(root, 0)
