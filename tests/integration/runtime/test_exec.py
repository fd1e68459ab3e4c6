"""Processes that join a running container."""

import errno
import os
import select
from typing import Any

import pytest

pytestmark = pytest.mark.root


@pytest.fixture
def running(box: Any) -> Any:
    return box.start("sh", "-c", "echo 1 > /tmp/mark; sleep 1000")


def test_exec_shares_every_namespace_and_the_cgroup(box: Any, running: Any) -> None:
    started = box.exec(
        running,
        "sh",
        "-c",
        "until [ -s /tmp/mark ]; do :; done; cat /tmp/mark; "
        "hostname; readlink /proc/1/ns/net; readlink /proc/self/ns/net; cat /proc/self/cgroup; ls /proc/self/fd",
    )
    code, out, err = box.supervisor.finish(started)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[:2] == ["1", running.container[:12]]
    assert lines[2] == lines[3]
    assert all(running.container in line for line in lines[4:-4]), out
    assert lines[-4:] == ["0", "1", "2", "3"]


def test_exec_has_the_containers_capabilities_and_filter(box: Any, running: Any) -> None:
    code, out, _ = box.supervisor.finish(box.exec(running, "cat", "/proc/self/status", user="app"))
    assert code == 0
    assert "CapBnd:\t00000000a80425fb" in out
    assert "Seccomp:\t2" in out
    assert "Uid:\t1000\t1000" in out


def test_exec_with_a_terminal(box: Any, running: Any) -> None:
    started = box.exec(running, "sh", "-c", "tty; test -t 0", tty=True)
    terminal, out = started.fds["pty"], b""
    while b"\n" not in out:
        assert select.select([terminal], [], [], 30)[0], out
        out += os.read(terminal, 100)
    assert b"/dev/pts/0" in out
    assert box.supervisor.event("exit", started.key)["code"] == 0


def test_exec_errors(box: Any, running: Any) -> None:
    error = box.exec(running, "nothere").reply["error"]
    assert (error["errno"], error["message"]) == (errno.ENOENT, 'exec: "nothere": executable file not found in $PATH')
    running.reply["start_time"] += 1
    assert box.exec(running, "true").reply["error"]["errno"] == errno.ESRCH


def test_exec_code_and_signal(box: Any, running: Any) -> None:
    assert box.supervisor.finish(box.exec(running, "sh", "-c", "exit 42"))[0] == 42
    assert box.supervisor.finish(box.exec(running, "sh", "-c", "kill -9 $$"))[0] == 137


def test_exec_dies_with_the_container(box: Any, running: Any) -> None:
    started = box.exec(running, "sleep", "1000")
    os.kill(running.pid, 9)
    assert box.supervisor.event("exit", started.key)["code"] == 137
