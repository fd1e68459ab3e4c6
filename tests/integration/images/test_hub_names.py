"""Docker Hub by its real names and port, in a network namespace: a hosts file leads to loopback, and its authority is the system's."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.engine import Engine
from tests.support.faultyregistry import FaultyRegistry
from tests.support.imagetars import config
from tests.support.relay import Relay
from tests.support.tars import tar

pytestmark = pytest.mark.root

NAMES = ("registry-1.docker.io", "auth.docker.io")
MIRROR = "mirror.example"
LAYERS = [tar(("f", "a", "a" * 300_000)), tar(("f", "b", "b" * 300_000))]
_SURROUNDINGS = 'ip link set lo up && mount --bind "$HOSTS" /etc/hosts && mount --bind "$RESOLV" /etc/resolv.conf && exec "$@"'


class World:
    """What an engine sees: the Hub, a mirror of it, and nothing else."""

    def __init__(self, engine: Engine, hub: FaultyRegistry, mirror: FaultyRegistry) -> None:
        self.engine, self.hub, self.mirror = engine, hub, mirror
        for registry in (hub, mirror):
            registry.add("library/box", "1", config(*LAYERS), LAYERS)

    def pull(self) -> str:
        done = self.engine.cli("pull", "box:1")
        assert done.returncode == 0, done
        return done.stdout

    def tokens(self) -> list[str]:
        return [line for line in self.hub.requests if line.startswith("GET /token")]


@pytest.fixture
def world(make_engine: Callable[..., Engine], tmp_path: Path) -> Iterator[World]:
    authority = Authority(tmp_path / "ca")
    hub, mirror = FaultyRegistry(authority.server(*NAMES)), FaultyRegistry()
    hub.login, hub.anonymous = ("user", "good"), True
    hub.challenge = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost {MIRROR} {' '.join(NAMES)}\n")
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    engine = make_engine("--bridge=none", f"--registry-mirror=http://{MIRROR}")
    variables = (f"HOSTS={tmp_path}/hosts", f"RESOLV={tmp_path}/resolv.conf", f"SSL_CERT_FILE={authority.certificate}")
    engine.prefix = ["env", *variables, "unshare", "--net", "--mount", "sh", "-c", _SURROUNDINGS, "sh"]
    engine.start()
    relays = [Relay(engine.pid, "127.0.0.1", 443, hub.host), Relay(engine.pid, "127.0.0.1", 80, mirror.host)]
    yield World(engine, hub, mirror)
    for end in (*relays, hub, mirror):
        end.close()


def test_the_hub_without_its_mirror(world: World) -> None:
    world.mirror.refuse, world.mirror.refuse_ping = (503, {}, b""), True
    assert "Pulling from library/box" in world.pull()
    assert world.tokens()[0].startswith("GET /token?")
    assert "scope=repository:library/box:pull" in world.tokens()[0]
    shown = json.loads(world.engine.cli("image", "inspect", "box:1").stdout)[0]
    assert shown["RepoTags"] == ["box:1"]
    assert shown["RepoDigests"][0].startswith("box@sha256:")
    assert world.hub.total_served > sum(map(len, LAYERS))


def test_the_mirror_alone(world: World) -> None:
    world.pull()
    assert world.hub.requests == []
    assert not any("Authorization" in headers for headers in world.mirror.headers)


def test_the_mirror_breaks_in_the_middle(world: World) -> None:
    """What it has sent is kept, and the Hub asked for the rest alone."""
    world.mirror.cut_after, world.mirror.ranges = 100_000, False
    world.pull()
    assert world.mirror.total_served >= 100_000
    assert 0 < world.hub.total_served < sum(map(len, LAYERS)) - 100_000


def test_the_hub_has_had_enough(world: World) -> None:
    world.mirror.refuse, world.mirror.refuse_ping = (503, {}, b""), True
    limit = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}'
    world.hub.refuse = (429, {"Retry-After": "0"}, limit)
    done = world.engine.cli("pull", "box:1")
    assert done.returncode == 1
    assert "toomanyrequests: You have reached your pull rate limit." in done.stderr
