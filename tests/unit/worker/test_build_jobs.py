"""Each job of a build run to its end with nothing left to import: the filter is on, only its capabilities are left, no device opens."""

import os
from pathlib import Path
from typing import Any

import pytest

from sampan.linux.capabilities import NUMBERS
from sampan.linux.prctl import capbset_read
from sampan.worker import build_jobs, confine, view
from sampan.worker.build_jobs import JOBS
from sampan.worker.tree_jobs import Refused
from tests.support.builds import context
from tests.support.tars import pipe_of
from tests.unit.worker.test_view import in_child, open_device, tree

__all__ = ["tree"]

pytestmark = pytest.mark.root

KEEPS = {
    "context_in": confine.WRITE,
    "context_withhold": confine.WRITE,
    "context_out": confine.READ,
    "build_sources": confine.READ,
    "build_copy": confine.EXTRACT,
    "build_mkdir": confine.EXTRACT,
    "build_squash": confine.READ,
    "build_export": confine.READ,
    "build_fill": confine.WRITE,
}


@pytest.mark.parametrize("name", JOBS)
def test_a_job_of_a_build(tree: dict[str, Any], tmp_path: Path, name: str) -> None:
    for directory in ("context", "nowhere", "filled", "empty"):
        (tmp_path / directory).mkdir()
    (tmp_path / "context/f").write_text("1")
    fds = {
        "archive": pipe_of(context({"Dockerfile": "FROM x\n", "g": "2"})),
        "output": os.open(tmp_path / "output", os.O_RDWR | os.O_CREAT),
        "tree": os.open(tmp_path / "context", os.O_RDONLY),
        "sums": os.open(tmp_path / "sums", os.O_RDWR | os.O_CREAT),
        "nowhere": os.open(tmp_path / "nowhere", os.O_RDONLY),
        "filled": os.open(tmp_path / "filled", os.O_RDONLY),
    }
    image = {"lowers": [str(tmp_path / "lower"), str(tmp_path / "empty")]}
    args: dict[str, Any] = {
        "dockerfile": "Dockerfile", "names": ["f"], "source": {"tree": 2}, "sums": None, "patterns": ["f"], "wildcards": True,
        "view": {**tree, "own": []}, "destination": "/d/", "chown": "", "chmod": "", "exclude": [], "parents": False, "clamp": None,
        "groups": [{"source": {"tree": 2}, "sources": [["f", "f", False, "", "f"]], "unpack": True}],
        "old": image, "new": image, "path": "f", "directory": False, "own": True,
        **image,
    }  # fmt: skip
    order = {
        "context_in": ["archive", "tree", "sums", "nowhere"],
        "context_withhold": ["tree"],
        "context_out": ["output", "tree"],
        "build_sources": ["output", "nowhere", "tree"],
        "build_copy": ["output", "nowhere", "tree"],
        "build_mkdir": ["output"],
        "build_squash": ["output"],
        "build_export": ["output"],
        "build_fill": ["filled", "nowhere", "tree"],
    }[name]
    other = os.getppid()

    def work() -> None:
        confine.compile_filter()
        assert confine._filters
        confine.forget_modules()
        JOBS[name](args, [fds[one] for one in order])
        for capability, number in NUMBERS.items():
            if capability not in KEEPS[name]:
                assert not capbset_read(number), capability
        os.kill(other, 0)

    assert in_child(work) == 0
    for fd in fds.values():
        os.close(fd)
    if name == "build_copy":
        assert (tmp_path / "upper/d/f").read_text() == "1"


@pytest.mark.parametrize("name", ["/images", "/own"])
def test_no_device_opens_where_copies_go(tree: dict[str, Any], name: str) -> None:
    def work() -> None:
        confine.limit(confine.EXTRACT, view.enter_detached(tree, []))
        open_device(name)

    assert in_child(work) == 0


def test_one_archive_too_many_is_not_copied_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build_jobs, "_ARCHIVES_MAX", 2)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(context({"f": name}))
    tree = os.open(tmp_path, os.O_RDONLY)
    sources = [[name, name, False, "", name] for name in ("a", "b", "c")]
    args = {"groups": [{"source": {"tree": 2}, "sources": sources, "unpack": True}]}
    with pytest.raises(Refused, match="one ADD unpacks 2 archives at most"):
        JOBS["build_copy"](args, [-1, -1, tree])
    os.close(tree)
