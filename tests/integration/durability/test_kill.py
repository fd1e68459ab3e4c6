"""kill -9 of sampand, the keeper and the supervisor while containers write: they go on, and nothing of theirs is lost."""

import http.client
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from sampan.daemon.config import cgroup_parent, parse_command_line
from sampan.engine.runner import DRAIN_SECONDS
from sampan.runtime import cgroups
from tests.support.engine import CLI, START, Engine
from tests.support.kills import SETTLE_SECONDS, kill, standing_still
from tests.support.strays import cgroups_of, complaints, pid_of, wait_for_none

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

WRITER = "trap 'exit 7' TERM; i=0; while :; do echo line $i; i=$((i+1)); sleep 0.02; done"
ENDING = "i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); sleep 0.02; done; exit %d"
ONE = ("sampand", "keeper", "supervisor")
ALREADY_ENDED = "You cannot attach to a stopped container, start it first"

Docker = Callable[..., subprocess.CompletedProcess[str]]


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
def own_engine(crashing: Engine) -> Iterator[Engine]:
    """An engine whose processes may be killed: one for all tests here, what a round leaves would show in the next.

    A test's containers are removed after it.
    """
    engine = crashing
    if engine.process is None or engine.process.poll() is not None:
        engine.start()
    yield engine
    if engine.process is not None and engine.process.poll() is None:
        engine.remove_containers()


class Clients:
    """`logs -f`, `wait` and `attach` of the docker client that are there before the kill, for a few containers."""

    def __init__(self, engine: Engine, docker_path: str, names: list[str]) -> None:
        self.names = names
        self.processes: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
        for name in names:
            for words in (["logs", "-f"], ["wait"], ["attach", "--no-stdin"]):
                self.processes[name, words[0]] = subprocess.Popen(
                    [docker_path, *words, name], env=engine.environment(),
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                )  # fmt: skip

    def check(self, engine: Engine) -> None:
        """Everything was told, to the last line: their sampand was never killed."""
        for name in self.names:
            log = engine.request("GET", f"/containers/{name}/json")[1]
            count = int(log["State"]["ExitCode"])
            told = {word: self.processes[name, word].communicate(timeout=60)[0].decode() for word in ("logs", "wait", "attach")}
            assert told["wait"].strip() == str(count), (name, told["wait"])
            logged = lines_of(told["logs"])
            assert logged == [f"line {i}" for i in range(len(logged))], (name, logged[-3:])
            attached = lines_of(told["attach"])
            if attached == [ALREADY_ENDED] and count != 7:  # a slow machine, and one of those that end by themselves
                continue
            assert attached, name
            assert attached == logged[len(logged) - len(attached) :], (name, attached[:2], attached[-2:], logged[-2:])


def lines_of(text: str) -> list[str]:
    """Lines, as a terminal or a pipe gives them."""
    return text.replace("\r", "").splitlines()


def start_all(docker: Docker, chance: random.Random, count: int, ttys: int, endings: int) -> tuple[list[str], dict[str, tuple[int, int]]]:
    """Names, and (exit code, lines) of those that end by themselves. Ttys are spread over both; every fourth is on the host's network."""
    names = [f"c{number}" for number in range(count)]
    # the last ones, so that they end while there are kills
    ends = {name: (10 + number, chance.randrange(40, 200)) for number, name in enumerate(names[count - endings :])}
    terminals = set(chance.sample(names, ttys))
    for number, name in enumerate(names):
        script = ENDING % (ends[name][1], ends[name][0]) if name in ends else WRITER
        flags = ["-t"] if name in terminals else ["-i"]
        flags += ["--network=host"] if number % 4 == 3 else ["-p", "127.0.0.1::80"] if number % 4 == 1 else []
        result = docker("run", "-d", *flags, "--name", name, "busybox", "sh", "-c", script)
        assert result.returncode == 0, result.stderr
    return names, ends


def survive(engine: Engine, docker_path: str, kills: list[tuple[str, ...]], count: int, ttys: int, endings: int, seed: int) -> None:
    """Start containers, kill, check everything that must still be true."""
    chance = random.Random(seed)

    def docker(*args: str) -> subprocess.CompletedProcess[str]:
        return engine.run_client([docker_path], *args, timeout=60)

    names, ends = start_all(docker, chance, count, ttys, endings)
    going = [name for name in names if name not in ends]
    stays = all("sampand" not in roles for roles in kills)
    before = Clients(engine, docker_path, [going[0], going[-1], max(ends, key=lambda name: ends[name][1])] if stays else [])
    for roles in kills:
        time.sleep(chance.uniform(0.0, 0.8))
        kill(engine, *roles)
    for name, (code, lines) in ends.items():
        assert docker("wait", name).stdout.strip() == str(code), (name, state(engine, name))
        assert check_lines(docker, name) == lines
    for name in going:
        assert state(engine, name) == ("running", 0), name
        first = check_lines(docker, name)
        deadline = time.monotonic() + SETTLE_SECONDS
        while check_lines(docker, name) == first:
            assert time.monotonic() < deadline, f"{name} writes no more"
            time.sleep(0.05)
    after = Clients(engine, docker_path, going[-1:])
    time.sleep(0.5)
    for number, name in enumerate(going):
        assert docker("exec", name, "echo", "hi").stdout == "hi\n", name
        result = docker("stop", name) if number % 2 else docker("kill", "-s", "TERM", name)
        assert result.returncode == 0, (name, result.stderr)
        assert docker("wait", name).stdout.strip() == "7", (name, state(engine, name))
        check_lines(docker, name)
    before.check(engine)
    after.check(engine)
    for name in names:
        result = docker("rm", name)
        assert result.returncode == 0, (name, result.stderr)
    wait_for_none(engine)
    assert complaints(engine) == []
    assert engine.request("GET", "/containers/json?all=1")[1] == []


TWO = [("sampand", "keeper"), ("sampand", "supervisor"), ("keeper", "supervisor")]
EACH = [*[(role,) for role in ONE], *TWO]


@pytest.mark.parametrize("roles", EACH, ids="+".join)
def test_killed(own_engine: Engine, docker_path: str, roles: tuple[str, ...]) -> None:
    survive(own_engine, docker_path, [roles], count=6, ttys=3, endings=2, seed=1)


@pytest.mark.parametrize("runtime", ["runc", "real-runc", "crun"])
def test_all_three_killed(own_engine: Engine, runtime: str) -> None:
    """More than is promised: what has no terminal and no end meanwhile is found again by what the database says of it."""
    body = {"Image": "busybox", "Cmd": ["sh", "-c", WRITER], "HostConfig": {"Runtime": runtime}}
    created = own_engine.request("POST", "/containers/create", body)[1]["Id"]
    assert own_engine.request("POST", f"/containers/{created}/start")[0] == 204
    pid = own_engine.request("GET", f"/containers/{created}/json")[1]["State"]["Pid"]
    kill(own_engine, *ONE)
    assert own_engine.request("GET", f"/containers/{created}/json")[1]["State"]["Pid"] == pid
    assert own_engine.request("POST", f"/containers/{created}/stop")[0] == 204
    assert state(own_engine, created) == ("exited", 7)
    text = own_engine.request("GET", f"/containers/{created}/logs?stdout=1")[1]
    assert b"line 0\n" in text


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("roles", EACH, ids="+".join)
def test_killed_again_and_again(own_engine: Engine, docker_path: str, roles: tuple[str, ...], seed: int) -> None:
    """20 containers, half of them with a terminal, a quarter ending meanwhile; three kills at instants the seed gives."""
    survive(own_engine, docker_path, [roles] * 3, count=20, ttys=10, endings=5, seed=seed)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(3))
def test_all_kinds_of_kills(own_engine: Engine, docker_path: str, seed: int) -> None:
    kills = EACH * 2
    random.Random(seed).shuffle(kills)
    survive(own_engine, docker_path, kills, count=20, ttys=10, endings=5, seed=100 + seed)


@pytest.mark.parametrize("roles", [("sampand",), ("sampand", "supervisor")], ids="+".join)
def test_health_checks_go_on(own_engine: Engine, docker_path: str, roles: tuple[str, ...]) -> None:
    """The status stays; a probe that ran is ended and not left beside the next one's."""

    def docker(*args: str) -> str:
        result = own_engine.run_client([docker_path], *args)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def hanging() -> list[str]:
        return [line.split()[0] for line in docker("top", "probed", "-eo", "pid,args").splitlines() if line.endswith("sleep 54321")]

    def wait_for(condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def health() -> dict[str, object]:
        found: dict[str, object] = own_engine.request("GET", "/containers/probed/json")[1]["State"]["Health"]
        return found

    options = ["--health-interval=100ms", "--health-timeout=60s", "--health-cmd", "test ! -e /hang || exec sleep 54321"]
    docker("run", "-d", "--network=none", "--name", "probed", *options, "busybox", "sleep", "1000")
    wait_for(lambda: health()["Status"] == "healthy")
    docker("exec", "probed", "touch", "/hang")
    wait_for(lambda: bool(hanging()))
    before, former = health(), hanging()
    kill(own_engine, *roles)
    assert health() == before
    wait_for(lambda: len(hanging()) == 1 and hanging() != former)
    docker("rm", "-f", "probed")


@pytest.mark.parametrize("roles", [("supervisor",), ("sampand", "supervisor"), ("keeper", "supervisor")], ids="+".join)
def test_the_supervisor_is_killed_while_a_child_of_it_cannot_go_on(own_engine: Engine, roles: tuple[str, ...]) -> None:
    """A child that is frozen in the midst of its setting up still has the supervisor's sockets: that they are open means nothing."""
    engine = own_engine
    for name in ("frozen", "other"):
        body = {"Image": "busybox", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "none"}}
        assert engine.request("POST", f"/containers/create?name={name}", body)[0] == 201
        assert engine.request("POST", f"/containers/{name}/start")[0] == 204
    identity = engine.request("GET", "/containers/frozen/json")[1]["Id"]
    layout, path = cgroups.host_layout(), f"{cgroup_parent(parse_command_line(engine.flags))}/{identity}"
    before = [pid for role in roles if (pid := pid_of(engine, role)) is not None]
    cgroups.freeze(layout, path, True)
    pending = subprocess.Popen([*CLI, "exec", "frozen", "true"], env=engine.environment(), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while len(cgroups_of(engine)[identity]) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        if "sampand" in roles:
            engine.stop()
            engine.start()
        assert engine.cli("exec", "other", "echo", "hi", timeout=25).stdout == "hi\n"
    finally:
        cgroups.freeze(layout, path, False)
        pending.wait(60)
    assert engine.cli("exec", "frozen", "echo", "hi").stdout == "hi\n"
    engine.remove_containers()
    wait_for_none(engine)


DIES_REMOVING = """
import os, shutil
rmtree = shutil.rmtree
shutil.rmtree = lambda path, *words, **named: os.kill(os.getpid(), 9) if "/data/containers/" in str(path) else rmtree(path, *words, **named)
from sampan.daemon.main import entry
entry()
"""


def test_a_removal_that_is_killed_half_way_is_ended_and_called_nothing_else(own_engine: Engine) -> None:
    """Files that are gone already are not lost."""
    engine = own_engine
    engine.stop()
    engine.program = [*START[:-1], DIES_REMOVING]
    engine.start()
    engine.program = START
    assert engine.request("POST", "/containers/create?name=half", {"Image": "busybox"})[0] == 201
    with pytest.raises((OSError, http.client.HTTPException)):
        engine.request("DELETE", "/containers/half")
    written = engine.log.stat().st_size
    engine.stop()
    engine.start()
    deadline = time.monotonic() + 30
    while engine.request("GET", "/containers/half/json")[0] != 404:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "WARNING" not in engine.log.read_bytes()[written:].decode()
    wait_for_none(engine)


def test_a_cgroup_that_was_made_too_late_goes_with_the_container(own_engine: Engine) -> None:
    """By the child of a killed supervisor, after sampand had given the launch up and looked."""
    engine = own_engine
    identity = engine.request("POST", "/containers/create?name=late", {"Image": "busybox"})[1]["Id"]
    path = f"{cgroup_parent(parse_command_line(engine.flags))}/{identity}"
    made = [directory for directory in cgroups.directories(cgroups.host_layout(), path) if not os.path.exists(directory)]
    for directory in made:
        os.makedirs(directory)
    assert made
    assert engine.request("DELETE", "/containers/late")[0] == 204
    assert not any(map(os.path.exists, made))
    wait_for_none(engine)


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipes"])
@pytest.mark.parametrize("roles", [("keeper",), ("supervisor",), ("keeper", "supervisor")], ids="+".join)
def test_killed_between_the_end_of_a_run_and_that_of_its_output(
    own_engine: Engine, docker_path: str, roles: tuple[str, ...], *, terminal: bool
) -> None:
    """sampand alone knows of the end then, and what is left in the pipes has to get into the log all the same."""
    engine = own_engine
    script = "trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done"
    run = ["run", f"--tty={terminal}", "--name=ends", "--network=none", "busybox", "sh", "-c", script]
    client = subprocess.Popen(
        [docker_path, *run], env=engine.environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert client.stdout is not None
    assert client.stdout.readline().strip() == b"up"
    with standing_still(engine, ["keeper"]):
        assert engine.request("POST", "/containers/ends/kill?signal=TERM")[0] == 204
        deadline = time.monotonic() + SETTLE_SECONDS
        while state(engine, "ends") != ("exited", 3):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for pid in [pid_of(engine, role) for role in roles]:
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
    assert client.communicate(timeout=DRAIN_SECONDS - 5)[0].strip() == b"bye"
    assert client.returncode == 3
    assert engine.run_client([docker_path], "logs", "ends").stdout.split() == ["up", "bye"]
    assert complaints(engine) == []
