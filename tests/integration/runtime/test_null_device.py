"""The host's null device is never in a container's hands, and a container's own one is what it ought to be."""

import os
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

Docker = Callable[..., subprocess.CompletedProcess[str]]
SPOIL = "chmod 640 /proc/self/fd/$fd; chown 1:1 /proc/self/fd/$fd; stat -Lc '%t:%T %a %u' /proc/self/fd/$fd"
"""What a hostile process does to its streams; it says what they are then."""
SPOILT = "1:3 640 1\n"
ODD = {
    "a file": "rm /dev/null; echo x > /dev/null",
    "a directory": "rm /dev/null; mkdir /dev/null",
    "a fifo": "rm /dev/null; mkfifo /dev/null",
    "a symlink": "rm /dev/null; ln -s /etc/passwd /dev/null",
    "another device": "rm /dev/null; mknod /dev/null c 1 7",
    "nothing": "rm /dev/null",
}


@pytest.fixture(autouse=True)
def hosts_null_device() -> Iterator[None]:
    """The host's null device, which must be the same afterwards."""
    before = os.stat("/dev/null")
    yield
    after = os.stat("/dev/null")
    if (after.st_uid, after.st_gid, after.st_mode) != (before.st_uid, before.st_gid, before.st_mode):
        os.chown("/dev/null", before.st_uid, before.st_gid)
        os.chmod("/dev/null", before.st_mode & 0o7777)
        pytest.fail(f"the host's /dev/null became {after}")


@pytest.fixture
def nulls(engine: Engine, docker: Docker) -> Iterator[str]:
    """A running container."""
    done = docker("run", "-d", "--network=none", "--name", "nulls", "busybox", "sleep", "1000")
    assert done.returncode == 0, done.stderr
    yield "nulls"
    engine.request("DELETE", "/containers/nulls?force=1")


def detached(docker: Docker, script: str) -> str:
    """What a script says whose streams nobody has."""
    assert (
        docker("exec", "-d", "nulls", "sh", "-c", f"exec 3<&0 4>&1 5>&2 >/tmp/said 2>&1; {script}; mv /tmp/said /tmp/all").returncode == 0
    )
    done = docker("exec", "nulls", "timeout", "30", "sh", "-c", "until [ -e /tmp/all ]; do sleep 0.02; done; cat /tmp/all; rm /tmp/all")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_detached_exec_of_a_user_leaves_the_null_device_alone(docker: Docker, nulls: str) -> None:
    assert docker("exec", "-d", "-u", "1000", nulls, "true").returncode == 0
    assert docker("exec", "-u", "1000", nulls, "true").returncode == 0


def test_what_a_detached_exec_does_to_its_streams_stays_in_the_container(docker: Docker, nulls: str) -> None:
    assert detached(docker, f"for fd in 3 4 5; do {SPOIL}; done") == SPOILT * 3


def test_what_an_exec_does_to_a_stream_nobody_attached_stays_in_the_container(docker: Docker, nulls: str) -> None:
    assert docker("exec", nulls, "sh", "-c", f"fd=0; {SPOIL}").stdout == SPOILT


def test_what_a_containers_process_does_to_its_stdin_stays_in_the_container(docker: Docker) -> None:
    for flags in ([], ["-u", "0:0", "--read-only"]):
        assert docker("run", "--rm", *flags, "--network=none", "busybox", "sh", "-c", f"fd=0; {SPOIL}").stdout == SPOILT


@pytest.mark.parametrize("what", ODD)
def test_an_exec_gets_a_null_device_whatever_lies_at_its_name(what: str, docker: Docker, nulls: str) -> None:
    assert docker("exec", nulls, "sh", "-c", ODD[what]).returncode == 0
    look = "for fd in 3 4 5; do stat -Lc '%F %t:%T %a %u' /proc/self/fd/$fd; done"
    assert detached(docker, look) == "character special file 1:3 666 0\n" * 3
    assert detached(docker, f"for fd in 3 4 5; do {SPOIL}; done") == SPOILT * 3
