"""fork_into: a child that is born in a cgroup, and that the interpreter and the C library take for an ordinary fork."""

import ctypes
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.linux import clone
from sampan.runtime import cgroups


@pytest.fixture
def cgroup() -> Iterator[tuple[str, int]]:
    """(name, descriptor) of an empty cgroup in the v2 hierarchy."""
    root = cgroups.host_layout().unified
    if not root:
        pytest.skip("this host has no cgroup v2 hierarchy")
    name = f"sampan-clone-{os.getpid()}"
    directory = Path(root, name)
    directory.mkdir()
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    yield name, fd
    os.close(fd)
    directory.rmdir()


def test_a_child_is_born_in_the_cgroup_and_is_whole(cgroup: tuple[str, int]) -> None:
    name, fd = cgroup
    read, write = os.pipe()
    pid = clone.fork_into(fd)
    if pid == 0:
        try:
            grandchild = os.fork()
            if grandchild == 0:
                os._exit(5)
            lines = Path("/proc/self/cgroup").read_text().splitlines()
            facts = {
                "cgroup": next(line[3:] for line in lines if line.startswith("0::")),
                "pid": os.getpid(),
                "tid": ctypes.CDLL(None).gettid(),
                "main": threading.main_thread() is threading.current_thread(),
                "grandchild": os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]),
            }
            os.write(write, json.dumps(facts).encode())
        finally:
            os._exit(3)
    os.close(write)
    try:
        with os.fdopen(read) as file:
            facts = json.loads(file.read())
    finally:
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 3
    assert facts == {"cgroup": facts["cgroup"], "pid": pid, "tid": pid, "main": True, "grandchild": 5}
    assert facts["cgroup"].endswith(name)


def test_what_is_no_cgroup_is_an_error(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match="clone3"):
            clone.fork_into(fd)
    finally:
        os.close(fd)
