"""kill -9 of sampand while containers with volumes are made, filled and removed."""

import http.client
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root

ROUNDS = 6
FILES = 400


@pytest.fixture(scope="module")
def own_engine(make_engine: Callable[..., Engine]) -> Engine:
    """An engine that may be killed, with an image whose VOLUME has many files."""
    engine = make_engine()
    engine.start()
    engine.bootstrap()
    script = f"mkdir /data; cd /data; for n in $(seq {FILES}); do echo $n >$n; done"
    body = {"Image": "busybox", "Cmd": ["sh", "-c", script]}
    container = engine.request("POST", "/containers/create", body)[1]["Id"]
    engine.request("POST", f"/containers/{container}/start")
    engine.request("POST", f"/containers/{container}/wait")
    made = engine.request("POST", f"/commit?container={container}&repo=filled&changes=VOLUME+/data", {})
    assert made[0] == 201, made
    engine.remove_containers()
    return engine


@pytest.fixture
def engine(own_engine: Engine) -> Engine:
    """Instead of the session's one."""
    return own_engine


def ask(engine: Engine, method: str, path: str, body: Any = None) -> Any:
    """A request that nobody may answer."""
    with suppress(OSError, http.client.HTTPException):
        return engine.request(method, path, body)[1]


def content(engine: Engine, name: str) -> int:
    return len(os.listdir(f"{engine.data_root}/volumes/{name}/_data"))


def check(engine: Engine) -> None:
    """Every volume is whole, every anonymous one some container's, every directory a volume's, and what a user wrote is there."""
    volumes = {one["Name"]: one for one in engine.request("GET", "/volumes")[1]["Volumes"]}
    used = set()
    for container in engine.request("GET", "/containers/json?all=1")[1]:
        used |= {mount["Name"] for mount in container["Mounts"]}
    anonymous = {name for name, one in volumes.items() if one["Labels"]}
    assert anonymous <= used
    assert used <= volumes.keys()
    place = Path(engine.data_root, "volumes")
    assert {path.name for path in place.iterdir()} - {".trash"} == volumes.keys()
    for name in volumes:
        assert os.listdir(place / name) == ["_data"]
        assert content(engine, name) == (1 if name == "precious" else FILES), name


def test_creates_and_removals(engine: Engine) -> None:
    random.seed(8)
    engine.request("POST", "/volumes/create", {"Name": "precious"})
    Path(engine.data_root, "volumes/precious/_data/f").write_text("mine")
    names = ("one", "two", "three")

    def work() -> None:
        for name in names:
            host = {"Binds": [f"named-{name}:/data", "precious:/p"]}
            ask(engine, "POST", f"/containers/create?name={name}", {"Image": "filled", "HostConfig": host})
            ask(engine, "POST", f"/containers/create?name={name}-anonymous", {"Image": "filled"})
            ask(engine, "DELETE", f"/containers/{name}-anonymous?v=1")

    for _ in range(ROUNDS):
        client = threading.Thread(target=work)
        client.start()
        time.sleep(random.uniform(0.02, 0.5))
        engine.stop(9)
        client.join()
        engine.start()
        check(engine)
        engine.remove_containers()
        for name in names:
            engine.request("DELETE", f"/volumes/named-{name}?force=1")
    assert Path(engine.data_root, "volumes/precious/_data/f").read_text() == "mine"
