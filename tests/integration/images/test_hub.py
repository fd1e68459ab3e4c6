"""Docker Hub under its real names: docker.io is played by a registry on loopback with its own token server, behind a proxy."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.engine import CLI, Engine
from tests.support.faultyregistry import FaultyRegistry
from tests.support.imagetars import config
from tests.support.proxy import Proxy
from tests.support.registries import load
from tests.support.tars import tar

pytestmark = pytest.mark.root

LAYER = tar(("f", "a", "from the hub"))
NAMES = ("registry-1.docker.io", "auth.docker.io")


class Hub:
    """The played docker.io, and an engine that takes it for the real one."""

    def __init__(self, registry: FaultyRegistry, proxy: Proxy, engine: Engine, docker: str) -> None:
        self.registry, self.proxy, self.engine = registry, proxy, engine
        self.clients = ([docker], CLI)

    def run(self, *args: str, stdin: bytes = b"") -> list[tuple[int, str, str]]:
        """Status, output and errors of the same with docker's client and ours."""
        done = [self.engine.run_client(command, *args, stdin=stdin) for command in self.clients]
        return [(item.returncode, item.stdout, item.stderr.replace("sampan", "docker")) for item in done]


@pytest.fixture
def hub(make_engine: Callable[..., Engine], docker_path: str, certs_d: Callable[[str, str], Path], tmp_path: Path) -> Iterator[Hub]:
    authority = Authority(tmp_path / "ca")
    registry, proxy = FaultyRegistry(authority.server(*NAMES)), Proxy()
    registry.login, registry.anonymous = ("user", "good"), True
    registry.challenge = 'Bearer realm="https://auth.docker.io/token",service="registry.docker.io"'
    proxy.hosts = dict.fromkeys(NAMES, registry.host)
    for name in NAMES:
        shutil.copy(authority.certificate, certs_d("sampan", name) / "ca.crt")
    engine = make_engine("--bridge=none")
    (engine.root / "daemon.json").write_text(json.dumps({"proxies": {"https-proxy": proxy.url}}))
    engine.start()
    yield Hub(registry, proxy, engine, docker_path)
    registry.close()
    proxy.close()


def test_an_official_image_without_a_login(hub: Hub) -> None:
    digest = hub.registry.add("library/busybox", "latest", config(LAYER), [LAYER])
    for code, out, err in hub.run("pull", "busybox"):
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert lines[:2] == ["Using default tag: latest", "latest: Pulling from library/busybox"]
        assert lines[-3] == f"Digest: {digest}"
        assert lines[-1] == "docker.io/library/busybox:latest"
    assert set(hub.proxy.seen) == {f"{name}:443" for name in NAMES}
    shown = json.loads(hub.run("image", "inspect", "busybox")[0][1])[0]
    assert (shown["RepoTags"], shown["RepoDigests"]) == (["busybox:latest"], [f"busybox@{digest}"])


def test_login_push_and_logout(hub: Hub) -> None:
    load(hub.engine, "user/app:1", LAYER)
    for code, _, err in hub.run("login", "-u", "user", "--password-stdin", stdin=b"bad"):
        assert code == 1
        assert err.endswith("unauthorized: incorrect username or password\n")
    for code, out, _ in hub.run("login", "-u", "user", "--password-stdin", stdin=b"good\n"):
        assert (code, out) == (0, "Login Succeeded\n")
    file = Path(hub.engine.environment()["DOCKER_CONFIG"]) / "config.json"
    assert list(json.loads(file.read_text())["auths"]) == ["https://index.docker.io/v1/"]
    for code, out, err in hub.run("push", "user/app:1"):
        assert (code, err) == (0, "")
        assert out.startswith("The push refers to repository [docker.io/user/app]\n")
    assert {line.partition("?")[0] for line in hub.registry.requests if line.startswith("PUT")} > {"PUT /v2/user/app/manifests/1"}
    for code, out, _ in hub.run("logout"):
        assert (code, out) == (0, "Removing login credentials for https://index.docker.io/v1/\n")
    os.unlink(file)


def test_what_the_hub_refuses(hub: Hub) -> None:
    challenge = hub.registry.challenge + ',scope="repository:nobody/secret:pull",error="insufficient_scope"'
    refusal = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required","detail":[{"Type":"repository","Action":"pull"}]}]}'
    hub.registry.refuse = (401, {"WWW-Authenticate": challenge}, refusal)
    for code, _, err in hub.run("pull", "nobody/secret"):
        assert code == 1
        assert err == (
            "Error response from daemon: pull access denied for nobody/secret, repository does not exist or may require 'docker login': "
            "denied: requested access to the resource is denied\n"
        )
    load(hub.engine, "nobody/secret:1", LAYER)
    for code, _, err in hub.run("push", "nobody/secret:1"):
        assert (code, err) == (1, "denied: requested access to the resource is denied\n")
    limit = b'{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit."}]}'
    hub.registry.refuse = (429, {}, limit)
    for code, _, err in hub.run("pull", "busybox"):
        assert code == 1
        assert "toomanyrequests: You have reached your pull rate limit." in err
