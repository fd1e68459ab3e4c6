"""kill -9 of our processes, and of helpers, while OCI runtimes start containers and execs: nothing is left of what was half done."""

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from tests.support.clients import Clients
from tests.support.engine import Engine, processes_of
from tests.support.strays import complaints, pid_of, wait_for_none

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


class Busy(Clients):
    """They start containers of one runtime, have execs in them, and remove them."""

    timeout = 30.0

    def __init__(self, engine: Engine, runtime: str, seed: int) -> None:
        self.runtime, self.made = runtime, 0
        super().__init__(engine, seed, 3)

    def one_thing(self, chance: random.Random) -> None:
        command = chance.choice([["sleep", "60"], ["true"], ["no-such-program"]])
        host = {"Runtime": self.runtime, "AutoRemove": chance.random() < 0.3}
        status, answer = self.ask(
            "POST", "/containers/create", {"Image": "busybox", "Cmd": command, "Tty": chance.random() < 0.3, "HostConfig": host}
        )
        if status != 201:
            return
        one = f"/containers/{answer['Id']}"
        self.made += self.ask("POST", f"{one}/start")[0] == 204
        status, made = self.ask("POST", f"{one}/exec", {"Cmd": ["sleep", "60"]})
        if status == 201:
            self.ask("POST", f"/exec/{made['Id']}/start", {"Detach": True})
        if chance.random() < 0.8:
            self.ask("DELETE", f"{one}?force=1")


def victims(engine: Engine, role: str) -> list[int]:
    """helper: the children of the supervisor that run a runtime."""
    if role != "helper":
        return [pid for pid in [pid_of(engine, role)] if pid is not None]
    found = []
    supervisor = pid_of(engine, "supervisor")
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError, ValueError):
            fields = Path(f"/proc/{int(entry)}/stat").read_text().rpartition(")")[2].split()
            words = Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            if int(fields[1]) == supervisor and b"supervisor" in words:
                found.append(int(entry))
    return found


def crash(engine: Engine, runtime: str, seed: int, rounds: int) -> None:
    """Kill at random instants; then remove everything, and nothing is left."""
    chance = random.Random(seed)
    made = 0
    for number in range(rounds):
        clients = Busy(engine, runtime, seed * 1000 + number)
        for role in chance.choice(
            [["helper"] * 5, ["supervisor"], ["keeper"], ["sampand"], ["supervisor", "helper"], ["keeper", "supervisor"]]
        ):
            time.sleep(chance.uniform(0.05, 0.5))
            for pid in victims(engine, role):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.5)
        clients.stop()
        made += clients.made
        assert engine.process is not None
        if engine.process.poll() is not None or not _answers(engine):
            engine.process.wait(10)
            engine.start()
    assert made, "the clients did next to nothing"
    engine.remove_containers()
    wait_for_none(engine)
    assert complaints(engine) == []
    place = str(engine.exec_root / "runtimes")
    assert processes_of(place) == []


def _answers(engine: Engine) -> bool:
    with contextlib.suppress(OSError):
        return engine.request("GET", "/_ping")[0] == 200
    return False


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["real-runc", "crun"])
def test_killed_while_busy(crashing: Engine, runtime: str) -> None:
    crash(crashing, runtime, seed=1, rounds=4)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("runtime", ["real-runc", "crun"])
@pytest.mark.parametrize("seed", range(2, 4))
def test_killed_while_busy_again_and_again(crashing: Engine, runtime: str, seed: int) -> None:
    crash(crashing, runtime, seed, rounds=20)
