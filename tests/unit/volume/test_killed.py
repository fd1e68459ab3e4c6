"""A kill before any step of what is done to volumes: nothing that anybody put into one is lost, nothing half done is left."""

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

from sampan.clock import SystemClock
from sampan.errors import Conflict
from sampan.ids import ContainerId
from sampan.linux import libc
from sampan.state.containers import ContainerRepository, ContainerRow, ContainerState
from sampan.state.database import Database
from sampan.state.volumes import VolumeRepository
from sampan.volume import local as local_module
from sampan.volume.local import LocalVolumes
from sampan.volume.store import VolumeStore

CONTAINER = ContainerId("c" * 64)
OTHER = ContainerId("d" * 64)


class Engine(NamedTuple):
    """What of the engine has to do with volumes."""

    database: Database
    containers: ContainerRepository
    store: VolumeStore

    def add_container(self, container: ContainerId, *volumes: str) -> None:
        state = ContainerState()
        self.containers.insert(ContainerRow(container, container, 1, "", "", None, b"{}", b"{}", b"{}", b"[]", state), volumes)
        self.store.owned(volumes)

    def has(self, name: str) -> list[str] | None:
        """What is in a volume; None: there is no such volume."""
        return None if self.store.get(name) is None else sorted(os.listdir(self.store.local.path(name)))


def opened(root: Path) -> Engine:
    database = Database(root / "state.db")
    store = VolumeStore(VolumeRepository(database), LocalVolumes(root, cast("Any", None)), SystemClock())
    store.load()
    return Engine(database, ContainerRepository(database), store)


def copy_up(engine: Engine, name: str) -> None:
    with engine.store.local.staging(name) as fd:
        for number in range(3):
            os.close(os.open(f"image{number}", os.O_CREAT, 0o644, dir_fd=fd))
        os.fchmod(fd, 0o750)
    engine.store.local.finish_copy(name)


def create(engine: Engine) -> None:
    engine.store.create("new", options=None, labels={"a": "b"})


def container(engine: Engine) -> None:
    anonymous, _ = engine.store.create("", container=CONTAINER)
    engine.store.create("new", container=CONTAINER)
    engine.store.create("empty", container=CONTAINER)
    for name in (anonymous.name, "new", "empty"):
        copy_up(engine, name)
    engine.add_container(CONTAINER, anonymous.name, "new", "empty")


def fail(engine: Engine) -> None:
    engine.store.create("", container=CONTAINER)
    engine.store.create("new", container=CONTAINER)
    engine.store.create("mine", container=CONTAINER)
    copy_up(engine, "new")
    engine.store.abandon(CONTAINER)


def remove(engine: Engine) -> None:
    engine.store.remove("other")


def discard(engine: Engine) -> None:
    engine.containers.delete(OTHER, ["used", "shared"])
    engine.store.discarded(OTHER, ["used", "shared"])


class Killed(BaseException):
    """Unwinds nothing: the process ends where it is raised."""


def steps(number: int) -> None:
    """Have this process end before its step of this number: a system call that changes a directory, or a transaction."""
    left = number

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def step(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if not left:
                os._exit(9)
            return real(*args, **kwargs)

        return step

    for name in ("mkdir", "rmdir", "rename", "chmod", "fchmod", "fchown"):
        setattr(local_module.os, name, counted(getattr(os, name)))
    libc.rename_to_free = counted(libc.rename_to_free)
    Database.transaction = counted(Database.transaction)  # type: ignore[method-assign]


def run_until(root: Path, work: Callable[[Engine], None], number: int) -> bool:
    """Whether the work came to its end before the step."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            asyncio.set_event_loop(asyncio.new_event_loop())
            engine = opened(root)
            steps(number)
            work(engine)
            status = 0
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 0


def prepared(root: Path) -> Path:
    root.mkdir()
    engine = opened(root)
    for name in ("mine", "empty", "other"):
        engine.store.create(name)
    for name in ("used", "shared"):
        engine.store.create(name, container=OTHER)
    engine.add_container(OTHER, "used", "shared")
    engine.add_container(ContainerId("e" * 64), "shared")
    for name in ("mine", "other", "used", "shared"):
        Path(engine.store.local.path(name), "precious").touch()
    engine.database.close()
    return root


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory where nothing waits for a disk: it is processes that are killed here, not machines."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        yield Path(place)


IMAGE = ["image0", "image1", "image2"]


@pytest.mark.parametrize("work", [create, container, fail, remove, discard])
def test_a_kill_at_each_step(memory: Path, work: Callable[[Engine], None]) -> None:
    number = 0
    done = False
    while not done:
        number += 1
        root = prepared(memory / str(number))
        done = run_until(root, work, number)
        for _ in range(2):  # a start after the kill, and one more
            engine = opened(root)
            found = {row.name: row.status for row in engine.store}
            assert set(found.values()) == {"ready"}, number
            assert engine.store.local.strays(found) == []
            for name in found:
                assert set(os.listdir(os.path.dirname(engine.store.local.path(name)))) == {"_data"}, (number, name)
            known = {row.id for row in engine.containers.all()}
            assert engine.has("mine") == ["precious"]
            assert engine.has("shared") == ["precious"]
            assert engine.has("other") in ([["precious"], None] if work is remove else [["precious"]])
            assert engine.has("used") in ([["precious"]] if OTHER in known else [None])
            assert engine.has("empty") in ([[], IMAGE] if work is container else [[]])
            assert engine.has("new") in {"create": ([], None), "container": (IMAGE if CONTAINER in known else None,)}.get(
                work.__name__, [None]
            )
            assert len(found) - len({"mine", "empty", "other", "used", "shared", "new"} & set(found)) == (CONTAINER in known)
            engine.database.close()
    assert number > 3


def test_data_without_a_row_is_left_alone_and_taken_over(tmp_path: Path) -> None:
    stray = tmp_path / "volumes/lost/_data"
    stray.mkdir(parents=True)
    (stray / "precious").touch()
    (tmp_path / "volumes/hollow/_data").mkdir(parents=True)
    engine = opened(tmp_path)
    assert engine.store.local.strays([]) == ["lost"]
    assert engine.store.get("lost") is None
    engine.store.create("lost")
    assert engine.has("lost") == ["precious"]
    assert engine.store.local.strays({"lost"}) == []
    engine.database.close()


def test_a_link_is_not_taken_over(tmp_path: Path) -> None:
    engine = opened(tmp_path)
    (tmp_path / "volumes/one").symlink_to(tmp_path)
    (tmp_path / "volumes/two").mkdir()
    (tmp_path / "volumes/two/_data").symlink_to("/etc")
    for name in ("one", "two"):
        with pytest.raises(Conflict, match="is there, and no directory"):
            engine.store.create(name)
        assert engine.store.get(name) is None
    engine.database.close()


def test_a_lost_directory_is_made_again(tmp_path: Path) -> None:
    engine = opened(tmp_path)
    engine.store.create("data")
    engine.database.close()
    os.rmdir(tmp_path / "volumes/data/_data")
    os.rmdir(tmp_path / "volumes/data")
    engine = opened(tmp_path)
    assert engine.has("data") == []
    engine.database.close()
