"""SIGHUP: what daemon.json says of mirrors and the like is in force at once; a mistake in it changes nothing."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root


@pytest.fixture
def own_engine(make_engine: Callable[..., Engine]) -> Iterator[Engine]:
    """An engine that only this test uses."""
    engine = make_engine()
    engine.start()
    yield engine
    (engine.root / "daemon.json").write_text("{}")  # teardown reads it, too


def reload(engine: Engine, text: str, says: str) -> str:
    """Write daemon.json, send SIGHUP, wait for a line of the log; that line."""
    (engine.root / "daemon.json").write_text(text)
    before = len(engine.log.read_text())
    os.kill(engine.pid, signal.SIGHUP)
    deadline = time.monotonic() + 30
    while says not in (new := engine.log.read_text()[before:]):
        assert time.monotonic() < deadline, new
        time.sleep(0.02)
    return next(line for line in new.splitlines() if says in line)


def info(engine: Engine) -> dict[str, Any]:
    found: dict[str, Any] = engine.request("GET", "/info")[1]
    return found


def test_runtimes_change_for_the_next_container(own_engine: Engine) -> None:
    path = "/usr/bin/crun"
    reload(own_engine, json.dumps({"runtimes": {"other": {"path": path, "runtimeArgs": ["--debug"]}}}), "configuration reloaded")
    found = info(own_engine)
    assert found["Runtimes"]["other"] == {"path": path, "runtimeArgs": ["--debug"]}
    assert found["DefaultRuntime"] == "runc"
    body = {"Image": "nosuch", "HostConfig": {"Runtime": "gone"}}
    assert own_engine.request("POST", "/containers/create", body)[0] == 404
    line = reload(own_engine, json.dumps({"default-runtime": "gone"}), "the configuration stays as it is")
    assert "specified default runtime 'gone' does not exist" in line
    assert "other" in info(own_engine)["Runtimes"]
    reload(own_engine, "{}", "configuration reloaded")
    assert "other" not in info(own_engine)["Runtimes"]


def test_what_can_change_does(own_engine: Engine) -> None:
    assert info(own_engine)["RegistryConfig"]["Mirrors"] is None
    settings = {
        "registry-mirrors": ["https://m.example"],
        "insecure-registries": ["10.0.0.7:5000"],
        "labels": ["a=b"],
        "live-restore": True,
    }
    line = reload(own_engine, json.dumps(settings), "configuration reloaded")
    assert line.endswith("configuration reloaded: insecure-registries, labels, registry-mirrors")
    found = info(own_engine)
    assert found["RegistryConfig"]["Mirrors"] == ["https://m.example/"]
    assert "10.0.0.7:5000" in found["RegistryConfig"]["IndexConfigs"]
    assert found["Labels"] == ["a=b"]
    text = own_engine.request("GET", f"/events?since=1&until={time.time():.3f}")[1]
    event = text if isinstance(text, dict) else json.loads(text.splitlines()[-1])
    assert (event["Type"], event["Action"], event["Actor"]["Attributes"]["registry-mirrors"]) == (
        "daemon",
        "reload",
        '["https://m.example"]',
    )
    reload(own_engine, "{}", "configuration reloaded")
    assert info(own_engine)["RegistryConfig"]["Mirrors"] is None


def test_what_cannot_is_said(own_engine: Engine) -> None:
    line = reload(own_engine, '{"mtu": 1400, "debug": true}', "after a restart only")
    assert line.endswith(": mtu")
    assert info(own_engine)["Debug"] is True


@pytest.mark.parametrize("text", ['{"registry-mirrors": [', '{"registry-mirrors": ["ftp://x"]}', '{"no-such-key": 1}'])
def test_a_mistake_leaves_everything_as_it_was(own_engine: Engine, text: str) -> None:
    reload(own_engine, '{"registry-mirrors": ["https://m.example"]}', "configuration reloaded")
    assert "daemon.json" in reload(own_engine, text, "the configuration stays as it is")
    assert info(own_engine)["RegistryConfig"]["Mirrors"] == ["https://m.example/"]
    assert own_engine.request("GET", "/_ping") == (200, b"OK")
