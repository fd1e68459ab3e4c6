"""fork_into: a child that is born in a cgroup, and that the interpreter and the C library take for an ordinary fork."""

import ctypes
import errno
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.linux import clone
from sampan.runtime import cgroups
from sampan.runtime.supervisor import server


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


def test_an_exec_is_born_where_the_init_is_if_the_containers_own_cgroup_takes_none(
    cgroup: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So cgroup v2 has it of one with controllers on below it."""
    root = cgroups.host_layout().unified
    own = os.open(f"{root}/{cgroup[0]}", os.O_RDONLY | os.O_DIRECTORY)
    place = Path(root, cgroup[0], "a")
    place.mkdir()
    real = clone.fork_into
    children = []

    def fork_into(fd: int) -> int:
        if os.path.samestat(os.fstat(fd), os.fstat(own)):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        pid = real(fd)
        if pid == 0:
            signal.pause()
            os._exit(0)
        children.append(pid)
        return pid

    monkeypatch.setattr(clone, "fork_into", fork_into)
    inner = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        target = os.pidfd_open(clone.fork_into(inner))
        pid, joined = server.fork_into(f"{root}/{cgroup[0]}", target)
        assert joined == f"{root}/{cgroup[0]}"
        assert f"0::/{cgroup[0]}/a" in Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        os.close(target)
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        os.close(inner)
        os.close(own)
        place.rmdir()
