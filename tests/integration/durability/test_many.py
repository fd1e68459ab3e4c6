"""500 containers at once: what they cost our processes, how they are shown and ended, and that a killed sampand has them all again."""

import os
import resource
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.engine import Engine
from tests.support.memory import own_memory
from tests.support.strays import complaints, pid_of, wait_for_none

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = 500
BRIDGED = 200
"""A test engine's subnet has 253 addresses."""
ROLES = ("sampand", "keeper", "supervisor")
KILOBYTES = 480
"""A container: a tenth of what the better dockerd has for one, 4.9 MB, its shim and proxy."""
DESCRIPTORS = 12
"""A container, of each process."""


def descriptors(engine: Engine) -> dict[str, int]:
    return {role: len(os.listdir(f"/proc/{pid_of(engine, role)}/fd")) for role in ROLES}


def kilobytes(engine: Engine) -> float:
    return sum(own_memory(pid_of(engine, role) or 0) for role in ROLES) / 1024


def each(names: list[str], action: Callable[[str], None]) -> float:
    """Do it to all of them, a few at a time; seconds."""
    start = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(action, names))
    return time.monotonic() - start


def test_five_hundred_containers(make_engine: Callable[..., Engine], docker_path: str) -> None:
    engine = make_engine()
    engine.start()
    engine.bootstrap()
    names = [f"many{number}" for number in range(COUNT)]

    def start(name: str) -> None:
        mode = "bridge" if names.index(name) < BRIDGED else "none"
        body = {"Image": "busybox", "Cmd": ["sleep", "100000"], "HostConfig": {"NetworkMode": mode}}
        assert engine.request("POST", f"/containers/create?name={name}", body)[0] == 201
        assert engine.request("POST", f"/containers/{name}/start")[0] == 204

    def remove(name: str) -> None:
        assert engine.request("POST", f"/containers/{name}/stop?t=0")[0] == 204
        assert engine.request("DELETE", f"/containers/{name}")[0] == 204

    each(names[:1], start)  # what is loaded with the first
    light, few = kilobytes(engine), descriptors(engine)
    figures: dict[str, float] = {"start each s": each(names[1:], start) / COUNT}
    time.sleep(2)  # what start-up needed has gone back to the kernel
    figures["KB each"] = (kilobytes(engine) - light) / (COUNT - 1)
    many = descriptors(engine)
    figures |= {f"descriptors each, {role}": (many[role] - few[role]) / (COUNT - 1) for role in ROLES}
    began = time.monotonic()
    assert len(engine.request("GET", "/containers/json")[1]) == COUNT
    figures["list s"] = time.monotonic() - began
    began = time.monotonic()
    assert len(engine.run_client([docker_path], "ps", "-q").stdout.split()) == COUNT
    figures["docker ps s"] = time.monotonic() - began
    pids = processes(engine)
    engine.stop(signal.SIGKILL)
    began = time.monotonic()
    engine.start()
    figures["back after kill -9 s"] = time.monotonic() - began
    assert processes(engine) == pids
    assert engine.cli("exec", names[-1], "echo", "hi").stdout == "hi\n"
    figures["stop and remove each s"] = each(names, remove) / COUNT
    print({name: round(value, 3) for name, value in figures.items()})
    wait_for_none(engine)
    assert complaints(engine) == []
    assert figures["KB each"] < KILOBYTES, figures
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert max(many.values()) < min(hard, few["sampand"] + DESCRIPTORS * COUNT), (many, hard)
    assert figures["docker ps s"] < 2, figures
    assert figures["back after kill -9 s"] < 30, figures
    assert figures["stop and remove each s"] < 0.5, figures


def processes(engine: Engine) -> dict[str, int]:
    """The process of each running container."""
    listed = engine.request("GET", "/containers/json")[1]
    return {item["Id"]: engine.request("GET", f"/containers/{item['Id']}/json")[1]["State"]["Pid"] for item in listed}
