"""Limits of trees on a file system with project quotas that is played: whatever fails, and wherever a kill comes, no limit is left."""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from sampan.errors import SystemFailure
from sampan.linux import projectquota
from sampan.linux.projectquota import Project
from sampan.snapshot import treelimits
from sampan.snapshot.store import LayeredSnapshots
from sampan.state.database import Database
from sampan.worker.client import WorkerPool

REFUSAL = "--storage-opt is supported only for overlay over xfs with 'pquota' mount option"


class Killed(BaseException):
    """As by kill -9: nothing runs after it."""


class Disk:
    """What a file system knows of projects, by a directory's inode."""

    def __init__(self) -> None:
        self.projects: dict[int, Project] = {}
        self.limits: dict[int, int] = {}
        self.others: set[int] = set()
        """Projects with files that are not played here"""
        self.enforced: bool | OSError = True
        self.left: Callable[[], None] = lambda: None
        """Called before each change"""

    def is_enforced(self, fd: int) -> bool:
        if isinstance(self.enforced, OSError):
            raise self.enforced
        return self.enforced

    def project_of(self, fd: int) -> Project:
        return self.projects.get(os.fstat(fd).st_ino, Project(0, False))

    def set_project(self, fd: int, project: Project) -> None:
        self.left()
        self.projects[os.fstat(fd).st_ino] = project

    def is_used(self, fd: int, project: int) -> bool:
        return project in self.others or any(item.number == project for item in self.projects.values())

    def set_limit(self, fd: int, project: int, size: int) -> None:
        self.left()
        if size:
            self.limits[project] = size
        else:
            self.limits.pop(project, None)

    def fail_at(self, step: int, error: BaseException) -> None:
        """Raise error instead of making the change of this number."""
        steps = iter(range(step + 1))

        def left() -> None:
            if next(steps, None) == step:
                raise error

        self.left = left


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    found = Disk()
    for name in ("is_enforced", "project_of", "set_project", "is_used", "set_limit"):
        monkeypatch.setattr(projectquota, name, getattr(found, name))
    return found


@pytest.fixture
def snapshots(tmp_path: Path, disk: Disk) -> Iterator[LayeredSnapshots]:
    database = Database(tmp_path / "state.db")
    found = LayeredSnapshots(tmp_path, database, WorkerPool())
    yield found
    asyncio.run(found.close())
    database.close()


def inode(path: Path) -> int:
    return path.stat().st_ino


def test_a_tree_has_a_project_of_its_own_before_anything_is_in_it(snapshots: LayeredSnapshots, disk: Disk, tmp_path: Path) -> None:
    here: list[list[str]] = []
    disk.left = lambda: here.append(os.listdir(tmp_path / "overlay/c/one"))
    snapshots.prepare("one", None, 20 << 20)
    assert here == [[], []]
    disk.left = lambda: None
    snapshots.prepare("two", None, 1)
    first, second = (disk.projects[inode(tmp_path / "overlay/c" / key)] for key in ("one", "two"))
    assert first.is_inherited
    assert second.is_inherited
    assert second.number == first.number + 1
    assert 1 << 30 <= first.number < 1 << 31
    assert disk.limits == {first.number: 20 << 20, second.number: 1}


@pytest.mark.parametrize("size", [None, 0])
def test_no_limit_no_project(snapshots: LayeredSnapshots, disk: Disk, size: int | None) -> None:
    snapshots.prepare("one", None, size)
    assert (disk.projects, disk.limits) == ({}, {})


def test_a_limit_goes_with_its_tree_and_its_number_stays_taken_until_the_files_are_gone(
    snapshots: LayeredSnapshots, disk: Disk, tmp_path: Path
) -> None:
    snapshots.prepare("one", None, 5)
    (first,) = disk.limits
    snapshots.remove("one")
    assert disk.limits == {}
    snapshots.prepare("two", None, 5)
    assert list(disk.limits) == [first + 1]
    (trash,) = (tmp_path / "overlay/trash").iterdir()
    del disk.projects[inode(trash)]
    snapshots.prepare("three", None, 5)
    assert sorted(disk.limits) == [first, first + 1]


def test_projects_of_others_are_left_alone(snapshots: LayeredSnapshots, disk: Disk, tmp_path: Path) -> None:
    snapshots.prepare("one", None, 5)
    (first,) = disk.limits
    snapshots.remove("one")
    disk.others = {first + 1}
    snapshots.prepare("two", None, 5)
    assert list(disk.limits) == [first + 2]
    snapshots.prepare("three", None)
    disk.projects[inode(tmp_path / "overlay/c/three")] = Project(7, True)  # the data root's, inherited
    disk.limits[7] = 1 << 40
    snapshots.remove("three")
    assert disk.limits[7] == 1 << 40


def test_engines_on_one_file_system_have_other_numbers(snapshots: LayeredSnapshots, disk: Disk, tmp_path: Path) -> None:
    found = {treelimits._free(0, engine) // (1 << 20) for engine in range(64)}
    assert len(found) > 32


def test_trash_takes_trees_of_any_project(snapshots: LayeredSnapshots, disk: Disk, tmp_path: Path) -> None:
    """Else a tree could not be moved there: EXDEV."""
    trash = inode(tmp_path / "overlay/trash")
    disk.projects[trash] = Project(7, True)
    snapshots.prepare("one", None, 5)
    assert disk.projects[trash] == Project(7, False)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (False, "they are not enforced here"),
        (OSError(errno.ENOSYS, "no"), "there are no such quotas here"),
        (OSError(errno.EINVAL, "no"), "there are no such quotas here"),
        (OSError(errno.EPERM, "not permitted"), "the kernel does not tell of them: not permitted"),
    ],
)
@pytest.mark.parametrize("size", [0, 5])
def test_refused_where_there_are_none(
    snapshots: LayeredSnapshots, disk: Disk, tmp_path: Path, answer: bool | OSError, reason: str, size: int
) -> None:
    disk.enforced = answer
    with pytest.raises(SystemFailure) as raised:
        snapshots.prepare("one", None, size)
    assert raised.value.message.startswith(REFUSAL)
    assert raised.value.message.endswith(f": {reason}")
    assert snapshots.keys() == os.listdir(tmp_path / "overlay/trash") == []
    snapshots.prepare("one", None)


@pytest.mark.parametrize("step", range(2))
def test_what_fails_leaves_nothing(snapshots: LayeredSnapshots, disk: Disk, step: int) -> None:
    disk.fail_at(step, OSError(errno.EDQUOT, "Disk quota exceeded"))
    with pytest.raises(SystemFailure, match=r"^cannot limit the size of the container's tree: disk quota exceeded$"):
        snapshots.prepare("one", None, 5)
    assert snapshots.keys() == []
    assert disk.limits == {}


def test_a_tree_that_its_limit_has_no_room_for_leaves_nothing(
    snapshots: LayeredSnapshots, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def full(path: str, mode: int = 0o777) -> None:
        if str(path).endswith("/work"):
            raise OSError(errno.EDQUOT, "Disk quota exceeded", path)
        mkdir(path, mode)

    monkeypatch.setattr(os, "mkdir", full)
    with pytest.raises(SystemFailure, match=r"^cannot make the container's directory: disk quota exceeded$"):
        snapshots.prepare("one", None, 5)
    assert snapshots.keys() == []
    assert disk.limits == {}


@pytest.mark.parametrize("removing", [False, True])
@pytest.mark.parametrize("step", range(5))
def test_a_kill_between_leaves_no_limit(
    snapshots: LayeredSnapshots, disk: Disk, monkeypatch: pytest.MonkeyPatch, step: int, removing: bool
) -> None:
    """Steps: project, limit, upper, work, parent; of a removal: limit, rename."""
    if removing:
        snapshots.prepare("one", None, 5)
    with monkeypatch.context() as patch:
        steps = iter(range(step + 1))

        def killing(act: Callable[..., object]) -> Callable[..., object]:
            def acted(*arguments: object, **more: object) -> object:
                if next(steps, None) == step:
                    raise Killed
                return act(*arguments, **more)

            return acted

        patch.setattr(projectquota, "set_project", killing(disk.set_project))
        patch.setattr(projectquota, "set_limit", killing(disk.set_limit))
        for module, name in ((os, "mkdir"), (os, "symlink"), (Path, "rename")):
            patch.setattr(module, name, killing(getattr(module, name)))
        with suppress(Killed):
            snapshots.remove("one") if removing else snapshots.prepare("one", None, 5)
    snapshots.repair([])
    assert snapshots.keys() == []
    assert disk.limits == {}


def test_a_limit_that_does_not_count_is_found(snapshots: LayeredSnapshots, disk: Disk) -> None:
    snapshots.prepare("one", None, 5)
    snapshots.prepare("two", None)
    assert snapshots.repair(["one", "two"]) == []
    disk.enforced = False
    assert snapshots.repair(["one", "two"]) == [
        "container one is not limited in size any more: project quotas are not enforced: mount the data root's file system with prjquota"
    ]


def test_a_limit_that_stays_is_told_of(snapshots: LayeredSnapshots, disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    snapshots.prepare("one", None, 5)
    disk.fail_at(0, OSError(errno.EIO, "Input/output error"))
    (project,) = disk.limits
    snapshots.remove("one")
    disk.projects.clear()
    snapshots.prepare("two", None, 6)
    assert disk.limits == {project: 6}
    assert snapshots.keys() == ["two"]
    assert caplog.messages == ["the limit of one's size stays: Input/output error"]
