"""A disk without a free block: containers run on, end and can be ended, and nobody forgets it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.disks import ext4, full, tmpfs
from tests.support.engine import Engine
from tests.support.strays import complaints, wait_for_none

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]

OBEYS = "trap 'exit 7' TERM; while :; do sleep 0.05; done"


@pytest.fixture
def small(make_engine: Callable[..., Engine]) -> Iterator[tuple[Engine, Path]]:
    """An engine on a disk of its own, and that disk."""
    with ext4(256 << 20) as place:
        engine = make_engine(place=str(place))
        try:
            engine.start()
            engine.bootstrap()
            yield engine, place
        finally:
            engine.teardown()


def wait_for(engine: Engine, name: str, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 30
    while True:
        found: dict[str, Any] = engine.request("GET", f"/containers/{name}/json")[1]["State"]
        if holds(found):
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def start(engine: Engine, name: str, **config: Any) -> None:
    body = {"Image": "busybox", "Cmd": ["sh", "-c", OBEYS], "HostConfig": {"NetworkMode": "none"}, **config}
    assert engine.request("POST", f"/containers/create?name={name}", body)[0] == 201
    assert engine.request("POST", f"/containers/{name}/start")[0] == 204


def test_containers_end_on_a_full_disk(small: tuple[Engine, Path]) -> None:
    engine, place = small
    for name in ("dies", "stopped", "killed", "removed", "paused"):
        start(engine, name)
    start(engine, "probed", Healthcheck={"Test": ["CMD", "true"], "Interval": 50_000_000})
    with full(place):
        with pytest.raises(OSError):  # noqa: PT011
            (place / "more").write_bytes(bytes(1 << 16))
        os.kill(wait_for(engine, "dies", lambda state: True)["Pid"], signal.SIGKILL)
        assert wait_for(engine, "dies", lambda state: state["Status"] == "exited")["ExitCode"] == 137
        assert engine.request("POST", "/containers/stopped/stop")[0] == 204
        assert engine.request("POST", "/containers/killed/kill")[0] == 204
        assert engine.request("POST", "/containers/paused/pause")[0] == 204
        assert engine.request("DELETE", "/containers/removed?force=1")[0] == 204
        logged = len(wait_for(engine, "probed", lambda state: state["Health"]["Log"])["Health"]["Log"])
        assert logged > 0
        for number in (signal.SIGKILL, signal.SIGTERM):  # without sampand nobody could remove what fills the disk
            engine.stop(number)
            engine.start()
        assert wait_for(engine, "dies", lambda state: True)["ExitCode"] == 137
        status, answer = engine.request("POST", "/containers/create?name=more", {"Image": "busybox"})
        assert (status, "no space left on device" in answer["message"].lower()) == (500, True), answer
    last = wait_for(engine, "probed", lambda state: True)["Health"]["Log"][-1]["Start"]
    wait_for(engine, "probed", lambda state: state["Health"]["Log"][-1]["Start"] > last)
    engine.stop(signal.SIGKILL)
    engine.start()
    ended = {name: wait_for(engine, name, lambda state: state["Status"] == "exited")["ExitCode"] for name in ("dies", "stopped", "killed")}
    assert ended == {"dies": 137, "stopped": 7, "killed": 137}
    assert wait_for(engine, "paused", lambda state: True)["Status"] == "paused"
    assert engine.request("GET", "/containers/removed/json")[0] == 404
    engine.remove_containers()
    wait_for_none(engine)
    assert complaints(engine) == []


def test_a_container_without_room_for_its_files_does_not_start(engine: Engine) -> None:
    before = complaints(engine)
    identity = engine.request("POST", "/containers/create?name=roomless", {"Image": "busybox", "Cmd": ["sleep", "60"]})[1]["Id"]
    with tmpfs(engine.data_root / "containers" / identity, "size=4k,nr_inodes=20", lazily=True) as place:
        (place / "filler").write_bytes(bytes(4096))
        status, answer = engine.request("POST", "/containers/roomless/start")
        assert (status, answer) == (500, {"message": "no space left on device"})
        state = engine.request("GET", "/containers/roomless/json")[1]["State"]
        assert (state["Status"], state["ExitCode"], state["Error"]) == ("created", 128, "no space left on device")
    assert engine.request("POST", "/containers/roomless/start")[0] == 204
    assert complaints(engine) == before


def test_a_start_that_fails_in_any_way_is_the_end_of_a_container_that_is_removed_with_its_run(engine: Engine) -> None:
    """`docker run --rm` waits for that."""
    body = {"Image": "busybox", "Cmd": ["sleep", "60"], "HostConfig": {"AutoRemove": True}}
    identity = engine.request("POST", "/containers/create?name=passing", body)[1]["Id"]
    (engine.data_root / "containers" / identity / "resolv.conf").mkdir()
    assert engine.request("POST", "/containers/passing/start")[0] == 500
    assert engine.request("GET", "/containers/passing/json")[0] == 404
