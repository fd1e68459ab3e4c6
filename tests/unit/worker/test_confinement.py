"""Each job on a container's tree, run to its end with nothing left to import: the filter is on, only its capabilities are left."""

import gzip
import os
from pathlib import Path
from typing import Any

import pytest

from sampan.linux.capabilities import NUMBERS
from sampan.linux.prctl import capbset_read
from sampan.worker import confine
from sampan.worker.tree_jobs import JOBS
from tests.support.tars import pipe_of, tar
from tests.unit.worker.test_view import in_child, tree

__all__ = ["tree"]

pytestmark = pytest.mark.root

KEEPS = {
    "path_stat": confine.READ,
    "path_read": confine.READ,
    "path_write": confine.WRITE,
    "tree_export": confine.READ,
    "tree_changes": confine.COMPARE,
    "tree_diff": confine.COMPARE,
    "tree_pack": confine.READ,
    "volume_fill": confine.WRITE,
    "tree_chown": confine.WRITE,
}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_on_a_tree(tree: dict[str, Any], tmp_path: Path, name: str) -> None:
    (tmp_path / "upper/usr").mkdir()
    (tmp_path / "nowhere").mkdir()
    args = {
        "view": {**tree, "own": []},
        "path": "/",
        "user": "",
        "replace": True,
        "readonly": False,
        "mounts": [],
        "clamp": None,
        "begun": 0,
        "places": [{"path": "/usr", "only_directory": True}],
    }
    output = os.open(tmp_path / "output", os.O_RDWR | os.O_CREAT)
    fds = [output]
    if name == "path_write":
        fds = [pipe_of(gzip.compress(tar(("d", "d"), ("f", "d/f", "1"), ("p", "p")))), os.open(tmp_path / "nowhere", os.O_RDONLY)]
    if name in ("volume_fill", "tree_chown"):
        (tmp_path / "upper/usr/f").write_text("1")
        fds = [os.open(tmp_path / "nowhere", os.O_RDONLY)]
    if name == "tree_pack":
        fds = [os.open(tmp_path / "upper", os.O_RDONLY), output]
    other = os.getppid()

    def work() -> None:
        confine.compile_filter()
        assert confine._filters
        confine.forget_modules()
        JOBS[name](args, fds, lambda _: None)
        for capability, number in NUMBERS.items():
            if capability not in KEEPS[name]:
                assert not capbset_read(number), capability
        os.kill(other, 0)

    assert in_child(work) == 0
    for fd in fds:
        os.close(fd)
    if name == "volume_fill":
        assert (tmp_path / "nowhere/f").read_text() == "1"
    if name == "path_write":
        assert (tmp_path / "upper/d/f").read_text() == "1"
