"""What cannot be removed stays alone in the trash: all else goes, and a line says what stayed."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sampan.archive.trees import remove_tree
from sampan.snapshot.store import LayeredSnapshots
from sampan.state.database import Database
from sampan.worker.client import WorkerPool

pytestmark = pytest.mark.root


@pytest.fixture
def disk() -> Iterator[Path]:
    """A directory on a file system that has flags."""
    with tempfile.TemporaryDirectory(prefix="sampan-test-", dir="/var/tmp") as path:
        (Path(path) / "probe").touch()
        tried = subprocess.run(["chattr", "+i", f"{path}/probe"], capture_output=True, check=False)
        if tried.returncode:
            pytest.skip("no immutable files here")
        subprocess.run(["chattr", "-i", f"{path}/probe"], check=True)
        (Path(path) / "probe").unlink()
        yield Path(path)
        subprocess.run(["chattr", "-R", "-i", "-a", path], check=False)


def empty(trash: Path) -> dict[str, Any]:
    async def body() -> dict[str, Any]:
        workers = WorkerPool()
        fd = os.open(trash, os.O_RDONLY)
        try:
            return await workers.run("empty", {}, [fd])
        finally:
            os.close(fd)
            await workers.stop()

    return asyncio.run(body())


def crowd(trash: Path) -> None:
    for number in range(6):
        (trash / f"tree{number}/a/b").mkdir(parents=True)
        (trash / f"tree{number}/a/b/file").touch()


def test_flags_are_taken_off(disk: Path) -> None:
    crowd(disk)
    subprocess.run(["chattr", "+i", disk / "tree1/a/b/file"], check=True)
    subprocess.run(["chattr", "+i", disk / "tree2/a/b"], check=True)
    subprocess.run(["chattr", "+a", disk / "tree3/a"], check=True)
    subprocess.run(["chattr", "+i", disk / "tree4"], check=True)
    assert empty(disk) == {"removed": 6, "left": 0, "stuck": ""}
    assert os.listdir(disk) == []


def test_a_mount_keeps_its_own_tree_only(tmp_path: Path) -> None:
    crowd(tmp_path)
    place = tmp_path / "tree2/a/b"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", place], check=True)
    try:
        (tmp_path / "tree2/other/deep").mkdir(parents=True)
        result = empty(tmp_path)
        assert (result["removed"], result["left"]) == (5, 1)
        assert result["stuck"].startswith("1 trees stay in the trash: ")
        assert os.listdir(tmp_path) == ["tree2"]
        assert "other" not in os.listdir(tmp_path / "tree2")
    finally:
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if str(tmp_path) in line:
                subprocess.run(["umount", line.split()[4]], check=True)
    assert empty(tmp_path) == {"removed": 1, "left": 0, "stuck": ""}


def test_one_error_does_not_keep_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd(tmp_path)
    real = os.unlink

    def unlink(name: bytes, *, dir_fd: int) -> None:
        if name == b"file" and os.readlink(f"/proc/self/fd/{dir_fd}").endswith("tree0/stays"):
            raise PermissionError(1, "Operation not permitted")
        real(name, dir_fd=dir_fd)

    (tmp_path / "tree0/stays").mkdir()
    (tmp_path / "tree0/stays/file").touch()
    monkeypatch.setattr(os, "unlink", unlink)
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(PermissionError):
        remove_tree(fd, "tree0")
    assert [path.name for path in (tmp_path / "tree0").rglob("*")] == ["stays", "file"]
    monkeypatch.undo()
    remove_tree(fd, "tree0")
    assert not (tmp_path / "tree0").exists()
    os.close(fd)
    shutil.rmtree(tmp_path)


def test_what_stays_is_said_once(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    said = iter(["1 trees stay in the trash: x", "1 trees stay in the trash: x", "", "1 trees stay in the trash: x"])

    class Workers(WorkerPool):
        async def run(self, name: str, args: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
            return {"stuck": next(said)}

    async def body() -> None:
        database = Database(root / "state.db")
        store = LayeredSnapshots(root, database, Workers())
        (root / "overlay/trash/x").touch()
        for _ in range(4):
            await store.empty_trash()
        database.close()

    asyncio.run(body())
    assert [record.getMessage() for record in caplog.records] == ["1 trees stay in the trash: x"] * 2
