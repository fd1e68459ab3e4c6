"""The real docker client against the engine: what a user types and what comes back."""

import json
import re
import subprocess
import time
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.root

Docker = Callable[..., subprocess.CompletedProcess[str]]


def ok(result: subprocess.CompletedProcess[str]) -> str:
    """The output of a command that must succeed, without its last newline."""
    assert result.returncode == 0, result.stderr
    return result.stdout.rstrip("\n")


def test_run_prints(docker: Docker) -> None:
    assert ok(docker("run", "--rm", "busybox", "echo", "hello")) == "hello"


def test_stdin_is_piped(docker: Docker) -> None:
    assert ok(docker("run", "--rm", "-i", "busybox", "cat", stdin=b"one\ntwo\n")) == "one\ntwo"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (("busybox", "true"), 0),
        (("busybox", "sh", "-c", "exit 3"), 3),
        (("--memory=1", "busybox", "true"), 125),
        (("busybox", "/etc"), 126),
        (("busybox", "no-such-program"), 127),
    ],
)
def test_exit_codes(docker: Docker, command: tuple[str, ...], code: int) -> None:
    assert docker("run", "--rm", *command).returncode == code


def test_life_of_a_container(docker: Docker) -> None:
    identifier = ok(docker("run", "-d", "--name", "life", "busybox", "sh", "-c", "echo out; echo err >&2; exec sleep 1000"))
    assert re.fullmatch("[0-9a-f]{64}", identifier)
    assert ok(docker("ps", "--format", "{{.Names}} {{.Image}}")) == "life busybox"
    deadline = time.monotonic() + 10
    while (logs := docker("logs", "life")).stdout != "out\n" or logs.stderr != "err\n":
        assert time.monotonic() < deadline, logs
        time.sleep(0.05)
    assert ok(docker("exec", "life", "echo", "inside")) == "inside"
    assert docker("exec", "life", "sh", "-c", "exit 5").returncode == 5
    assert ok(docker("stop", "-t", "1", "life")) == "life"
    assert ok(docker("ps", "-q")) == ""
    assert "Exited (137)" in ok(docker("ps", "-a", "--format", "{{.Status}}"))
    assert ok(docker("rm", "life")) == "life"
    assert ok(docker("ps", "-aq")) == ""


def test_name_conflict(docker: Docker) -> None:
    first = ok(docker("create", "--name", "taken", "busybox"))
    result = docker("create", "--name", "taken", "busybox")
    assert result.returncode == 1
    assert (
        f'Conflict. The container name "/taken" is already in use by container "{first}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    ) in result.stderr


def test_rm_waits_for_the_removal(docker: Docker) -> None:
    for _ in range(3):
        ok(docker("run", "--rm", "--name", "again", "busybox", "true"))


def test_out_of_memory(docker: Docker) -> None:
    result = docker("run", "--name", "oom", "-m", "64m", "--memory-swap", "64m", "busybox", "tail", "/dev/zero")
    assert result.returncode == 137
    assert ok(docker("inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "oom")) == "true 137"


def test_pause_and_unpause(docker: Docker) -> None:
    ok(docker("run", "-d", "--name", "paused", "busybox", "sleep", "1000"))
    assert ok(docker("pause", "paused")) == "paused"
    assert ok(docker("inspect", "-f", "{{.State.Status}} {{.State.Paused}}", "paused")) == "paused true"
    result = docker("exec", "paused", "true")
    assert result.returncode == 1
    assert "is paused, unpause the container before exec" in result.stderr
    assert ok(docker("unpause", "paused")) == "paused"
    assert ok(docker("inspect", "-f", "{{.State.Status}}", "paused")) == "running"


def test_wait(docker: Docker) -> None:
    ok(docker("run", "-d", "--name", "waited", "busybox", "sh", "-c", "sleep 0.5; exit 9"))
    assert ok(docker("wait", "waited")) == "9"


def test_rename(docker: Docker) -> None:
    identifier = ok(docker("create", "--name", "before", "busybox"))
    ok(docker("rename", "before", "after"))
    assert ok(docker("inspect", "-f", "{{.Id}} {{.Name}}", "after")) == f"{identifier} /after"
    assert docker("inspect", "before").returncode == 1


def test_top(docker: Docker) -> None:
    ok(docker("run", "-d", "--name", "topped", "busybox", "sleep", "1234"))
    lines = ok(docker("top", "topped")).splitlines()
    assert lines[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert len(lines) == 2
    assert lines[1].endswith("sleep 1234")


def test_port(docker: Docker) -> None:
    ok(docker("run", "-d", "--name", "ported", "-p", "127.0.0.1::80", "busybox", "sleep", "1000"))
    assert re.fullmatch(r"127\.0\.0\.1:[0-9]+", ok(docker("port", "ported", "80/tcp")))
    assert re.fullmatch(r"80/tcp -> 127\.0\.0\.1:[0-9]+", ok(docker("port", "ported")))


def test_kill(docker: Docker) -> None:
    ok(docker("run", "-d", "--name", "killed", "busybox", "sh", "-c", "trap 'exit 12' USR1; echo up; while :; do sleep 0.1; done"))
    deadline = time.monotonic() + 10
    while docker("logs", "killed").stdout != "up\n":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert ok(docker("kill", "-s", "USR1", "killed")) == "killed"
    assert ok(docker("wait", "killed")) == "12"
    result = docker("kill", "killed")
    assert result.returncode == 1
    assert "cannot kill container: killed: container " in result.stderr
    assert "is not running" in result.stderr


def test_restart(docker: Docker) -> None:
    ok(docker("run", "-d", "--name", "restarted", "busybox", "sleep", "1000"))
    before = ok(docker("inspect", "-f", "{{.State.Pid}}", "restarted"))
    assert ok(docker("restart", "-t", "0", "restarted")) == "restarted"
    status, after = ok(docker("inspect", "-f", "{{.State.Status}} {{.State.Pid}}", "restarted")).split()
    assert status == "running"
    assert after != before


def test_inspect_format(docker: Docker) -> None:
    ok(docker("create", "--name", "seen", "-e", "A=b", "-l", "k=v", "busybox", "echo", "x"))
    assert json.loads(ok(docker("inspect", "-f", "{{json .Config.Cmd}}", "seen"))) == ["echo", "x"]
    assert "A=b" in json.loads(ok(docker("inspect", "-f", "{{json .Config.Env}}", "seen")))
    assert ok(docker("inspect", "-f", '{{index .Config.Labels "k"}} {{.State.Status}}', "seen")) == "v created"


@pytest.mark.parametrize(
    ("command", "message", "code"),
    [
        (
            ("exec", "-w", "/etc/passwd", "worded", "true"),
            'unable to start container process: chdir to cwd ("/etc/passwd") set in config.json failed: not a directory',
            127,
        ),
        (("exec", "worded", "nope"), 'exec: "nope": executable file not found in $PATH', 127),
        (("kill", "-s", "NOPE", "worded"), "cannot kill container: worded: invalid signal: NOPE", 1),
        (("kill", "missing"), "cannot kill container: missing: No such container: missing", 1),
        (("stop", "-s", "NOPE", "worded"), "cannot stop container: worded: invalid signal: NOPE", 1),
        (("restart", "-s", "NOPE", "worded"), "Cannot restart container worded: invalid signal: NOPE", 1),
        (("create", "--stop-signal", "NOPE", "busybox"), "Error response from daemon: invalid signal: NOPE", 1),
        (("rename", "worded", "$$"), "Invalid container name (/$$), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", 1),
    ],
)
def test_words_of_errors(docker: Docker, command: tuple[str, ...], message: str, code: int) -> None:
    ok(docker("run", "-d", "--name", "worded", "busybox", "sleep", "1000"))
    result = docker(*command)
    assert message in (result.stdout + result.stderr).splitlines()[0]
    assert result.returncode == code


def test_platform(docker: Docker) -> None:
    """An image of another platform is not used; the host's own may be named."""
    ours = ok(docker("version", "-f", "{{.Server.Os}}/{{.Server.Arch}}"))
    assert ok(docker("run", "--rm", "--platform", ours, "busybox", "echo", "hi")) == "hi"
    result = docker("create", "--pull", "never", "--platform", "linux/s390x", "busybox")
    assert result.returncode == 1
    assert (
        f"image with reference busybox was found but its platform ({ours}) does not match the specified platform (linux/s390x)"
        in result.stderr
    )
    assert docker("create", "--platform", "a/b/c/d", "busybox").returncode != 0
    assert ok(docker("ps", "-aq")) == ""
