"""docker pull against a registry on loopback that breaks off, lies and asks for passwords; and against a real one."""

import base64
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import docker as docker_py
import pytest

from tests.support.engine import Engine
from tests.support.faultyregistry import INDEX, MANIFEST, FaultyRegistry, digest_of
from tests.support.imagetars import base_layer, config
from tests.support.realregistry import RealRegistry
from tests.support.registries import Docker, big, partials, zipped
from tests.support.tars import tar

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("no_images_left")]

TOP = tar(("f", "pulled", "from a registry"))


def test_what_docker_prints(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    base = base_layer(engine)
    digest = registry.add("team/app", "1", config(base, TOP), [base, TOP], compress=zipped)
    name = f"{registry.host}/team/app"
    short = [digest_of(zipped(layer))[7:19] for layer in (base, TOP)]
    done = docker("pull", f"{name}:1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == "1: Pulling from team/app"
    assert lines[1:3] == [f"{short[0]}: Already exists", f"{short[1]}: Pulling fs layer"]
    assert [line for line in lines if line.startswith(short[1])][-1] == f"{short[1]}: Pull complete"
    assert lines[-3:] == [f"Digest: {digest}", f"Status: Downloaded newer image for {name}:1", f"{name}:1"]
    again = docker("pull", f"{name}:1")
    assert again.stdout.splitlines() == [
        "1: Pulling from team/app",
        f"Digest: {digest}",
        f"Status: Image is up to date for {name}:1",
        f"{name}:1",
    ]
    assert docker("run", "--rm", f"{name}:1", "cat", "/pulled").stdout == "from a registry"
    shown = json.loads(docker("image", "inspect", f"{name}:1").stdout)[0]
    assert shown["Id"] == digest_of(config(base, TOP))
    assert shown["RepoDigests"] == [f"{name}@{digest}"]
    assert partials(engine) == []
    assert docker("pull", "-q", f"{name}:1").stdout == f"{name}:1\n"
    by_digest = docker("pull", f"{name}@{digest}")
    assert by_digest.stdout.splitlines()[-1] == f"{name}@{digest}"
    assert engine.cli("pull", f"{name}:1").stdout == again.stdout


def test_what_a_tag_has_left_dangles_though_its_digest_is_known(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    pulled = []
    for content in ("old", "new"):
        layer = tar(("f", "moved", content))
        digest = registry.add("moved", "1", config(layer), [layer])
        assert docker("pull", "-q", f"{registry.host}/moved:1").returncode == 0
        pulled.append((digest_of(config(layer)), f"{registry.host}/moved@{digest}"))
    (old, old_name), (new, _) = pulled
    dangling = docker("images", "--no-trunc", "-f", "dangling=true", "--format", "{{.ID}} {{.Tag}}", f"{registry.host}/moved")
    assert dangling.stdout == f"{old} <none>\n"
    pruned = docker("image", "prune", "-f").stdout.splitlines()
    assert pruned[:3] == ["Deleted Images:", f"untagged: {old_name}", f"deleted: {old}"]
    assert docker("images", "--no-trunc", "-q", f"{registry.host}/moved").stdout == f"{new}\n"


def test_all_tags(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    for tag in ("a", "b"):
        layer = tar(("f", tag, tag))
        registry.add("many", tag, config(layer), [layer])
    done = docker("pull", "-a", f"{registry.host}/many")
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if "Status:" in line] == [f"Status: Downloaded newer image for {registry.host}/many"]
    again = docker("pull", "-a", f"{registry.host}/many").stdout.splitlines()
    assert again[-2:] == [f"Status: Image is up to date for {registry.host}/many", f"{registry.host}/many"]
    assert engine.cli("pull", "-a", f"{registry.host}/many").stdout.splitlines() == again
    assert sorted(docker("images", "--format", "{{.Tag}}", f"{registry.host}/many").stdout.split()) == ["a", "b"]


def test_what_is_here_does_not_come_again(docker: Docker, registry: FaultyRegistry) -> None:
    digest = registry.add("app", "1", config(TOP), [TOP])
    registry.add("app", "2", config(TOP), [TOP])
    name = f"{registry.host}/app"
    assert docker("pull", f"{name}:1").returncode == 0
    registry.requests.clear()
    assert docker("pull", f"{name}:1").stdout.splitlines() == [
        "1: Pulling from app", f"Digest: {digest}", f"Status: Image is up to date for {name}:1", f"{name}:1",
    ]  # fmt: skip
    assert registry.requests == ["GET /v2/", "HEAD /v2/app/manifests/1"]
    registry.requests.clear()
    assert docker("pull", f"{name}:2").returncode == 0
    assert registry.requests == ["GET /v2/", "GET /v2/app/manifests/2"], "the config is here"
    registry.add("app", "1", config(TOP, author="new"), [TOP])
    assert "Downloaded newer image" in docker("pull", f"{name}:1").stdout
    docker("rmi", f"{name}:1")
    assert "Downloaded newer image" in docker("pull", f"{name}:1").stdout


def test_all_tags_need_one_token(engine: Engine, registry: FaultyRegistry) -> None:
    registry.login, registry.anonymous = ("alice", "secret"), True
    for tag in "abc":
        registry.add("app", tag, config(tar(("f", tag, tag))), [tar(("f", tag, tag))])
    assert engine.cli("pull", "-a", f"{registry.host}/app").returncode == 0
    assert sum("/token" in line for line in registry.requests) == 1
    assert sum(line.endswith("/v2/") for line in registry.requests) == 2, "a refusal, and with the token"


def test_an_index_gives_the_image_of_a_platform(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    entries = []
    for architecture in ("arm64", "amd64"):
        layer = tar(("f", "arch", architecture))
        digest = registry.add("multi", architecture, config(layer, architecture=architecture), [layer])
        body = registry.manifests[f"multi@{digest}"][1]
        platform = {"os": "linux", "architecture": architecture}
        entries.append({"mediaType": MANIFEST, "digest": digest, "size": len(body), "platform": platform})
    index = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()
    digest = registry.add_manifest("multi", "1", index, INDEX)
    name = f"{registry.host}/multi:1"
    assert f"Digest: {digest}" in docker("pull", "--platform", "linux/arm64", name).stdout
    assert docker("image", "inspect", "-f", "{{.Architecture}}", name).stdout == "arm64\n"
    assert "Downloaded newer image" in docker("pull", name).stdout
    assert docker("image", "inspect", "-f", "{{.Architecture}}", name).stdout == f"{docker('version', '-f', '{{.Server.Arch}}').stdout}"
    other = docker("pull", "--platform", "linux/s390x", f"{registry.host}/multi:arm64")
    assert (other.returncode, other.stderr) == (0, ""), "a manifest of one platform is taken, with a warning, as dockerd does"
    assert other.stdout.splitlines()[-2] == (
        f"WARNING: image with reference {registry.host}/multi:arm64 was found but its platform (linux/arm64) does not match the specified "
        "platform (linux/s390x)"
    )
    missing = docker("pull", "--platform", "linux/s390x", name)
    assert missing.returncode == 1
    assert "no matching manifest for linux/s390x in the manifest list entries" in missing.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("app:none", "manifest for {host}/app:none not found: manifest unknown: manifest unknown"),
        ("none", "manifest for {host}/none:latest not found: manifest unknown: manifest unknown"),
    ],
)
def test_what_is_not_there(docker: Docker, registry: FaultyRegistry, name: str, message: str) -> None:
    registry.add("app", "1", config(TOP), [TOP])
    done = docker("pull", f"{registry.host}/{name}")
    assert done.returncode == 1
    assert done.stderr == f"Error response from daemon: {message.format(host=registry.host)}\n"


def test_nobody_listens(docker: Docker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = docker("pull", f"127.0.0.1:{port}/x:1")
    assert done.returncode == 1
    assert f'Get "http://127.0.0.1:{port}/v2/": dial tcp 127.0.0.1:{port}: connect: connection refused' in done.stderr


def test_a_refusal_is_final(docker: Docker, registry: FaultyRegistry) -> None:
    registry.refuse = (403, {}, b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}')
    done = docker("pull", f"{registry.host}/secret:1")
    assert done.stderr == (
        f"Error response from daemon: pull access denied for {registry.host}/secret, repository does not exist or may require "
        "'docker login': denied: requested access to the resource is denied\n"
    )


def test_credentials_and_tokens(engine: Engine, docker: Docker, registry: FaultyRegistry, tmp_path: Path) -> None:
    registry.login = ("user", "pass:word")
    registry.add("private/app", "1", config(TOP), [TOP])
    name = f"{registry.host}/private/app:1"
    assert "unauthorized: authentication required" in docker("pull", name).stderr
    directory = Path(engine.environment()["DOCKER_CONFIG"])
    directory.mkdir(exist_ok=True)
    file = directory / "config.json"
    file.write_text(json.dumps({"auths": {registry.host: {"auth": base64.b64encode(b"user:pass:word").decode()}}}))
    try:
        assert docker("pull", name).returncode == 0
        assert engine.cli("pull", name).returncode == 0
    finally:
        file.unlink()
    assert any("scope=repository:private/app:pull" in unquote(line) for line in registry.requests)


def test_a_cut_connection_goes_on_where_it_ended(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    layer = big(4)
    registry.add("cut", "1", config(layer), [layer])
    registry.cut_after = 1_000_000
    assert docker("pull", f"{registry.host}/cut:1", timeout=120).returncode == 0
    assert registry.served[digest_of(layer)] == len(layer), "no byte came twice"


def test_a_registry_without_ranges_begins_again(docker: Docker, registry: FaultyRegistry) -> None:
    layer = big(1)
    registry.add("whole", "1", config(layer), [layer])
    registry.ranges, registry.cut_after = False, 600_000
    threading.Timer(0.5, lambda: setattr(registry, "cut_after", None)).start()
    assert docker("pull", f"{registry.host}/whole:1", timeout=120).returncode == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "unexpected blob digest"),
        (lambda data: data + b"more", "unexpected blob size"),
        pytest.param(lambda data: data[: len(data) // 2], "unexpected EOF", marks=pytest.mark.slow),  # five attempts
    ],
    ids=["changed", "longer", "shorter"],
)
def test_a_lying_registry_leaves_nothing(
    engine: Engine, docker: Docker, registry: FaultyRegistry, change: Callable[[bytes], bytes], message: str
) -> None:
    layer = big(1)
    registry.add("liar", "1", config(layer), [layer])
    registry.change = lambda digest, data: change(data) if digest == digest_of(layer) else data
    done = docker("pull", f"{registry.host}/liar:1", timeout=120)
    assert done.returncode == 1
    assert message in done.stderr
    assert docker("images", "-q", f"{registry.host}/liar").stdout == ""
    registry.change = lambda _digest, data: data
    assert docker("pull", f"{registry.host}/liar:1", timeout=120).returncode == 0


def test_a_layer_that_is_not_the_configs(docker: Docker, registry: FaultyRegistry) -> None:
    registry.add("wrong", "1", config(tar(("f", "a", "other"))), [TOP])
    done = docker("pull", f"{registry.host}/wrong:1")
    assert done.returncode == 1
    assert "invalid diffID for layer 0" in done.stderr


def test_a_killed_sampand_goes_on_where_it_ended(make_engine: Callable[..., Engine], docker_path: str, registry: FaultyRegistry) -> None:
    engine = make_engine("--bridge=none")
    engine.start()
    layer = big(16)
    registry.add("killed", "1", config(layer), [layer])
    registry.delay = 0.01
    name = f"{registry.host}/killed:1"
    client = subprocess.Popen([docker_path, "pull", name], env=engine.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while registry.total_served < len(layer) // 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(engine.pid, 9)
    client.wait(60)
    engine.stop()
    registry.delay = 0
    time.sleep(0.3)  # what the registry still pours into the closed connection
    before = registry.total_served
    engine.start()
    assert engine.run_client([docker_path], "images", "-q").stdout == ""
    assert engine.run_client([docker_path], "pull", name).returncode == 0
    assert registry.total_served - before < 0.6 * len(layer)
    assert partials(engine) == []


def test_two_pulls_fetch_a_layer_once(engine: Engine, docker: Docker, docker_path: str, registry: FaultyRegistry) -> None:
    layer, other = big(4), tar(("f", "other", "x"))
    registry.add("one", "1", config(layer), [layer])
    registry.add("two", "1", config(layer, other), [layer, other])
    registry.delay = 0.005
    clients = [
        subprocess.Popen([docker_path, "pull", "-q", f"{registry.host}/{name}:1"], env=engine.environment(), stdout=subprocess.DEVNULL)
        for name in ("one", "two")
    ]
    assert [client.wait(120) for client in clients] == [0, 0]
    assert registry.served[digest_of(layer)] == len(layer)


@pytest.mark.parametrize("above", [True, False], ids=["slow above", "slow below"])
def test_a_small_image_does_not_wait_for_a_large_one_that_has_its_layer(
    engine: Engine, docker: Docker, docker_path: str, registry: FaultyRegistry, *, above: bool
) -> None:
    slow = FaultyRegistry()
    slow.delay = 1.0
    layers = [TOP, big(16)] if above else [big(16), TOP]
    slow.add("large", "1", config(*layers), layers)
    registry.add("small", "1", config(TOP), [TOP])
    name = f"{slow.host}/large:1"
    client = subprocess.Popen([docker_path, "pull", name], env=engine.environment(), stdout=subprocess.PIPE)
    try:
        assert client.stdout is not None
        while f"{digest_of(TOP)[7:19]}: Download complete".encode() not in client.stdout.readline():
            assert client.poll() is None
        done = docker("pull", f"{registry.host}/small:1", timeout=60)
        assert (done.returncode, done.stderr) == (0, "")
        assert client.poll() is None
        assert digest_of(TOP) not in registry.served, "it came already"
        assert f"Status: Downloaded newer image for {registry.host}/small:1" in done.stdout
    finally:
        client.kill()
        client.wait()
        client.stdout.close()
        slow.close()


def test_two_pulls_of_one_image_unpack_it_once(engine: Engine, docker: Docker, docker_path: str, registry: FaultyRegistry) -> None:
    layers = [big(4), TOP, tar(("f", "other", "x"))]
    registry.add("app", "1", config(*layers), layers)
    registry.delay = 0.005
    clients = [
        subprocess.Popen([docker_path, "pull", f"{registry.host}/app:1"], env=engine.environment(), stdout=subprocess.PIPE)
        for _ in range(3)
    ]
    said = [client.communicate(timeout=60)[0].decode() for client in clients]
    assert [client.returncode for client in clients] == [0, 0, 0]
    assert [text.count(": Pulling fs layer") for text in said] == [3, 3, 3]
    assert [text.count(": Pull complete") for text in said] == [3, 3, 3]
    assert {digest: count for digest, count in registry.served.items() if digest != digest_of(config(*layers))} == {
        digest_of(layer): len(layer) for layer in layers
    }
    assert not {digest_of(layer)[7:] for layer in layers} & set(partials(engine))


def test_a_client_that_leaves_ends_the_pull(engine: Engine, docker: Docker, docker_path: str, registry: FaultyRegistry) -> None:
    layer = big(8)
    registry.add("left", "1", config(layer), [layer])
    registry.delay = 0.02
    client = subprocess.Popen([docker_path, "pull", f"{registry.host}/left:1"], env=engine.environment(), stdout=subprocess.DEVNULL)
    while not registry.total_served:
        time.sleep(0.01)
    client.kill()
    client.wait(20)
    deadline = time.monotonic() + 30
    while True:
        served = registry.total_served
        time.sleep(0.5)
        if registry.total_served == served:
            break
        assert time.monotonic() < deadline, "it goes on without a client"
    assert served < len(layer)
    registry.delay = 0
    assert docker("pull", f"{registry.host}/left:1").returncode == 0
    assert registry.total_served < len(layer) + (2 << 20), "what had come was not fetched again"


def test_mirrors_of_docker_io(make_engine: Callable[..., Engine], docker_path: str, registry: FaultyRegistry) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = server.getsockname()[1]
    engine = make_engine("--bridge=none", f"--registry-mirror=http://127.0.0.1:{dead}", f"--registry-mirror=http://{registry.host}")
    engine.start()
    registry.add("library/busybox", "latest", config(TOP), [TOP])
    done = engine.run_client([docker_path], "pull", "busybox")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "docker.io/library/busybox:latest"
    assert docker_py.DockerClient(base_url=engine.url).images.get("busybox").tags == ["busybox:latest"]
    missing = engine.run_client([docker_path], "pull", "nothing", timeout=120)
    assert missing.returncode == 1
    assert f"127.0.0.1:{dead}" in missing.stderr
    assert registry.host in missing.stderr


def test_a_real_registry(engine: Engine, docker: Docker, tmp_path: Path) -> None:
    registry = RealRegistry(tmp_path / "registry")
    try:
        archive = tmp_path / "busybox.tar"
        assert docker("save", "-o", str(archive), "busybox").returncode == 0
        target = f"docker://{registry.host}/busybox:1"
        command = ["skopeo", "copy", "--quiet", "--retry-times=5", "--dest-tls-verify=false", f"docker-archive:{archive}", target]
        subprocess.run(command, check=True, timeout=120)
        assert docker("pull", f"{registry.host}/busybox:1").returncode == 0
        ids = docker("images", "-q", "--no-trunc", "busybox").stdout.split()
        assert docker("images", "-q", "--no-trunc", f"{registry.host}/busybox").stdout.split() == ids
    finally:
        registry.close()
