"""Launching a process in a fresh container: output, exit codes, errors, terminals, init."""

import errno
import os
import time
from typing import Any

import pytest

from sampan.runtime import cgroups, plan

from .conftest import PARENT

pytestmark = pytest.mark.root


def test_a_command_runs_and_its_output_and_code_come_back(box: Any) -> None:
    assert box.run("sh", "-c", "echo hi; echo oops >&2; exit 3") == (3, "hi\n", "oops\n")


def test_stdin_is_dev_null_unless_given(box: Any) -> None:
    assert box.run("cat") == (0, "", "")


def test_stdin_reaches_the_process_and_ends(box: Any) -> None:
    started = box.start("cat", stdin=True)
    os.write(started.ends["stdin"], b"abc")
    os.close(started.ends.pop("stdin"))
    assert box.supervisor.finish(started)[1] == "abc"


def test_a_signal_gives_128_plus_n(box: Any) -> None:
    started = box.start("sleep", "1000")
    os.kill(started.pid, 9)
    event = box.supervisor.event("exit", started.key)
    assert (event["code"], event["signal"]) == (137, 9)


@pytest.mark.parametrize(
    ("args", "step", "number", "message"),
    [
        (("nothere",), "exec", errno.ENOENT, 'exec: "nothere": executable file not found in $PATH'),
        (("/nothere",), "exec", errno.ENOENT, 'exec: "/nothere": stat /nothere: no such file or directory'),
        (("/etc",), "exec", errno.EISDIR, 'exec: "/etc": is a directory: permission denied'),
        (("/etc/passwd",), "exec", errno.EACCES, 'exec: "/etc/passwd": permission denied'),
    ],
)
def test_a_bad_command_is_an_error_in_runcs_words(box: Any, args: tuple[str, ...], step: str, number: int, message: str) -> None:
    started = box.start(*args)
    error = started.reply["error"]
    assert (error["step"], error["errno"], error["message"]) == (step, number, message)
    assert box.supervisor.request({"op": "list"})[0]["procs"] == []


def test_an_unknown_user_is_named(box: Any) -> None:
    error = box.start("true", user="nouser").reply["error"]
    assert (error["step"], error["message"]) == ("user", "unable to find user nouser: no matching entries in passwd file")


def test_a_file_as_working_directory_is_an_error(box: Any) -> None:
    error = box.start("true", cwd="/etc/passwd").reply["error"]
    assert (error["step"], error["message"]) == ("cwd make", "Cannot mkdir: /etc/passwd is not a directory")


def test_a_missing_bind_source_is_named(box: Any) -> None:
    error = box.start("true", mounts=(plan.Mount(source="/no/such", destination="/x"),)).reply["error"]
    assert (error["step"], error["errno"], error["path"]) == ("mount", errno.ENOENT, "/no/such")


def test_a_directory_over_a_file_is_an_error(box: Any) -> None:
    error = box.start("true", mounts=(plan.Mount(source="/tmp", destination="/etc/passwd"),)).reply["error"]
    assert (error["step"], error["errno"]) == ("mount", errno.ENOTDIR)


def test_nobody_but_root_makes_cgroups_in_a_containers(box: Any) -> None:
    started = box.start("sleep", "1000")
    directories = cgroups.directories(cgroups.host_layout(), f"{PARENT}/{started.container}")
    assert {directory: oct(os.stat(directory).st_mode & 0o777) for directory in directories} == dict.fromkeys(directories, "0o755")


def test_a_failed_launch_leaves_no_cgroup(box: Any) -> None:
    started = box.start("/nothere")
    assert started.reply["error"]["step"] in ("exec", "runtime")
    directories = cgroups.directories(cgroups.host_layout(), f"{PARENT}/{started.container}")
    assert directories
    assert not [directory for directory in directories if os.path.exists(directory)]


def test_tty_gives_a_controlling_terminal_and_a_master(box: Any) -> None:
    started = box.start("sh", "-c", "tty; stty size; ls -l /proc/self/fd/0 | wc -l; echo x > /dev/tty", tty=True, console_size=(33, 77))
    master = started.fds["pty"]
    data = b""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            block = os.read(master, 4096)
        except OSError:
            break
        data += block
        if b"\nx" in data:
            break
    assert data.replace(b"\r", b"").decode().splitlines()[:2] == ["/dev/pts/0", "33 77"]
    assert box.supervisor.event("exit", started.key)["code"] == 0


def test_init_reaps_forwards_signals_and_passes_the_code_on(box: Any) -> None:
    script = "trap 'exit 7' TERM; (sleep 0.01 &) ; echo ready; while :; do sleep 0.05; done"
    started = box.start("sh", "-c", script, init=True)
    assert os.read(started.ends["stdout"], 10) == b"ready\n"
    os.kill(started.pid, 15)
    assert box.supervisor.event("exit", started.key)["code"] == 7
    code, out, _ = box.run("sh", "-c", "echo $$; cat /proc/1/comm", init=True)
    assert (code, out) == (0, "2\ndocker-init\n")
    assert box.run("true", init=True) == (0, "", "")
    out = box.sh("tr '\\0' ' ' < /proc/1/cmdline", init=True)
    assert out.startswith("/sbin/docker-init -- sh -ec tr ")


def test_output_survives_a_reader_that_is_gone(box: Any) -> None:
    started = box.start("sh", "-c", "sleep 0.2; echo lost; echo lost; exit 5")
    for name in ("stdout", "stderr"):
        os.close(started.ends.pop(name))
    assert box.supervisor.event("exit", started.key)["code"] == 5
