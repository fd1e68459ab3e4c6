"""Restart policies and health checks go on where they were when sampand is killed with -9 and started again."""

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root


@pytest.fixture
def lone(make_engine: Callable[..., Engine]) -> Engine:
    """One that may be killed."""
    engine = make_engine()
    engine.start()
    engine.bootstrap()
    return engine


def run(engine: Engine, name: str, policy: str, *command: str, options: tuple[str, ...] = ()) -> None:
    done = engine.cli("run", "-d", "--network=none", "--name", name, "--restart", policy, *options, "busybox", *command)
    assert done.returncode == 0, done.stderr


def shown(engine: Engine, name: str) -> Any:
    return engine.request("GET", f"/containers/{name}/json")[1]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Until it holds, a minute at the most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def status(engine: Engine, name: str) -> str:
    found: str = shown(engine, name)["State"]["Status"]
    return found


def is_running(engine: Engine, name: str) -> bool:
    return status(engine, name) == "running"


def kill_and_start(engine: Engine, meanwhile: Callable[[], None] = lambda: None) -> float:
    """When it was started again."""
    engine.stop(signal.SIGKILL)
    meanwhile()
    now = time.time()
    engine.start()
    return now


def events(engine: Engine, name: str, since: float) -> list[str]:
    done = engine.cli(
        "events", "--since", f"{since:.9f}", "--until", f"{time.time():.9f}", "--filter", f"container={name}", "--format", "{{.Action}}"
    )
    return done.stdout.split("\n")[:-1]


def test_who_runs_again(lone: Engine) -> None:
    for name, policy in (("plain", "no"), ("kept", "always"), ("left", "unless-stopped"), ("failing", "on-failure"), ("both", "always")):
        run(lone, name, policy, "sleep", "1000")
    for name in ("both", "plain"):
        assert lone.cli("stop", "-t", "0", name).returncode == 0
    run(lone, "off", "unless-stopped", "sleep", "1000")
    assert lone.cli("stop", "-t", "0", "off").returncode == 0
    pids = {name: shown(lone, name)["State"]["Pid"] for name in ("kept", "left", "failing")}

    def meanwhile() -> None:
        for name in ("kept", "failing"):
            os.kill(pids[name], signal.SIGKILL)

    started = kill_and_start(lone, meanwhile)
    for name in ("kept", "failing", "both"):
        wait_for(partial(is_running, lone, name), name)
        assert "start" in events(lone, name, started), name
    assert "die" in events(lone, "kept", started)
    assert (status(lone, "left"), shown(lone, "left")["State"]["Pid"]) == ("running", pids["left"])
    assert [status(lone, name) for name in ("plain", "off")] == ["exited", "exited"]
    assert [shown(lone, name)["RestartCount"] for name in ("kept", "failing", "left")] == [1, 1, 0]


def test_failures_are_counted_on(lone: Engine) -> None:
    """Four runs altogether, with a kill between them; and the pauses grow on."""
    run(lone, "poor", "on-failure:3", "sh", "-c", "echo run; sleep 0.3; exit 7")
    wait_for(lambda: shown(lone, "poor")["RestartCount"] >= 1, "the first failure")
    kill_and_start(lone)
    wait_for(lambda: status(lone, "poor") == "exited" and shown(lone, "poor")["RestartCount"] == 3, "the last failure")
    assert shown(lone, "poor")["State"]["ExitCode"] == 7
    assert lone.cli("logs", "poor").stdout.count("run") == 4
    kill_and_start(lone)
    assert (status(lone, "poor"), shown(lone, "poor")["RestartCount"]) == ("exited", 3)


def test_health_goes_on(lone: Engine) -> None:
    options = ("--health-cmd", "test ! -e /ill", "--health-interval=100ms", "--health-retries=2")
    run(lone, "well", "no", "sleep", "1000", options=options)
    wait_for(lambda: shown(lone, "well")["State"]["Health"]["Status"] == "healthy", "the first probe")
    started = kill_and_start(lone)
    assert shown(lone, "well")["State"]["Health"]["Status"] == "healthy"
    assert lone.cli("exec", "well", "touch", "/ill").returncode == 0
    wait_for(lambda: shown(lone, "well")["State"]["Health"]["Status"] == "unhealthy", "a probe after the kill")
    assert "health_status: unhealthy" in events(lone, "well", started)
    streak = shown(lone, "well")["State"]["Health"]["FailingStreak"]
    kill_and_start(lone)
    found = shown(lone, "well")["State"]["Health"]
    assert found["Status"] == "unhealthy"
    assert found["FailingStreak"] >= streak
