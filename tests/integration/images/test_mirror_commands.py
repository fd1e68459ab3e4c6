"""`sampan mirror` with an engine that runs: it goes by the change at once; and mirrors that are timed."""

import json
import socket
from collections.abc import Callable

import pytest

from tests.support.engine import Engine
from tests.support.faultyregistry import FaultyRegistry
from tests.support.imagetars import config
from tests.support.tars import tar

pytestmark = pytest.mark.root

TOP = tar(("f", "a", "by a mirror"))


def test_a_mirror_is_in_use_at_once(make_engine: Callable[..., Engine], registry: FaultyRegistry) -> None:
    engine = make_engine("--bridge=none")
    engine.start()
    url = f"http://{registry.host}/"
    registry.add("app", "1", config(TOP), [TOP])
    done = engine.cli("mirror", "add", "--registry=reg.invalid", url)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (f"{url}: added as a mirror of reg.invalid ({engine.root}/daemon.json)\nsampand has read it again\n")
    assert engine.cli("pull", "reg.invalid/app:1").returncode == 0
    assert engine.cli("mirror", "ls").stdout.splitlines()[1].split(None, 2) == ["reg.invalid", url, "in use"]
    registry.refuse = (503, {}, b"")
    assert engine.cli("pull", "reg.invalid/app:2").returncode == 1
    shown = engine.cli("mirror", "ls")
    assert shown.stdout.splitlines()[1].split(None, 2) == ["reg.invalid", url, "set aside"]
    assert "503 Service Unavailable" in shown.stderr
    assert engine.cli("mirror", "rm", "--registry=reg.invalid", url).returncode == 0
    assert engine.cli("mirror", "ls").stdout.splitlines()[1:] == []
    assert json.loads((engine.root / "daemon.json").read_text()) == {}


@pytest.mark.slow
def test_what_sampand_does_not_take_over_is_told(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine("--bridge=none", "--registry-mirror=https://flag.example")
    engine.start()
    done = engine.cli("mirror", "add", "https://m.example")
    assert done.returncode == 1
    assert "sampand was started with --registry-mirror" in done.stderr
    assert (engine.root / "daemon.json").read_text() == ""
    assert engine.cli("mirror", "ls").stdout.splitlines()[1].split(None, 2) == ["docker.io", "https://flag.example/", "in use"]
    (engine.root / "daemon.json").write_text('{"no-such-key": 1}')
    done = engine.cli("mirror", "add", "--registry=ghcr.io", "https://m.example")
    assert done.returncode == 1
    assert "sampand has not taken the change over" in done.stderr
    (engine.root / "daemon.json").write_text("")  # the engine's end reads it


def test_mirrors_are_timed(make_engine: Callable[..., Engine], registry: FaultyRegistry) -> None:
    engine = make_engine("--bridge=none")
    registry.login, registry.anonymous = ("user", "good"), True
    registry.add("app", "1", config(TOP), [TOP])
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = f"127.0.0.1:{server.getsockname()[1]}"
    urls = [f"http://{dead}/", f"http://{registry.host}/"]
    done = engine.cli("mirror", "test", "--image=127.0.0.1:1/app:1", *urls)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["REGISTRY", "URL", "PING", "MANIFEST"]
    assert rows[1] == ["127.0.0.1:1", urls[0], "connection", "refused", "-"]
    assert (rows[2][:2], rows[2][3], rows[2][5]) == (["127.0.0.1:1", urls[1]], "ms", "ms")
    assert "(the registry)" in done.stdout
    assert "HEAD /v2/app/manifests/1?ns=127.0.0.1:1" in registry.requests
    missing = engine.cli("mirror", "test", "--image=127.0.0.1:1/app:none", *urls)
    assert (missing.returncode, "404 Not Found" in missing.stdout) == (1, True)
    nothing = engine.cli("mirror", "test", f"--config-file={engine.root}/daemon.json")
    assert (nothing.returncode, "there is no mirror in" in nothing.stderr) == (1, True)
