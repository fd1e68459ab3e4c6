"""Containers that runc and crun start: what they are told, and what we hear of them."""

import os
import select
from pathlib import Path
from typing import Any

import pytest

from sampan.runtime import plan
from tests.integration.runtime.conftest import Box, Supervisor

pytestmark = pytest.mark.root


@pytest.fixture(params=["runc", "crun"])
def oci(request: pytest.FixtureRequest, supervisor: Supervisor, busybox: Path, tmp_path: Path) -> Box:
    return Box(supervisor, busybox, tmp_path, request.param)


def test_a_container_runs_and_its_end_is_heard_of(oci: Box) -> None:
    started = oci.start("sh", "-c", "echo out; echo err >&2; id -u; echo $HOME; exit 7", user="app")
    assert oci.supervisor.finish(started) == (7, "out\n1000\n/home/app\n", "err\n")


def test_what_the_container_is_told_to_have(oci: Box, tmp_path: Path) -> None:
    (tmp_path / "volume/sub").mkdir(parents=True)
    (tmp_path / "volume/sub/file").write_text("in it\n")
    text = oci.sh(
        "cat /data/file; hostname; ls /proc/self/fd; grep -c . /proc/self/mountinfo; cat /proc/self/cgroup; pwd; umask; ls -l /dev/null",
        mounts=(plan.Mount(source=f"{tmp_path}/volume", destination="/data", subpath="sub", readonly=True),),
        cwd="/made",
    )
    assert text.startswith("in it\n")
    lines = text.splitlines()
    assert "/made" in lines
    assert "0022" in lines
    assert lines[-1].startswith("crw-rw-rw-")


def test_a_terminal(oci: Box) -> None:
    started = oci.start("sh", "-c", "stty size; test -t 0", tty=True, console_size=(11, 22))
    terminal, out = started.fds["pty"], b""
    while b"\n" not in out:
        assert select.select([terminal], [], [], 30)[0], out
        out += os.read(terminal, 100)
    assert out == b"11 22\r\n"
    assert oci.supervisor.event("exit", started.key)["code"] == 0


@pytest.mark.parametrize(("args", "words"), [(("nothere",), "nothere"), (("/etc/passwd",), "permission denied")])
def test_the_runtimes_own_words_of_a_failure(oci: Box, args: tuple[str, ...], words: str) -> None:
    error = oci.start(*args).reply["error"]
    assert error["step"] == "runtime"
    assert words in error["message"].lower()


def test_execs(oci: Box) -> None:
    running = oci.start("sleep", "1000")
    started = oci.exec(running, "sh", "-c", "hostname; id -u; echo err >&2; exit 5", user="app")
    assert "error" not in started.reply, started.reply
    code, out, err = oci.supervisor.finish(started)
    assert (code, out, err) == (5, f"{running.container[:12]}\n1000\n", "err\n")
    for _ in range(5):  # ended before anybody knows that it runs
        assert oci.supervisor.finish(oci.exec(running, "sh", "-c", "exit 3"))[0] == 3
    error: dict[str, Any] = oci.exec(running, "nothere").reply["error"]
    assert (error["step"], "nothere" in error["message"]) == ("runtime", True)
