"""The daemon's own end and beginning: with and without live-restore, a second daemon on the same root, a database from the future."""

import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.daemon.config import cgroup_parent, parse_command_line
from sampan.runtime import cgroups
from tests.support.engine import START, Engine, processes_of
from tests.support.strays import pid_of, wait_for_none

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

OBEYS = ["sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.05; done"]
IGNORES = ["sh", "-c", "trap '' TERM; while :; do sleep 0.05; done"]


@pytest.fixture
def make_started(make_engine: Callable[..., Engine]) -> Iterator[Callable[..., Engine]]:
    """A function that makes and starts an engine with the image busybox."""
    made: list[Engine] = []

    def make(*flags: str) -> Engine:
        engine = make_engine(*flags)
        made.append(engine)
        engine.start()
        engine.bootstrap()
        return engine

    yield make
    for engine in made:
        if engine.process is not None and engine.process.poll() is None:
            engine.remove_containers()


def run(engine: Engine, command: list[str], **host: Any) -> str:
    """Create and start; returns the ID."""
    stop_timeout = host.pop("StopTimeout", None)
    body = {"Image": "busybox", "Cmd": command, "HostConfig": host, "StopTimeout": stop_timeout}
    status, answer = engine.request("POST", "/containers/create", body)
    assert status == 201, answer
    assert engine.request("POST", f"/containers/{answer['Id']}/start")[0] == 204
    return str(answer["Id"])


def state(engine: Engine, container: str) -> dict[str, Any]:
    """The State of inspect."""
    found: dict[str, Any] = engine.request("GET", f"/containers/{container}/json")[1]["State"]
    return found


def wait_for_status(engine: Engine, container: str, status: str) -> dict[str, Any]:
    """Wait until a container has a status: what happens at the daemon's start goes on beside the first requests."""
    deadline = time.monotonic() + 60
    while (found := state(engine, container))["Status"] != status:
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


def refused(engine: Engine, *flags: str) -> str:
    """Start a daemon that must refuse to; returns what it says."""
    done = subprocess.run([*START, *engine.flags, *flags], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done
    return done.stderr


def test_with_live_restore_containers_and_helpers_stay(make_started: Callable[..., Engine]) -> None:
    engine = make_started()
    container = run(engine, OBEYS)
    pid, helpers = state(engine, container)["Pid"], [pid_of(engine, role) for role in ("keeper", "supervisor")]
    assert engine.stop() == 0
    assert [pid_of(engine, role) for role in ("keeper", "supervisor")] == helpers
    os.kill(pid, 0)
    engine.start()
    assert state(engine, container)["Pid"] == pid


def test_without_containers_nothing_of_the_engine_stays(make_started: Callable[..., Engine]) -> None:
    engine = make_started()
    assert engine.stop() == 0
    deadline = time.monotonic() + 30
    while engine.leftovers()["processes"]:
        assert time.monotonic() < deadline, engine.leftovers()
        time.sleep(0.05)


def test_without_live_restore_containers_are_stopped_and_policies_hold(make_started: Callable[..., Engine]) -> None:
    engine = make_started("--live-restore=false", "--shutdown-timeout=1")
    obeys = run(engine, OBEYS)
    slow = run(engine, IGNORES, StopTimeout=2)
    always = run(engine, OBEYS, RestartPolicy={"Name": "always"})
    unless = run(engine, OBEYS, RestartPolicy={"Name": "unless-stopped"})
    stopped = run(engine, OBEYS, RestartPolicy={"Name": "unless-stopped"})
    removed = run(engine, OBEYS, AutoRemove=True)
    assert engine.request("POST", f"/containers/{stopped}/stop")[0] == 204
    assert engine.stop() == 0
    engine.start()
    assert state(engine, obeys)["ExitCode"] == 3
    assert (state(engine, slow)["Status"], state(engine, slow)["ExitCode"]) == ("exited", 137)
    wait_for_status(engine, always, "running")
    wait_for_status(engine, unless, "running")
    assert state(engine, stopped)["Status"] == "exited"
    assert engine.request("GET", f"/containers/{removed}/json")[0] == 404
    engine.remove_containers()
    wait_for_none(engine)


def test_policies_hold_though_the_stop_of_all_is_killed(make_started: Callable[..., Engine]) -> None:
    """No user has stopped what the daemon's end stops; and no policy starts anything while it does."""
    engine = make_started("--live-restore=false", "--shutdown-timeout=60")
    deaf = run(engine, IGNORES, StopTimeout=60)
    unless = run(engine, OBEYS, RestartPolicy={"Name": "unless-stopped"})
    again = run(engine, ["false"], RestartPolicy={"Name": "always"})

    def runs() -> int:
        found: int = engine.request("GET", f"/containers/{again}/json")[1]["RestartCount"]
        return found

    deadline = time.monotonic() + 60
    while runs() < 3:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(engine.pid, signal.SIGTERM)
    wait_for_status(engine, unless, "exited")
    before = runs()
    until = time.monotonic() + 1.2  # the next run was due in 0.8 s at the most
    while time.monotonic() < until:
        assert runs() == before
        time.sleep(0.05)
    deaf_pid = state(engine, deaf)["Pid"]
    engine.stop(signal.SIGKILL)
    os.kill(deaf_pid, signal.SIGKILL)
    engine.start()
    wait_for_status(engine, unless, "running")
    while runs() == before:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    engine.remove_containers()
    wait_for_none(engine)


def test_without_live_restore_what_is_found_alive_is_stopped(make_started: Callable[..., Engine]) -> None:
    """As dockerd after its own kill -9 (moby daemon.restore)."""
    engine = make_started("--live-restore=false")
    container = run(engine, OBEYS)
    engine.stop(signal.SIGKILL)
    engine.start()
    assert wait_for_status(engine, container, "exited")["ExitCode"] == 3


def test_what_ended_while_the_daemon_was_away(make_started: Callable[..., Engine]) -> None:
    engine = make_started()
    go = Path(engine.root, "go")
    go.mkdir()
    command = ["sh", "-c", "while [ ! -e /go/now ]; do sleep 0.02; done; echo last words; exit 9"]
    once = run(engine, command, Binds=[f"{go}:/go"])
    retried = run(engine, command, Binds=[f"{go}:/go"], RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 1})
    removed = run(engine, command, Binds=[f"{go}:/go"], AutoRemove=True)
    pids = [state(engine, one)["Pid"] for one in (once, retried, removed)]
    engine.stop(signal.SIGKILL)
    (go / "now").touch()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    engine.start()
    assert wait_for_status(engine, once, "exited")["ExitCode"] == 9
    text = engine.request("GET", f"/containers/{once}/logs?stdout=1")[1]
    assert text.endswith(b"last words\n")
    deadline = time.monotonic() + 60
    while engine.request("GET", f"/containers/{retried}/json")[1]["RestartCount"] != 1:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    while engine.request("GET", f"/containers/{removed}/json")[0] != 404:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    engine.remove_containers()
    wait_for_none(engine)


def test_a_pause_half_done(make_started: Callable[..., Engine]) -> None:
    """sampand killed between freezing a container and storing it: it runs on. The other way round too."""
    engine = make_started()
    container = run(engine, OBEYS)
    path = f"{cgroup_parent(parse_command_line(engine.flags))}/{container}"
    engine.stop(signal.SIGKILL)
    cgroups.freeze(cgroups.host_layout(), path, True)
    engine.start()
    assert state(engine, container)["Status"] == "running"
    assert not cgroups.is_frozen(cgroups.host_layout(), path)
    assert engine.request("POST", f"/containers/{container}/pause")[0] == 204
    engine.stop(signal.SIGKILL)
    cgroups.freeze(cgroups.host_layout(), path, False)
    engine.start()
    assert state(engine, container)["Status"] == "running"
    assert engine.request("POST", f"/containers/{container}/stop")[0] == 204
    assert state(engine, container)["ExitCode"] == 3


def test_a_process_number_of_another_boot_means_nothing(make_started: Callable[..., Engine]) -> None:
    """As after the host went down hard: the database calls a container running whose PID is another's now."""
    engine = make_started()
    container = run(engine, OBEYS)
    engine.request("POST", f"/containers/{container}/kill")
    wait_for_none(engine)  # nobody remembers how it ended
    engine.stop(signal.SIGKILL)
    sleeper = subprocess.Popen(["sleep", "60"])
    with sqlite3.connect(engine.data_root / "state.db") as database:
        change = (
            "CAST(json_set(CAST(state AS TEXT), '$.status', 'running', '$.pid', ?, '$.boot_id', 'another boot', '$.start_time', ?) AS BLOB)"
        )
        started = int(Path(f"/proc/{sleeper.pid}/stat").read_text().rpartition(")")[2].split()[19])
        database.execute(f"UPDATE containers SET state = {change} WHERE id = ?", (sleeper.pid, started, container))
    try:
        engine.start()
        assert wait_for_status(engine, container, "exited")["ExitCode"] == 255
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait(10)
    assert engine.request("POST", f"/containers/{container}/start")[0] == 204


def test_a_second_daemon_on_the_same_root_is_refused(make_started: Callable[..., Engine], tmp_path: Path) -> None:
    engine = make_started()
    assert f"process with PID {engine.pid} is still running" in refused(engine)
    other = [f"--exec-root={tmp_path}", f"--pidfile={tmp_path}/pid", f"--host=unix://{tmp_path}/sock"]
    flags = [flag for flag in engine.flags if not flag.startswith(("--exec-root", "--bridge", "--bip"))]
    done = subprocess.run([*START, *flags, *other, "--bridge=none"], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, f"another sampand is running on {engine.data_root}" in done.stderr) == (1, True), done
    assert engine.request("GET", "/_ping")[0] == 200


def test_a_database_from_the_future_is_refused(make_started: Callable[..., Engine]) -> None:
    engine = make_started()
    assert engine.stop() == 0
    with sqlite3.connect(engine.data_root / "state.db") as database:
        current = database.execute("PRAGMA user_version").fetchone()[0]
        database.execute("PRAGMA user_version=9999")
    text = refused(engine)
    assert f"schema 9999, this sampand knows up to {current}: it was written by a newer version" in text
    assert len(text.strip().splitlines()) == 1, text
    deadline = time.monotonic() + 30
    while left := processes_of(str(engine.root)):  # the keeper came up beside the sampand that did not start
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    with sqlite3.connect(engine.data_root / "state.db") as database:
        database.execute(f"PRAGMA user_version={current}")
    engine.start()
