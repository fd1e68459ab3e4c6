"""`--ipc container:NAME` and `--pid container:NAME` by the real docker client; what is expected is what dockerd 28 did with the same."""

import re
import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

Docker = Callable[..., subprocess.CompletedProcess[str]]
ALONE = "--network=none"


def ok(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stderr
    return result.stdout.rstrip("\n")


def donor(docker: Docker, *options: str) -> str:
    return ok(docker("run", "-d", ALONE, "--name", "donor", *options, "busybox", "sleep", "1000"))


def test_shared_memory_and_queues(docker: Docker) -> None:
    identifier = donor(docker, "--ipc", "shareable", "--shm-size", "3m")
    ok(docker("exec", "donor", "sh", "-c", "echo from the donor > /dev/shm/note"))
    shown = ok(
        docker("run", "--rm", ALONE, "--ipc", "container:donor", "busybox", "sh", "-c", "cat /dev/shm/note; echo back > /dev/shm/answer")
    )
    assert shown == "from the donor"
    assert ok(docker("exec", "donor", "cat", "/dev/shm/answer")) == "back"
    size, namespace = "df -k /dev/shm | tail -1", "readlink /proc/self/ns/ipc"
    run = ("run", "--rm", ALONE, "--ipc", "container:donor", "busybox", "sh", "-c")
    assert " 3072 " in ok(docker(*run, size))
    assert ok(docker(*run, namespace)) == ok(docker("exec", "donor", "readlink", "/proc/self/ns/ipc"))
    assert ok(docker("run", "--rm", ALONE, "busybox", "sh", "-c", namespace)) != ok(docker(*run, namespace))
    ok(docker("create", ALONE, "--name", "joined", "--ipc", "container:donor", "--pid", "container:donor", "busybox", "true"))
    modes = ok(docker("inspect", "-f", "{{.HostConfig.IpcMode}} {{.HostConfig.PidMode}}", "joined"))
    assert modes == f"container:{identifier} container:{identifier}"


def test_a_shared_pid_namespace(docker: Docker) -> None:
    donor(docker)
    assert re.search(
        r"^\s*1 root +sleep 1000$", ok(docker("run", "--rm", ALONE, "--pid", "container:donor", "busybox", "ps")), re.MULTILINE
    )
    ok(docker("run", "-d", ALONE, "--name", "joined", "--pid", "container:donor", "busybox", "sh", "-c", "sleep 2000 & exec sleep 3000"))
    deadline = time.monotonic() + 20
    while "sleep 2000" not in (seen := ok(docker("exec", "donor", "ps"))):
        assert time.monotonic() < deadline, seen
    assert "sleep 3000" in seen
    ok(docker("kill", "joined"))
    while "sleep 2000" in ok(docker("exec", "donor", "ps")):  # what it left behind in there ends with it
        assert time.monotonic() < deadline
    ok(docker("start", "joined"))
    ok(docker("kill", "donor"))
    assert ok(docker("wait", "joined")) == "137"  # the namespace's end
    again = docker("start", "joined")
    assert re.search("failed to join PID namespace: container [0-9a-f]{64} is not running", again.stderr)


def test_one_that_shares_lives_on_without_sampand(engine: Engine, docker: Docker) -> None:
    donor(docker, "--ipc", "shareable")
    ok(docker("run", "-d", ALONE, "--name", "joined", "--pid", "container:donor", "--ipc", "container:donor", "busybox", "sleep", "3000"))
    engine.stop(signal.SIGKILL)
    engine.start()
    assert sorted(ok(docker("ps", "--format", "{{.Names}}")).split()) == ["donor", "joined"]
    assert "sleep 3000" in ok(docker("exec", "joined", "ps"))


def test_refusals(docker: Docker) -> None:
    identifier = donor(docker)
    ok(docker("create", ALONE, "--name", "dead", "--ipc", "shareable", "busybox", "true"))
    hint = "non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
    private = docker("run", ALONE, "--ipc", "container:donor", "busybox", "true")
    assert (private.returncode, private.stderr.splitlines()[0]) == (
        125,
        f"docker: Error response from daemon: failed to join IPC namespace: container {identifier}: {hint}",
    )
    for kind in ("ipc", "pid"):
        stopped = docker("run", ALONE, f"--{kind}", "container:dead", "busybox", "true")
        assert re.search(f"failed to join {kind.upper()} namespace: container [0-9a-f]{{64}} is not running", stopped.stderr)
        assert stopped.returncode == 125
        missing = docker("create", ALONE, f"--{kind}", "container:nope", "busybox", "true")
        assert missing.stderr.splitlines()[0].endswith("Error response from daemon: No such container: nope")


@pytest.mark.parametrize("runtime", ["runc", "real-runc"])
def test_who_joins_a_network_namespace_leaves_its_sysctls_as_they_are(docker: Docker, runtime: str) -> None:
    name = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
    donor(docker, "--sysctl", "net.ipv4.ip_unprivileged_port_start=500")
    joined = ("run", "--rm", "--runtime", runtime, "--network", "container:donor")
    assert ok(docker(*joined, "busybox", "cat", name)) == "500"
    assert ok(docker(*joined, "--sysctl", "net.ipv4.ip_unprivileged_port_start=600", "busybox", "cat", name)) == "600"
    assert ok(docker("exec", "donor", "cat", name)) == "600"
