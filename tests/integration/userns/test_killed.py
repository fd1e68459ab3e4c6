"""kill -9 of our processes around containers with user namespaces: nothing but the containers' own processes holds these."""

import itertools
import os
import random
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.userns.conftest import BASE, USER, surrounded
from tests.support.engine import Engine
from tests.support.kills import kill
from tests.support.strays import pid_of

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]
ROLES = ("sampand", "keeper", "supervisor")


@pytest.fixture(scope="module")
def killed_engine(make_engine: Callable[..., Engine]) -> Engine:
    """Of these tests alone."""
    engine = surrounded(make_engine(f"--userns-remap={USER}"))
    engine.start()
    engine.bootstrap()
    return engine


def kill_at_once(engine: Engine, *roles: str) -> None:
    """Kill these, and have sampand started again, without a wait for the others."""
    pids = [pid for pid in (pid_of(engine, role) for role in roles) if pid]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    if "sampand" in roles:
        assert engine.process is not None
        engine.process.wait(10)
        engine.start()


def test_a_container_goes_on_in_its_user_namespace(killed_engine: Engine, docker_path: str) -> None:
    engine = killed_engine

    def run(*args: str) -> str:
        done = engine.run_client([docker_path], *args)
        assert done.returncode == 0, (args, done)
        return done.stdout.strip()

    run("run", "-d", "--name", "box", "-v", "data:/v", "--restart", "always", "busybox", "sleep", "1000")
    pid = int(run("inspect", "-f", "{{.State.Pid}}", "box"))
    userns = os.stat(f"/proc/{pid}/ns/user").st_ino
    for roles in itertools.combinations(ROLES, 2):
        kill(engine, *roles)
        assert run("exec", "box", "sh", "-c", "touch /v/a; stat -c %u /v/a; awk '{print $2}' /proc/self/uid_map").split()[:2] == [
            "0",
            str(BASE),
        ]
        assert run("inspect", "-f", "{{.State.Pid}}", "box") == str(pid)
        assert os.stat(f"/proc/{pid}/ns/user").st_ino == userns
        assert run("cp", "box:/v/a", "-")
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while (new := int(run("inspect", "-f", "{{.State.Pid}}", "box"))) in (0, pid):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert f"Uid:\t{BASE}\t" in Path(f"/proc/{new}/status").read_text()
    run("rm", "-f", "box")
    run("volume", "rm", "data")


def test_the_key_can_be_taken_away_and_given_back(killed_engine: Engine, docker_path: str) -> None:
    engine, key = killed_engine, f"--userns-remap={USER}"

    def run(*args: str) -> str:
        done = engine.run_client([docker_path], *args)
        assert done.returncode == 0, (args, done)
        return done.stdout.strip()

    def again(*, remapped: bool) -> None:
        engine.stop()
        engine.flags = [flag for flag in engine.flags if flag != key] + ([key] if remapped else [])
        engine.start()

    run("run", "-d", "--name", "box", "-v", "data:/v", "busybox", "sleep", "1000")
    run("exec", "box", "sh", "-c", "touch /mine /v/a; chown 7:8 /mine /v/a")
    look = ("exec", "box", "sh", "-c", "stat -c %u:%g /mine /v/a /etc/hosts; awk '{print $2}' /proc/self/uid_map | head -n 1")
    owners = ["7:8", "7:8", "0:0"]
    assert run(*look).split() == [*owners, str(BASE)]
    again(remapped=False)
    assert run(*look).split() == [*owners, str(BASE)], "it runs as it was started"
    run("restart", "-t", "0", "box")
    assert run(*look).split() == [*owners, "0"]
    again(remapped=True)
    assert run(*look).split() == [*owners, "0"]
    assert run("run", "--rm", "-v", "data:/v", "busybox", "stat", "-c", "%u:%g", "/v/a") == "7:8"
    run("restart", "-t", "0", "box")
    assert run(*look).split() == [*owners, str(BASE)]
    run("rm", "-f", "box")
    run("volume", "rm", "data")


def stuck(engine: Engine) -> str:
    """What the engine does while a client waits for something that does not come."""
    os.kill(engine.pid, signal.SIGUSR1)
    deadline = time.monotonic() + 5
    while not (found := [*engine.exec_root.glob("stacks-*")]) and time.monotonic() < deadline:
        time.sleep(0.1)
    dumps = "\n".join(path.read_text() for path in found)
    return f"{engine.request('GET', '/containers/json?all=1')}\n{dumps}\n{engine.log.read_text()[-8000:]}"


def test_starts_that_are_cut_short(killed_engine: Engine, docker_path: str) -> None:
    engine = killed_engine
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    over = threading.Event()
    shown: list[str] = []

    def start_some() -> None:
        try:
            while not over.is_set():
                engine.run_client([docker_path], "run", "--rm", "busybox", "true", timeout=40)
        except subprocess.TimeoutExpired:
            shown.append(stuck(engine))

    threads = [threading.Thread(target=start_some) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for roles in (*itertools.combinations(ROLES, 1), *itertools.combinations(ROLES, 2)):
            over.wait(chance.uniform(0.2, 0.8))
            kill_at_once(engine, *roles)
    finally:
        over.set()
        for thread in threads:
            thread.join(60)
    assert not shown, shown[0]
    engine.remove_containers()
    deadline = time.monotonic() + 60
    while engine.findings() or processes_of(engine):
        assert time.monotonic() < deadline, (engine.findings(), processes_of(engine))
        time.sleep(0.1)
    assert engine.run_client([docker_path], "run", "--rm", "busybox", "id", "-u").stdout == "0\n"


def processes_of(engine: Engine) -> list[str]:
    """What of the lean program runs in a user namespace of its own, or holds one: helpers that outlive their task."""
    own = os.stat("/proc/self/ns/user").st_ino
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if str(engine.exec_root) in (place / "cmdline").read_text() and os.stat(place / "ns/user").st_ino != own:
                found.append(place.name)
        except OSError:
            continue
    return found
