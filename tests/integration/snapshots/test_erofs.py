"""The erofs driver keeps the snapshot contract with real mounts: layers stacked by overlayfs, and folded into one index."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import pytest

from sampan.archive import layerfile
from sampan.errors import SystemFailure
from sampan.linux.erofs import mount_erofs
from sampan.snapshot import erofs
from sampan.snapshot.api import Snapshots
from sampan.snapshot.erofs import ErofsLayers
from sampan.snapshot.store import LayeredSnapshots
from sampan.state.database import Database
from sampan.worker.client import WorkerPool
from tests.contracts.snapshots import Driver, SnapshotsContract, mounted, put
from tests.support.tars import tar

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

    def test_the_mount_used_longest_ago_is_let_go(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        made: list[str] = []

        def mount(file: str, devices: Sequence[str]) -> int:
            made.append(Path(file).name)
            return mount_erofs(file, devices)

        async def body(snapshots: Snapshots) -> None:
            names = [await put(snapshots, tar(("f", "name", letter))) for letter in "abc"]
            a, b, c = (Path(snapshots.layer_details(name).data["UpperDir"]).name for name in names)
            snapshots.prepare("on-b", names[1])
            async with mounted(snapshots, "on-b", driver.root / "m") as path:
                for pick in (0, 1, 0, 2, 0, 2):
                    (await snapshots.view(names[pick])).close()
                assert made == [b, a, c]
                (await snapshots.view(names[1])).close()
                assert made == [b, a, c, b], "it had to go"
                assert (path / "name").read_text() == "b", "what stands on it does not mind"

        monkeypatch.setattr(erofs, "_MOUNTS_MAX", 2)
        monkeypatch.setattr(erofs, "mount_erofs", mount)
        driver.run(body)

    def test_a_layer_files_page_cache_is_given_back_after_its_first_mount(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        cooled: SimpleQueue[str] = SimpleQueue()

        def cool(layer: int) -> None:
            layerfile.cool(layer)
            cooled.put(os.readlink(f"/proc/self/fd/{layer}"))

        async def body(snapshots: Snapshots) -> None:
            files = []
            for letter in "ab":
                name = await put(snapshots, tar(("f", "name", letter)))
                files.append(snapshots.layer_details(name).data["UpperDir"])
                for _ in range(2):
                    (await snapshots.view(name)).close()
            found = [await asyncio.to_thread(cooled.get, timeout=30) for _ in files]
            assert sorted(found) == sorted(files)

        monkeypatch.setattr(erofs, "_SETTLE_SECONDS", 0.2)
        monkeypatch.setattr(erofs, "layerfile", SimpleNamespace(**{**vars(layerfile), "cool": cool}))
        driver.run(body)


class TestFolded(SnapshotsContract):
    @pytest.fixture
    def driver(self, root: Path) -> Iterator[Driver]:
        yield from drivers(root, 0)

    def test_what_cannot_be_folded_is_stacked(self, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
        folds: list[str] = []

        async def run(self: WorkerPool, job: str, *_: object) -> dict[str, object]:
            folds.append(job)
            raise SystemFailure("no memory")

        async def body(snapshots: Snapshots) -> None:
            low = await put(snapshots, tar(("f", "a", "1"), ("f", "b", "1")))
            top = await put(snapshots, tar(("f", "a", "2"), ("f", ".wh.b")), low)
            snapshots.prepare("c", top)
            monkeypatch.setattr(WorkerPool, "run", run)
            for _ in range(2):
                async with mounted(snapshots, "c", driver.root / "m") as path:
                    assert (path / "a").read_text() == "2"
                    assert not (path / "b").exists()
            assert folds == ["fold"]
            assert not list((driver.root / "erofs/f").iterdir())

        driver.run(body)

    @pytest.mark.parametrize("former", ["{top}", "{top}.00000000", "{top}.00000000.new"])
    def test_an_index_of_another_version_is_not_used(self, driver: Driver, former: str) -> None:
        found: list[Path] = []

        async def first(snapshots: Snapshots) -> None:
            name = await put(snapshots, tar(("f", "a", "1")))
            (await snapshots.view(name)).close()
            found.extend((driver.root / "erofs/f").iterdir())

        driver.run(first)
        (index,) = found
        old = index.with_name(former.format(top=index.name.partition(".")[0]))
        index.rename(old)
        os.truncate(old, 0)

        async def second(snapshots: Snapshots) -> None:
            (layer,) = snapshots.layers()
            (await snapshots.view(layer.name)).close()
            assert list((driver.root / "erofs/f").iterdir()) == [index]
            assert await snapshots.disk_usage(layer.name) > index.stat().st_blocks * 512 > 0
            snapshots.remove_layer(layer.name)
            assert not list((driver.root / "erofs/f").iterdir())

        driver.run(second)
