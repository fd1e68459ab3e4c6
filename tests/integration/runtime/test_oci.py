"""Containers that runc and crun start: what they are told, and what we hear of them."""

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.runtime import plan, spawning
from sampan.runtime.protocol import Channel
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


@pytest.fixture
def hanging(supervisor: Supervisor, busybox: Path, tmp_path: Path) -> Box:
    """A runtime that has a child, says that it is there in the file `hangs`, and does not end; SIGTERM is nothing to it."""
    program = tmp_path / "hanging"
    program.write_text(f"""#!/bin/sh
[ $7 = create ] || exit 0
trap '' TERM
sleep 1000 &
echo $$ $! > {tmp_path}/new
mv {tmp_path}/new {tmp_path}/hangs
wait
""")
    program.chmod(0o755)
    return Box(supervisor, busybox, tmp_path, str(program))


def _launch(channel: Channel, box: Box) -> str:
    """Ask for a container's start, and wait until its runtime hangs; the key."""
    spec = box.spec("true")
    key = f"{spec.id}.1"
    channel.send({"op": "launch", "key": key, "container": spec.id, "plan": box.made(spec), "record": {}, "seq": 1}, [])
    _until((box.work / "hangs").exists)
    return key


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _has_ended(box: Box) -> bool:
    """Whether the runtime has, and its child."""
    return not any(os.path.exists(f"/proc/{pid}/exe") for pid in (box.work / "hangs").read_text().split())


def test_a_start_that_is_given_up_is_the_end_of_a_runtime_that_hangs(hanging: Box) -> None:
    with contextlib.closing(hanging.supervisor.connect()) as channel:
        key = _launch(channel, hanging)
        _until(lambda: "error" not in hanging.supervisor.request({"op": "forget", "key": key})[0])
        _until(lambda: _has_ended(hanging))
        _until(lambda: (found := channel.recv()) is not None and "error" in found[0])


def test_a_start_ends_with_who_has_asked_for_it(hanging: Box) -> None:
    with contextlib.closing(hanging.supervisor.connect()) as channel:
        _launch(channel, hanging)
    _until(lambda: _has_ended(hanging))


def test_a_runtime_that_floods_its_log_fills_no_memory_and_holds_nobody_up(supervisor: Supervisor, busybox: Path, tmp_path: Path) -> None:
    program = tmp_path / "flooding"
    line = '{"level":"error","msg":"full"}'
    program.write_text(f"""#!/bin/sh
head -c 100M /dev/zero > $4
stat -c %s $4 > {tmp_path}/size
echo '{line}' > $4
(while :; do echo '{line}'; done >> $4) &
echo $! >> {tmp_path}/hangs
exit 3
""")
    program.chmod(0o755)
    box = Box(supervisor, busybox, tmp_path, str(program))
    assert box.start("true").reply["error"]["message"] == "full"
    assert int((tmp_path / "size").read_text()) <= 64 << 20
    _until(lambda: _has_ended(box))


def test_an_exec_that_fails_late_leaves_no_process(supervisor: Supervisor, busybox: Path, tmp_path: Path) -> None:
    program = tmp_path / "mute"
    program.write_text(f"""#!{sys.executable} -IS
import socket, subprocess, sys
given = dict(zip(sys.argv, sys.argv[1:]))
pid = str(subprocess.Popen(["sleep", "1000"], start_new_session=True).pid)
open("{tmp_path}/hangs", "w").write(pid)
open(given["--pid-file"], "w").write(pid)
console = socket.socket(socket.AF_UNIX)
console.connect(given["--console-socket"])
console.send(b"x")
""")
    program.chmod(0o755)
    running = Box(supervisor, busybox, tmp_path).start("sleep", "1000")
    box = Box(supervisor, busybox, tmp_path, str(program))
    assert box.exec(running, "true", tty=True).reply["error"]["message"] == "the runtime has not sent the terminal"
    _until(lambda: _has_ended(box))


def test_a_runtime_that_hangs_ends_with_the_supervisor(hanging: Box, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    process = spawning.spawn("supervisor", str(tmp_path / "run"))
    try:
        with contextlib.closing(Supervisor(str(tmp_path / "run"), process).channel) as channel:
            _launch(channel, hanging)
            process.kill()
            process.wait(10)
            _until(lambda: _has_ended(hanging))
    finally:
        process.kill()
        process.wait(10)
