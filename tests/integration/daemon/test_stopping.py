"""A stop that waits long keeps nobody else waiting."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

Docker = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def stopping(engine: Engine, docker: Docker, docker_path: str) -> Iterator[subprocess.Popen[bytes]]:
    """A stop under way of the container `deaf`, which does not listen to SIGTERM."""
    deaf = docker("run", "-d", "--name", "deaf", "busybox", "sleep", "1000")
    assert deaf.returncode == 0
    stop = subprocess.Popen([docker_path, "stop", "-t", "1000", "deaf"], env=engine.environment(), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not any(event["Action"] == "kill" for event in events(engine, deaf.stdout.strip())):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    yield stop
    stop.kill()
    stop.wait(20)
    assert stop.stderr is not None
    stop.stderr.close()


def events(engine: Engine, container: str) -> list[dict[str, str]]:
    """What happened to a container, by ID: others had the same name."""
    text = engine.request("GET", f'/events?since=1&until={time.time():.3f}&filters={{"container":["{container}"]}}')[1]
    if isinstance(text, dict):
        return [text]
    return [json.loads(line) for line in text.decode().splitlines()]


def test_forced_removal(stopping: subprocess.Popen[bytes], docker: Docker) -> None:
    assert docker("rm", "-f", "deaf").returncode == 0
    assert stopping.wait(60) == 0
    assert docker("inspect", "deaf").returncode == 1


def test_a_shorter_stop(stopping: subprocess.Popen[bytes], docker: Docker) -> None:
    assert docker("stop", "-t", "0", "deaf").returncode == 0
    assert stopping.wait(60) == 0
    assert docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", "deaf").stdout == "exited 137\n"


def test_a_shorter_restart(stopping: subprocess.Popen[bytes], docker: Docker) -> None:
    assert docker("restart", "-t", "0", "deaf").returncode == 0
    assert stopping.wait(60) == 0
    assert docker("inspect", "-f", "{{.State.Status}}", "deaf").stdout == "running\n"
