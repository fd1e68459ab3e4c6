"""kill -9 of sampand while clients create, start, exec, stop and remove: the next one finds and repairs whatever was half done."""

import os
import random
import signal
import time

import pytest

from tests.support.clients import Clients
from tests.support.engine import Engine
from tests.support.strays import cgroups_of, complaints, elements, ports_of, strays, wait_for_none

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]


class Busy(Clients):
    """They make and remove containers of every kind."""

    timeout = 30.0

    def __init__(self, engine: Engine, seed: int) -> None:
        self.made = 0
        super().__init__(engine, seed, 4)

    def one_thing(self, chance: random.Random) -> None:
        """One container's life. A failed start of a missing program is 400, a container that removed itself 404 or 409."""
        mode = chance.choice(["bridge", "bridge", "host", "none"])
        command = chance.choice([["sleep", "60"], ["true"], ["sh", "-c", "echo hi; exit 3"], ["no-such-program"]])
        host = {"NetworkMode": mode, "AutoRemove": chance.random() < 0.3}
        if mode == "bridge":
            host["PortBindings"] = {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}
        body = {"Image": "busybox", "Cmd": command, "Tty": chance.random() < 0.4, "OpenStdin": True, "HostConfig": host}
        status, answer = self.ask("POST", "/containers/create", body)
        if status != 201:
            self.wrong.append(f"create: {status} {answer}")
            return
        self.made += 1
        one = f"/containers/{answer['Id']}"
        if chance.random() < 0.1:
            return
        self.ask("POST", f"{one}/start")
        if command[0] == "sleep" and chance.random() < 0.5:
            status, made = self.ask("POST", f"{one}/exec", {"Cmd": ["true"]})
            if status == 201:
                self.ask("POST", f"/exec/{made['Id']}/start", {"Detach": True})
        if chance.random() < 0.5:
            self.ask("POST", f"{one}/stop?t=0")
        if chance.random() < 0.8:
            self.ask("DELETE", f"{one}?force=1")


def check_all(engine: Engine) -> None:
    """What is listed is what is there, and it can be used."""
    wait_for_none(engine, 60)
    groups = cgroups_of(engine)
    for item in engine.request("GET", "/containers/json?all=1")[1]:
        found = engine.request("GET", f"/containers/{item['Id']}/json")[1]
        if not found.get("State"):
            continue  # removed itself meanwhile
        if found["State"]["Running"]:
            assert found["State"]["Pid"] in groups.get(item["Id"], []), (item, groups.get(item["Id"]))
        else:
            assert found["State"]["Status"] in ("created", "exited"), found["State"]


def crash(engine: Engine, seed: int, kills: int) -> None:
    """Kill again and again at random instants, check after each; then remove everything, and nothing is left."""
    chance = random.Random(seed)
    made = 0
    for number in range(kills):
        clients = Busy(engine, seed * 1000 + number)
        time.sleep(chance.uniform(0.1, 1.0))
        os.kill(engine.pid, signal.SIGKILL)
        clients.stop()
        assert engine.process is not None
        engine.process.wait(10)
        made += clients.made
        assert not clients.wrong, clients.wrong[:3]
        engine.start()
        check_all(engine)
        if number % 3 == 2:
            engine.remove_containers()
    assert made > kills, "the clients did next to nothing"
    engine.remove_containers()
    wait_for_none(engine)
    assert engine.request("GET", "/containers/json?all=1")[1] == []
    assert strays(engine) == {}
    assert (elements(engine), ports_of(engine), cgroups_of(engine)) == ([], [], {})
    assert complaints(engine) == []


def test_killed_while_busy(crashing: Engine) -> None:
    crash(crashing, seed=1, kills=5)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 5))
def test_killed_while_busy_again_and_again(crashing: Engine, seed: int) -> None:
    crash(crashing, seed, kills=25)
