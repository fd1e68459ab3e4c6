"""Mirrors of any registry: asked with ?ns=, passed over and set aside when they fail, and told of when nothing can be reached."""

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tests.support.engine import CLI, Engine
from tests.support.faultyregistry import FaultyRegistry, digest_of
from tests.support.imagetars import config
from tests.support.proxy import Proxy
from tests.support.registries import big, partials
from tests.support.tars import tar

pytestmark = pytest.mark.root

TOP = tar(("f", "a", "by a mirror"))
IN_ALL_SECONDS = 10
"""What issue 5 gives an unreachable Docker Hub."""


@contextmanager
def silence() -> Iterator[str]:
    """HOST:PORT where connections are taken and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def blackhole() -> Iterator[str]:
    """HOST:PORT where a connection never comes about: the queue of those that wait is full, so that the kernel drops what asks."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = server.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield f"127.0.0.1:{address[1]}"


def refused() -> str:
    """HOST:PORT where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"127.0.0.1:{server.getsockname()[1]}"


Configured = Callable[..., Engine]


@pytest.fixture
def configured(make_engine: Callable[..., Engine]) -> Configured:
    """A function that starts an engine with a daemon.json."""

    def start(**keys: object) -> Engine:
        engine = make_engine("--bridge=none")
        (engine.root / "daemon.json").write_text(json.dumps({key.replace("_", "-"): value for key, value in keys.items()}))
        engine.start()
        return engine

    return start


@pytest.fixture
def second() -> Iterator[FaultyRegistry]:
    registry = FaultyRegistry()
    yield registry
    registry.close()


def test_a_mirror_of_any_registry_is_told_which(configured: Configured, docker_path: str, registry: FaultyRegistry) -> None:
    engine = configured(mirrors={"ghcr.io": [f"http://{refused()}", f"http://{registry.host}"]})
    registry.add("team/app", "1", config(TOP), [TOP])
    registry.add("team/app", "2", config(TOP), [TOP])
    done = engine.run_client([docker_path], "pull", "ghcr.io/team/app:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "ghcr.io/team/app:1"
    assert engine.run_client([docker_path], "pull", "-a", "ghcr.io/team/app").returncode == 0
    assert registry.requests
    assert [line for line in registry.requests if not line.endswith("?ns=ghcr.io")] == []


def test_only_that_registry(configured: Configured, docker_path: str, registry: FaultyRegistry, second: FaultyRegistry) -> None:
    engine = configured(mirrors={second.host: [f"http://{registry.host}"]})
    second.add("app", "1", config(TOP), [TOP])
    for name in (f"{second.host}/app:1", "other.invalid/app:1"):
        engine.run_client([docker_path], "pull", name)
    assert all(line.endswith(f"?ns={second.host}") for line in registry.requests)
    assert registry.total_served == 0, "the mirror has no such image, its registry has"
    assert engine.run_client([docker_path], "images", "-q").stdout != ""


def test_sighup_takes_mirrors_over(configured: Configured, docker_path: str, registry: FaultyRegistry) -> None:
    engine = configured()
    registry.add("app", "1", config(TOP), [TOP])
    (engine.root / "daemon.json").write_text(json.dumps({"mirrors": {"reg.invalid": [f"http://{registry.host}"]}}))
    engine.process.send_signal(signal.SIGHUP)  # type: ignore[union-attr]
    deadline = time.monotonic() + 20
    while "reg.invalid" not in engine.request("GET", "/info")[1]["RegistryConfig"]["IndexConfigs"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert engine.run_client([docker_path], "pull", "reg.invalid/app:1").returncode == 0
    assert f" Registry Mirrors of reg.invalid:\n  http://{registry.host}/\n" in engine.cli("info").stdout


def test_in_mid_pull_the_next_mirror_goes_on(
    configured: Configured, docker_path: str, registry: FaultyRegistry, second: FaultyRegistry
) -> None:
    layers = [big(8), tar(("f", "small", "x"))]
    for one in (registry, second):
        one.add("app", "1", config(*layers), layers)
    registry.delay = 0.02
    engine = configured(mirrors={"reg.invalid": [f"http://{registry.host}", f"http://{second.host}"]})

    def break_down() -> None:
        while registry.total_served < 2 << 20:
            time.sleep(0.005)
        registry.cut_after, registry.refuse = 0, (502, {}, b"")

    breaker = threading.Thread(target=break_down)
    breaker.start()
    done = engine.run_client([docker_path], "pull", "reg.invalid/app:1", timeout=120)
    breaker.join(20)
    assert (done.returncode, done.stderr) == (0, "")
    large = digest_of(layers[0])
    assert second.served[large] < len(layers[0]), "what the first mirror gave is kept"
    assert registry.served[large] + second.served[large] < len(layers[0]) + (2 << 20)
    assert partials(engine) == []
    [warning] = [line for line in engine.request("GET", "/info")[1]["Warnings"] or () if "mirror" in line]
    assert f"http://{registry.host}/ of reg.invalid" in warning


def test_a_config_that_a_mirror_lacks_comes_from_the_next(
    configured: Configured, docker_path: str, registry: FaultyRegistry, second: FaultyRegistry
) -> None:
    for one in (registry, second):
        one.add("app", "1", config(TOP), [TOP])
    del registry.blobs[digest_of(config(TOP))]
    engine = configured(mirrors={"reg.invalid": [f"http://{registry.host}", f"http://{second.host}"]})
    assert engine.run_client([docker_path], "pull", "reg.invalid/app:1").returncode == 0


@pytest.mark.parametrize(
    "how", ["silent", "blackhole", "refused", "tls", "500", "no registry", "silent manifest", "token 500", "silent token"]
)
def test_a_mirror_that_fails_is_set_aside(configured: Configured, docker_path: str, registry: FaultyRegistry, how: str) -> None:
    with ExitStack() as stack:
        failing = FaultyRegistry()
        stack.callback(failing.close)
        failing.refuse = (500, {}, b"") if how == "500" else None
        if "token" in how:
            failing.login, failing.refuse_tokens = ("user", "good"), 500
        if how.startswith("silent "):
            failing.hang = {how.removeprefix("silent "): threading.Event()}
            stack.callback(next(iter(failing.hang.values())).set)
        places = {
            "silent": lambda: "http://" + stack.enter_context(silence()),
            "blackhole": lambda: "http://" + stack.enter_context(blackhole()),
            "refused": lambda: "http://" + refused(),
            "tls": lambda: f"https://{failing.host}",
            "500": lambda: f"http://{failing.host}",
            "no registry": lambda: f"http://{failing.host}/elsewhere",
        }
        bad = places.get(how, places["500"])()
        engine = configured(registry_mirrors=[bad, f"http://{registry.host}"])
        registry.add("library/app", "1", config(TOP), [TOP])
        registry.add("library/app", "2", config(TOP, tar(("f", "b", "b"))), [TOP, tar(("f", "b", "b"))])
        assert engine.run_client([docker_path], "pull", "app:1").returncode == 0
        [warning] = [line for line in engine.request("GET", "/info")[1]["Warnings"] or () if "mirror" in line]
        assert warning.startswith(f"WARNING: the mirror {bad}/ of docker.io is not asked for ")
        assert "is not asked for" in engine.cli("info").stderr
        before = len(failing.requests)
        began = time.monotonic()
        assert engine.run_client([docker_path], "pull", "app:2").returncode == 0
        assert len(failing.requests) == before, "it is not asked again"
        if "silent" in how or how == "blackhole":
            assert time.monotonic() - began < 4, "nobody waits for it again"


def test_mirrors_that_hang_on_an_image_do_not_keep_the_hub_waiting(configured: Configured, docker_path: str) -> None:
    """Each answers `GET /v2/` and then nothing; the hub cannot be reached."""
    proxy = Proxy()
    with ExitStack() as stack:
        stack.callback(proxy.close)
        proxy.hosts = {"registry-1.docker.io": stack.enter_context(silence())}
        released = threading.Event()
        mirrors = [FaultyRegistry() for _ in range(3)]
        for mirror in mirrors:
            mirror.hang = {"manifests": released}
            stack.callback(mirror.close)
        stack.callback(released.set)
        engine = configured(registry_mirrors=[f"http://{mirror.host}" for mirror in mirrors], proxies={"https-proxy": proxy.url})
        began = time.monotonic()
        done = engine.run_client([docker_path], "pull", "busybox")
        assert time.monotonic() - began < IN_ALL_SECONDS
        assert done.stderr.count("\n  mirror ") == 3
        assert "\n  registry https://registry-1.docker.io/: " in done.stderr


def test_a_mirror_without_the_image_is_not_set_aside(
    configured: Configured, docker_path: str, registry: FaultyRegistry, second: FaultyRegistry
) -> None:
    second.add("library/app", "1", config(TOP), [TOP])
    engine = configured(registry_mirrors=[f"http://{registry.host}", f"http://{second.host}"])
    assert engine.run_client([docker_path], "pull", "app:1").returncode == 0
    assert not [line for line in engine.request("GET", "/info")[1]["Warnings"] or () if "mirror" in line]


def test_a_mirror_that_is_set_aside_is_the_last_resort(configured: Configured, docker_path: str, registry: FaultyRegistry) -> None:
    engine = configured(mirrors={"reg.invalid": [f"http://{registry.host}"]})
    registry.add("app", "1", config(TOP), [TOP])
    registry.refuse = (503, {}, b"")
    failed = engine.run_client([docker_path], "pull", "reg.invalid/app:1")
    assert failed.returncode == 1
    assert "sampan mirror add --registry reg.invalid URL" in failed.stderr
    registry.refuse = None
    assert engine.run_client([docker_path], "pull", "reg.invalid/app:1").returncode == 0
    assert not [line for line in engine.request("GET", "/info")[1]["Warnings"] or () if "mirror" in line], "it answers again"


@pytest.mark.slow
def test_an_unreachable_hub_is_told_in_time(configured: Configured, docker_path: str) -> None:
    proxy = Proxy()
    with ExitStack() as stack:
        stack.callback(proxy.close)
        proxy.hosts = {"registry-1.docker.io": stack.enter_context(silence())}
        dead = refused()
        mirrors = [f"http://{stack.enter_context(place())}" for place in (silence, blackhole, silence, blackhole, silence, blackhole)]
        mirrors.insert(1, f"http://{dead}")
        engine = configured(registry_mirrors=mirrors, proxies={"https-proxy": proxy.url})
        for client in ([docker_path], CLI):
            began = time.monotonic()
            done = engine.run_client(client, "pull", "busybox")
            assert time.monotonic() - began < IN_ALL_SECONDS
            assert done.returncode == 1
            assert done.stderr.startswith(
                "Error response from daemon: docker.io cannot be reached, and no mirror gives busybox:latest:\n  "
            )
            for url in mirrors:
                assert f'\n  mirror {url}/: Get "{url}/v2/": ' in done.stderr
            assert f"dial tcp {dead}: connect: connection refused\n" in done.stderr
            assert '\n  registry https://registry-1.docker.io/: Get "https://registry-1.docker.io/v2/": ' in done.stderr
            assert "sampan mirror add URL" in done.stderr
            assert "sampan image bootstrap" in done.stderr


def test_what_a_mirror_gives_the_hub_is_not_asked_for(configured: Configured, docker_path: str, registry: FaultyRegistry) -> None:
    proxy = Proxy()
    try:
        engine = configured(registry_mirrors=[f"http://{registry.host}"], proxies={"https-proxy": proxy.url})
        layers = [big(2)]
        registry.add("library/app", "1", config(*layers), layers)
        registry.delay = 0.05  # the pull takes longer than what the hub would have to wait for
        assert engine.run_client([docker_path], "pull", "app:1").returncode == 0
        assert proxy.seen == []
    finally:
        proxy.close()


def test_without_a_mirror_too(configured: Configured, docker_path: str) -> None:
    engine = configured(proxies={"https-proxy": f"http://{refused()}"})
    done = engine.run_client([docker_path], "pull", "busybox")
    assert done.returncode == 1
    assert '\n  registry https://registry-1.docker.io/: Get "https://registry-1.docker.io/v2/": proxyconnect tcp: ' in done.stderr
    assert "sampan mirror add URL" in done.stderr
