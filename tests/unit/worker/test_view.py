"""A worker that looks into a container's tree opens no device there: the cgroup that keeps the container from it is not the worker's."""

import errno
import os
import signal
import stat
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.linux import libc, mounts
from sampan.linux.namespaces import CLONE_NEWNS
from sampan.worker import confine, view

pytestmark = pytest.mark.root


def in_child(work: Callable[[], None]) -> int:
    """Run work in a forked child; 0: it raised PermissionError, 1: it did not, 2: something else."""
    pid = os.fork()
    if pid == 0:
        status = 2
        try:
            work()
            status = 1
        except PermissionError:
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def open_device(path: str) -> None:
    os.close(os.open(path, os.O_RDONLY))


@pytest.fixture
def tree(tmp_path: Path) -> dict[str, Any]:
    """The view of a stopped container in whose tree are a device node of the image's and one of its own."""
    for name in ("lower", "upper", "work"):
        (tmp_path / name).mkdir()
    for place in ("lower/images", "upper/own"):
        os.mknod(tmp_path / place, 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    open_device(str(tmp_path / "upper/own"))  # it is one that opens
    return {"binds": [], "lowers": [str(tmp_path / "lower")], "upper": str(tmp_path / "upper"), "work": str(tmp_path / "work")}


def test_where_the_containers_ids_cannot_be_had_nothing_is_written(tree: dict[str, Any]) -> None:
    bind = {"source": "/proc/sys", "destination": "/b", "recursive": True, "readonly": False}
    tree["binds"] = [{**bind, "maps": {"uids": [[0, 700_000, 1000]], "gids": [[0, 700_000, 1000]]}}]

    def work() -> None:
        view.enter(tree, [], binds=True)
        try:
            os.open("/b/kernel/hostname", os.O_WRONLY)
        except OSError as error:
            raise PermissionError if error.errno == errno.EROFS else error from None

    assert in_child(work) == 0


@pytest.mark.parametrize("name", ["/images", "/own"])
def test_of_a_stopped_container(tree: dict[str, Any], name: str) -> None:
    def work() -> None:
        confine.limit(confine.WRITE, view.enter(tree, [], binds=True))
        open_device(name)

    assert in_child(work) == 0


@pytest.mark.parametrize("binds", [True, False])
def test_of_a_running_container(tree: dict[str, Any], binds: bool) -> None:
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:  # stands for the container: a process whose root is the tree
        libc.unshare(CLONE_NEWNS)
        mounts.mount(None, "/", None, mounts.MS_PRIVATE | mounts.MS_REC)
        os.chdir(tree["upper"])
        mounts.mount(tree["upper"], tree["upper"], None, 4096)
        fd = os.open(tree["upper"], os.O_PATH)
        mounts.pivot_into(fd)
        os.close(fd)
        os.write(told, b"x")
        signal.pause()
    pidfd = os.pidfd_open(pid)
    try:

        def work() -> None:
            confine.limit(confine.WRITE, view.enter({"pid": pid, "pidfd": 0, "userns": False}, [pidfd], binds=binds))
            open_device("/own")

        assert os.read(ready, 1) == b"x"  # it has its root
        assert in_child(work) == 0
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        os.close(pidfd)
        os.close(ready)
        os.close(told)


def test_of_layers(tree: dict[str, Any]) -> None:
    def work() -> None:
        view.without_devices()
        open_device(tree["upper"] + "/own")

    assert in_child(work) == 0

    def lower() -> None:
        view.without_devices()
        fd = view.lower_of({"lowers": [tree["lowers"][0], tree["upper"]]}, [])
        open_device(f"/proc/self/fd/{fd}/images")

    assert in_child(lower) == 0
