"""Containers of runc and crun through the docker client: all that is done to containers, and what is left of them."""

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

LINKS = "for n in net ipc pid; do readlink /proc/self/ns/$n; done"
Docker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(params=["real-runc", "crun"])
def runtime(request: pytest.FixtureRequest, engine: Engine) -> str:
    """Its name; nothing of a container is left with it."""
    name: str = request.param
    return name


def nothing_left(engine: Engine) -> None:
    """Waits until no runtime knows a container any more."""
    directory = Path(engine.exec_root) / "runtimes"
    deadline = time.monotonic() + 30
    while directory.is_dir() and os.listdir(directory):
        assert time.monotonic() < deadline, os.listdir(directory)
        time.sleep(0.02)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_life(engine: Engine, docker: Docker, runtime: str) -> None:
    script = "trap 'echo got; exit 9' TERM; echo started; while :; do sleep 0.05; done"
    succeeded(docker("run", "-d", "--name", "oci", "--runtime", runtime, "-m", "64m", "busybox", "sh", "-c", script))
    assert succeeded(docker("inspect", "-f", "{{.HostConfig.Runtime}}", "oci")) == runtime
    done = docker(
        "exec", "-i", "-u", "99:88", "-w", "/tmp", "-e", "A=b", "oci", "sh", "-c", "cat; id -u; pwd; echo $A; exit 4", stdin=b"in\n"
    )
    assert (done.returncode, done.stdout) == (4, "in\n99\n/tmp\nb\n")
    assert succeeded(docker("exec", "-t", "oci", "tty")) == "/dev/pts/0"
    done = docker("exec", "oci", "nosuch")
    assert (done.returncode, "nosuch" in done.stdout + done.stderr) == (127, True)
    assert "sh -c trap" in succeeded(docker("top", "oci"))
    succeeded(docker("pause", "oci"))
    succeeded(docker("unpause", "oci"))
    succeeded(docker("update", "-m", "96m", "--memory-swap", "192m", "oci"))
    assert "96MiB" in succeeded(docker("stats", "--no-stream", "oci"))
    assert succeeded(docker("stop", "oci")) == "oci"
    assert succeeded(docker("logs", "oci")) == "started\ngot"
    assert succeeded(docker("inspect", "-f", "{{.State.ExitCode}}", "oci")) == "9"
    nothing_left(engine)
    succeeded(docker("start", "oci"))
    succeeded(docker("kill", "oci"))
    assert succeeded(docker("wait", "oci")) == "137"
    succeeded(docker("start", "oci"))
    succeeded(docker("rm", "-f", "oci"))
    nothing_left(engine)


def test_failures_are_told_with_dockers_codes_and_are_no_output(engine: Engine, docker: Docker, runtime: str) -> None:
    for command, code in (("nosuch", "127"), ("/etc/passwd", "126")):
        done = docker("run", "--name", "oci", "--runtime", runtime, "busybox", command)
        assert "OCI runtime create failed: " in done.stderr
        assert succeeded(docker("inspect", "-f", "{{.State.ExitCode}}", "oci")) == code
        assert docker("logs", "oci").stdout + docker("logs", "oci").stderr == ""
        succeeded(docker("rm", "oci"))
    done = docker("run", "--rm", "--runtime", runtime, "-w", "/etc/passwd", "busybox", "true")
    assert (done.returncode, "Cannot mkdir: /etc/passwd is not a directory" in done.stderr) == (125, True)
    nothing_left(engine)


def test_mounts_users_and_limits(engine: Engine, docker: Docker, runtime: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    tmp_path.chmod(0o755)
    (tmp_path / "file").chmod(0o644)
    script = (
        "cat /m/file; touch /m/no 2>/dev/null || echo ro; touch /no 2>/dev/null || echo root ro; touch /t/yes && echo tmp; id -u; ulimit -n"
    )
    done = docker(
        "run", "--rm", "--runtime", runtime, "-v", f"{tmp_path}:/m:ro", "-v", "ocivol:/v", "--tmpfs", "/t:mode=1777", "--read-only",
        "-u", "1000", "--ulimit", "nofile=321:321", "--pids-limit", "20", "--cpus", "0.5", "busybox", "sh", "-c", script,
    )  # fmt: skip
    assert succeeded(done).split("\n") == ["of the host", "ro", "root ro", "tmp", "1000", "321"]
    status = succeeded(
        docker("run", "--rm", "--runtime", runtime, "--security-opt", "no-new-privileges", "busybox", "cat", "/proc/self/status")
    )
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status
    assert "CapBnd:\t00000000a80425fb" in status
    succeeded(docker("volume", "rm", "ocivol"))


def test_a_volume_that_is_read_only_stays_so(docker: Docker, runtime: str, tmp_path: Path) -> None:
    """crun mounts a bind mount's source again, with the attributes that it is told."""
    succeeded(docker("volume", "create", "-o", "type=none", "-o", f"device={tmp_path}", "-o", "o=bind,ro,nosuid", "rovol"))
    script = "touch /v/x 2>/dev/null || echo ro; grep -c ' /v ro,nosuid' /proc/self/mountinfo"
    done = docker("run", "--rm", "--runtime", runtime, "-v", "rovol:/v", "busybox", "sh", "-c", script)
    assert succeeded(done) == "ro\n1"
    succeeded(docker("volume", "rm", "rovol"))


def test_what_is_shared_with_another_container(docker: Docker, runtime: str) -> None:
    succeeded(docker("run", "-d", "--name", "first", "--ipc", "shareable", "busybox", "sleep", "1000"))  # one of our own
    modes = ("--network", "container:first", "--ipc", "container:first", "--pid", "container:first")
    ours = succeeded(docker("exec", "first", "sh", "-c", LINKS))
    words = ("busybox", "sh", "-c", LINKS)
    assert succeeded(docker("run", "--rm", "--runtime", runtime, *modes, *words)) == ours
    theirs = succeeded(docker("run", "--rm", "--runtime", runtime, "--network", "host", "--pid", "host", "--uts", "host", *words))
    assert theirs.split()[0] == os.readlink("/proc/self/ns/net")
    alone = succeeded(docker("run", "--rm", "--runtime", runtime, "--network", "none", "busybox", "ip", "-o", "link"))
    assert [line.split()[1] for line in alone.splitlines()] == ["lo:"]
    assert "UP" in alone


def test_restarts_and_health_checks(engine: Engine, docker: Docker, runtime: str) -> None:
    health = ("--health-cmd", "test -e /ok", "--health-interval", "100ms", "--health-retries", "1")
    script = "touch /ok; sleep 0.3; [ $(cat /count | wc -l) -lt 2 ] || sleep 1000; echo x >> /count; exit 1"
    succeeded(
        docker(
            "run",
            "-d",
            "--name",
            "again",
            "--restart",
            "on-failure",
            *health,
            "--runtime",
            runtime,
            "busybox",
            "sh",
            "-c",
            f"touch /count; {script}",
        )
    )
    deadline = time.monotonic() + 30
    while succeeded(docker("inspect", "-f", "{{.RestartCount}} {{.State.Health.Status}}", "again")) != "2 healthy":
        assert time.monotonic() < deadline
        time.sleep(0.05)
