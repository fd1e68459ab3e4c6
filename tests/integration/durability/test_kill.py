"""kill -9 of sampand, the keeper and the supervisor while containers write: they go on, and nothing of theirs is lost."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

WRITER = "i=0; while [ ! -e /stop ]; do echo line $i; i=$((i+1)); sleep 0.02; done; exit 7"
ENDING = "i=0; while [ $i -lt 150 ]; do echo line $i; i=$((i+1)); sleep 0.02; done; exit %d"
ONE = ("sampand", "keeper", "supervisor")
SETTLE_SECONDS = 15.0

Docker = Callable[..., subprocess.CompletedProcess[str]]


def pid_of(engine: Engine, role: str) -> int | None:
    """The process of a role."""
    if role == "sampand":
        return engine.pid
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(engine.exec_root) in words and role.encode() in words:
                return int(entry)
    return None


def kill(engine: Engine, *roles: str) -> None:
    """Kill the processes of these roles at once and wait until there are new ones."""
    before: dict[str, int] = {}
    for role in roles:
        pid = pid_of(engine, role)
        assert pid is not None, role
        before[role] = pid
    for pid in before.values():
        os.kill(pid, signal.SIGKILL)
    if "sampand" in roles:
        assert engine.process is not None
        engine.process.wait(10)
        engine.start()
    deadline = time.monotonic() + SETTLE_SECONDS
    while any(pid_of(engine, role) in (None, pid) for role, pid in before.items() if role != "sampand"):
        assert time.monotonic() < deadline, f"no new {roles}"
        time.sleep(0.02)


def check_lines(docker: Docker, name: str) -> int:
    """The log has line 0, line 1, ... and nothing else; returns how many."""
    lines = docker("logs", name).stdout.splitlines()
    wrong = [(i, line) for i, line in enumerate(lines) if line != f"line {i}"]
    assert not wrong, (name, wrong[:3], len(lines))
    return len(lines)


def state(engine: Engine, name: str) -> tuple[str, int]:
    """Status and exit code."""
    found = engine.request("GET", f"/containers/{name}/json")[1]["State"]
    return found["Status"], found["ExitCode"]


@pytest.fixture
def own_engine(make_engine: Callable[..., Engine]) -> Iterator[Engine]:
    """An engine whose processes may be killed."""
    engine = make_engine("--bridge=none")
    engine.start()
    engine.bootstrap()
    yield engine
    if engine.process is not None and engine.process.poll() is None:
        engine.remove_containers()


def survive(engine: Engine, docker_path: str, kills: list[tuple[str, ...]], count: int, ttys: int, endings: int, seed: int) -> None:
    """Start containers, kill, check everything that must still be true."""
    chance = random.Random(seed)

    def docker(*args: str) -> subprocess.CompletedProcess[str]:
        return engine.run_client([docker_path], *args, timeout=30)

    names = [f"c{number}" for number in range(count)]
    codes = {name: 10 + number for number, name in enumerate(names[count - endings :])}
    for number, name in enumerate(names):
        script = ENDING % codes[name] if name in codes else WRITER
        flags = ["-t"] if number < ttys else ["-i"]
        result = docker("run", "-d", "--network=host", *flags, "--name", name, "busybox", "sh", "-c", script)
        assert result.returncode == 0, result.stderr
    for roles in kills:
        time.sleep(chance.uniform(0.05, 0.5))
        kill(engine, *roles)
    for name, code in codes.items():
        assert docker("wait", name).stdout.strip() == str(code), (name, state(engine, name))
        assert check_lines(docker, name) == 150
    going = [name for name in names if name not in codes]
    for name in going:
        assert state(engine, name) == ("running", 0), name
        first = check_lines(docker, name)
        time.sleep(0.1)
        assert check_lines(docker, name) > first, name
    follow = [subprocess.Popen([docker_path, *words, name], env=engine.environment(), stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
              for name in going[:1] + going[-1:] for words in (["logs", "-f"], ["wait"], ["attach", "--no-stdin"])]  # fmt: skip
    time.sleep(0.5)
    for name in going[:-2]:
        result = docker("exec", name, "touch", "/stop")
        assert result.returncode == 0, (name, result.stderr)
        assert docker("wait", name).stdout.strip() == "7", (name, state(engine, name))
        check_lines(docker, name)
    for name in going[-2:]:
        result = docker("stop", "-t", "1", name)
        assert result.returncode == 0, (name, result.stderr)
        assert state(engine, name) == ("exited", 137)
        check_lines(docker, name)
    for client in follow:
        output = client.communicate(timeout=20)[0]
        assert output, client.args
    for name in names:
        result = docker("rm", name)
        assert result.returncode == 0, (name, result.stderr)
    assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(engine.data_root) in line]
    assert engine.request("GET", "/containers/json?all=1")[1] == []


@pytest.mark.parametrize("roles", [(role,) for role in ONE], ids="+".join)
def test_one_killed(own_engine: Engine, docker_path: str, roles: tuple[str, ...]) -> None:
    survive(own_engine, docker_path, [roles], count=6, ttys=2, endings=1, seed=1)


@pytest.mark.parametrize("roles", [("sampand", "keeper"), ("sampand", "supervisor"), ("keeper", "supervisor")], ids="+".join)
def test_two_killed(own_engine: Engine, docker_path: str, roles: tuple[str, ...]) -> None:
    survive(own_engine, docker_path, [roles], count=6, ttys=2, endings=1, seed=2)
