"""Health checks by the real docker client; what is expected is what dockerd 28 did with the same commands."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

Docker = Callable[..., subprocess.CompletedProcess[str]]
RUN = ("run", "-d", "--network=none", "--name")
LASTING = ("busybox", "sleep", "1000")


@contextmanager
def health_events(engine: Engine, docker_path: str, name: str) -> Iterator[Callable[[], str]]:
    """A function that waits for a container's next health_status event, and returns its status."""
    filters = ["--filter", f"container={name}", "--filter", "event=health_status"]
    command = [docker_path, "events", "--since", f"{time.time():.9f}", *filters, "--format", "{{.Action}}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=engine.environment()) as process:
        assert process.stdout is not None
        lines = process.stdout
        try:
            yield lambda: lines.readline().strip().removeprefix("health_status: ")
        finally:
            process.kill()


def health_of(engine: Engine, name: str) -> Any:
    """State.Health."""
    return engine.request("GET", f"/containers/{name}/json")[1]["State"].get("Health")


def test_a_life(engine: Engine, docker: Docker, docker_path: str) -> None:
    options = ["--health-cmd", "echo tried; test -e /well", "--health-interval=100ms", "--health-retries=2", "--health-timeout=5s"]
    with health_events(engine, docker_path, "living") as status:
        assert docker("create", "--network=none", "--name", "living", *options, *LASTING).returncode == 0
        assert health_of(engine, "living") is None
        docker("start", "living")
        assert status() == "unhealthy"
        found = health_of(engine, "living")
        assert found["FailingStreak"] >= 2
        assert {(item["ExitCode"], item["Output"]) for item in found["Log"]} == {(1, "tried\n")}
        assert docker("ps", "--format", "{{.Status}}").stdout.strip().endswith(" (unhealthy)")
        docker("exec", "living", "touch", "/well")
        assert status() == "healthy"
        assert docker("ps", "--format", "{{.Status}}").stdout.strip().endswith(" (healthy)")
        assert docker("ps", "-q", "--filter", "health=healthy").stdout
        assert not docker("ps", "-q", "--filter", "health=unhealthy", "--filter", "health=none").stdout
        docker("pause", "living")
        assert health_of(engine, "living")["Status"] == "unhealthy"
        assert docker("ps", "--format", "{{.Status}}").stdout.strip().endswith(" (Paused)")
        docker("unpause", "living")
        assert status() == "healthy"
    docker("kill", "living")
    docker("wait", "living")
    found = health_of(engine, "living")
    assert found["Status"] == "unhealthy"
    assert 3 <= len(found["Log"]) <= 5  # two that failed, one that did not
    assert not engine.request("GET", "/containers/living/json")[1]["ExecIDs"]


def test_slow_loud_and_absent_probes(engine: Engine, docker: Docker, docker_path: str) -> None:
    once = ["--health-interval=50ms", "--health-retries=1"]
    commands = {
        "slow": ["--health-cmd", "echo said; sleep 1000", "--health-timeout=300ms"],
        "loud": ["--health-cmd", "yes & head -c 200000 /dev/zero | tr '\\0' x; kill $!; exit 3"],
        "left": ["--health-cmd", "sleep 1000 & echo done; exit 4"],  # it leaves a process that holds the pipe
    }
    expected = {
        "slow": (-1, "Health check exceeded timeout (300ms): said\n"),
        "left": (4, "done\n"),
    }
    for name, options in commands.items():
        with health_events(engine, docker_path, name) as status:
            assert docker(*RUN, name, *once, *options, *LASTING).returncode == 0
            assert status() == "unhealthy"
            first = health_of(engine, name)["Log"][0]
            docker("rm", "-f", name)
        if name in expected:
            assert (first["ExitCode"], first["Output"]) == expected[name]
        else:
            assert first["ExitCode"] == 3
            assert len(first["Output"]) == 4099
            assert first["Output"].endswith("...")
    with health_events(engine, docker_path, "absent") as status:
        made = engine.request(
            "POST",
            "/containers/create?name=absent",
            {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"},
             "Healthcheck": {"Test": ["CMD", "/nothere"], "Interval": 50_000_000, "Retries": 1}},
        )  # fmt: skip
        assert made[0] == 201
        docker("start", "absent")
        assert status() == "unhealthy"
    first = health_of(engine, "absent")["Log"][0]
    assert first["ExitCode"] == -1
    assert first["Output"].startswith("OCI runtime exec failed: exec failed: unable to start container process: exec: ")


def test_a_slow_probe_is_killed(engine: Engine, docker: Docker, docker_path: str) -> None:
    options = ["--health-cmd", "exec sleep 12345", "--health-interval=50ms", "--health-timeout=100ms", "--health-retries=3"]
    with health_events(engine, docker_path, "killing") as status:
        assert docker(*RUN, "killing", *options, *LASTING).returncode == 0
        assert status() == "unhealthy"
    assert docker("top", "killing", "-eo", "pid,args").stdout.count("sleep 12345") <= 1


def test_the_images_check(engine: Engine, docker: Docker, docker_path: str) -> None:
    changes = ["--change", 'HEALTHCHECK --interval=300ms CMD ["true"]']  # four events each time, and not all are remembered
    docker("create", "--name", "template", *LASTING)
    assert docker("commit", *changes, "template", "checked").returncode == 0
    with health_events(engine, docker_path, "of-image") as status:
        assert docker(*RUN, "of-image", "checked").returncode == 0
        assert status() == "healthy"
    assert docker(*RUN, "unchecked", "--no-healthcheck", "checked").returncode == 0
    assert health_of(engine, "unchecked") is None
    assert docker("ps", "--format", "{{.Names}}", "--filter", "health=none").stdout.split() == ["unchecked"]
    events = docker("events", "--since=1m", "--until=-1s", "--filter", "container=of-image", "--format", "{{json .Action}}").stdout
    actions = [json.loads(line) for line in events.splitlines()]
    start = actions.index("start")
    assert actions[start : start + 5] == ["start", "exec_create: true ", "exec_start: true ", "exec_die", "health_status: healthy"]
    docker("rm", "-f", "of-image", "unchecked", "template")
    docker("rmi", "checked")


def test_refused(docker: Docker) -> None:
    result = docker("create", "--health-cmd=x", "--health-interval=10us", *LASTING)
    assert result.returncode == 1
    assert "Interval in Healthcheck cannot be less than 1ms" in result.stderr
