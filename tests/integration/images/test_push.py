"""docker push: to apt's docker-registry, and to one that breaks off, refuses and forgets."""

import gzip
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker as docker_py
import pytest

from tests.support.engine import Engine
from tests.support.faultyregistry import FaultyRegistry, digest_of
from tests.support.imagetars import base_layer, config
from tests.support.realregistry import RealRegistry
from tests.support.registries import Docker, big, load, zipped
from tests.support.tars import tar

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("no_images_left")]

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
OCI = "application/vnd.oci.image.manifest.v1+json"


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    registry = RealRegistry(tmp_path_factory.mktemp("registry"))
    yield registry
    registry.close()


def short(layer: bytes) -> str:
    return digest_of(layer)[7:19]


def skopeo(*args: str) -> str:
    done = subprocess.run(["skopeo", *args], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def manifest_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}"))
    return found


def test_what_docker_prints(engine: Engine, docker: Docker, real: RealRegistry) -> None:
    base, top = base_layer(engine), tar(("f", "pushed", "to a registry"))
    name = f"{real.host}/team/app"
    image_id = load(engine, f"{name}:1", base, top)
    since = str(time.time())
    done = docker("push", f"{name}:1")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0] == f"The push refers to repository [{name}]"
    assert lines[1:3] == [f"{short(top)}: Preparing", f"{short(base)}: Preparing"]
    assert sorted(lines[3:5]) == sorted(f"{short(layer)}: Pushed" for layer in (base, top))
    shown = json.loads(docker("image", "inspect", f"{name}:1").stdout)[0]
    (digest,) = [item.partition("@")[2] for item in shown["RepoDigests"]]
    raw = skopeo("inspect", "--raw", "--tls-verify=false", f"docker://{name}:1")
    assert digest_of(raw.encode()) == digest
    assert lines[5:] == [f"1: digest: {digest} size: {len(raw)}"]
    manifest = json.loads(raw)
    assert (manifest["mediaType"], manifest["config"]["digest"]) == (MANIFEST, image_id)
    assert raw.startswith('{\n   "schemaVersion": 2,\n   "mediaType": ')
    seen = docker("events", "--since", since, "--until", str(time.time()), "--filter", "event=push")
    assert f"image push {name}:1 (name={name})" in seen.stdout
    again = docker("push", f"{name}:1").stdout.splitlines()
    assert sorted(again[3:5]) == sorted(f"{short(layer)}: Layer already exists" for layer in (base, top))
    assert again[5:] == lines[5:]
    assert engine.cli("push", f"{name}:1").stdout.splitlines()[5:] == lines[5:]
    assert docker("push", "-q", f"{name}:1").stdout == f"{name}:1\n"
    assert engine.cli("push", "-q", f"{name}:1").stdout == f"{name}:1\n"
    assert docker("push", name).stdout.splitlines()[0] == "Using default tag: latest"


def test_there_and_back(engine: Engine, docker: Docker, real: RealRegistry, tmp_path: Path) -> None:
    base, top = base_layer(engine), tar(("f", "pushed", "there and back"))
    name = f"{real.host}/back:1"
    image_id = load(engine, name, base, top)
    assert docker("push", name).returncode == 0
    skopeo("copy", "--src-tls-verify=false", f"docker://{name}", f"dir:{tmp_path}/dir")
    layers = manifest_of(name)["layers"]
    assert gzip.decompress((tmp_path / "dir" / layers[1]["digest"][7:]).read_bytes()) == top
    assert docker("rmi", name).returncode == 0
    assert docker("pull", name).returncode == 0
    assert docker("images", "-q", "--no-trunc", f"{real.host}/back").stdout.strip() == image_id
    assert docker("run", "--rm", name, "cat", "/pushed").stdout == "there and back"


def test_other_repositories_are_mounted_from(engine: Engine, docker: Docker, real: RealRegistry) -> None:
    layer = big(1)
    load(engine, f"{real.host}/first:1", layer)
    assert docker("push", f"{real.host}/first:1").returncode == 0
    assert docker("tag", f"{real.host}/first:1", f"{real.host}/second/app:1").returncode == 0
    lines = docker("push", f"{real.host}/second/app:1").stdout.splitlines()
    assert lines[2] == f"{short(layer)}: Mounted from first"
    assert manifest_of(f"{real.host}/second/app:1") == manifest_of(f"{real.host}/first:1")
    before = len(real.requests())
    assert docker("push", f"{real.host}/second/app:1").returncode == 0
    assert not [line for line in real.requests()[before:] if line.startswith(("POST", "PATCH"))]


def test_what_was_pulled_keeps_its_digest(engine: Engine, docker: Docker, registry: FaultyRegistry, real: RealRegistry) -> None:
    layers = [tar(("f", "a", os.urandom(2000).hex())), tar(("f", "b", "2"))]
    digest = registry.add("app", "1", config(*layers), layers, compress=lambda data: gzip.compress(data, 9, mtime=12345))
    assert docker("pull", f"{registry.host}/app:1").returncode == 0
    partial = set(os.listdir(engine.data_root / "content/partial"))
    assert docker("tag", f"{registry.host}/app:1", f"{real.host}/kept:1").returncode == 0
    assert f"1: digest: {digest}" in docker("push", f"{real.host}/kept:1").stdout, "fetched again from where it came"
    assert set(os.listdir(engine.data_root / "content/partial")) <= partial
    registry.blobs.clear()
    assert docker("tag", f"{registry.host}/app:1", f"{real.host}/kept2:1").returncode == 0
    assert f"1: digest: {digest}" in docker("push", f"{real.host}/kept2:1").stdout, "mounted"
    other = FaultyRegistry()
    try:
        assert docker("tag", f"{registry.host}/app:1", f"{other.host}/lost:1").returncode == 0
        registry.held.clear()
        real_dead = docker("push", f"{other.host}/lost:1", timeout=120)
        assert real_dead.returncode == 0
    finally:
        other.close()


def test_an_image_of_oci_goes_out_as_oci(engine: Engine, docker: Docker, registry: FaultyRegistry, real: RealRegistry) -> None:
    layer = tar(("f", "a", "oci"))
    registry.add("oci", "1", config(layer), [layer], compress=zipped)
    media_type, body = registry.manifests["oci:1"]
    text = body.decode().replace(MANIFEST, OCI)
    text = text.replace("vnd.docker.container.image.v1+json", "vnd.oci.image.config.v1+json")
    text = text.replace("vnd.docker.image.rootfs.diff.tar.gzip", "vnd.oci.image.layer.v1.tar+gzip")
    digest = registry.add_manifest("oci", "1", text.encode(), OCI)
    assert docker("pull", f"{registry.host}/oci:1").returncode == 0
    assert docker("tag", f"{registry.host}/oci:1", f"{real.host}/oci:1").returncode == 0
    assert f"1: digest: {digest}" in docker("push", f"{real.host}/oci:1").stdout
    assert media_type == MANIFEST
    assert manifest_of(f"{real.host}/oci:1")["mediaType"] == OCI


def test_a_second_engine_sends_nothing(engine: Engine, make_engine: Callable[..., Engine], docker_path: str, docker: Docker) -> None:
    layer = big(3)
    registry = FaultyRegistry()
    second = make_engine("--bridge=none")
    second.start()
    try:
        for one in (engine, second):
            load(one, f"{registry.host}/same:1", layer)
        assert docker("push", f"{registry.host}/same:1").returncode == 0
        received = registry.received
        assert received > 1_000_000
        done = second.run_client([docker_path], "push", f"{registry.host}/same:1")
        assert f"{short(layer)}: Layer already exists" in done.stdout
        assert registry.received == received
    finally:
        registry.close()


def test_a_cut_connection_goes_on_where_it_ended(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    layer = big(4)
    load(engine, f"{registry.host}/cut:1", layer)
    registry.cut_uploads = [1_000_000, 1_500_000]
    assert docker("push", f"{registry.host}/cut:1", timeout=120).returncode == 0
    (blob,) = [size for size in (len(data) for data in registry.blobs.values()) if size > 100_000]
    assert registry.received < blob + 1_000_000, "what had arrived was not sent again"


def test_an_upload_that_the_registry_forgets(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    layer = big(1)
    load(engine, f"{registry.host}/forgot:1", layer)
    registry.cut_uploads, registry.resuming, registry.mounting = [200_000], False, False
    assert docker("push", f"{registry.host}/forgot:1", timeout=120).returncode == 0


def test_killed_or_left_in_the_middle(make_engine: Callable[..., Engine], docker_path: str, registry: FaultyRegistry) -> None:
    engine = make_engine("--bridge=none")
    engine.start()
    layer, name = big(8), f"{registry.host}/killed:1"
    load(engine, name, layer)
    for kill in (lambda client: client.kill(), lambda _client: os.kill(engine.pid, 9)):
        registry.delay, before = 0.05, registry.received
        client = subprocess.Popen(
            [docker_path, "push", name], env=engine.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 60
        while registry.received == before:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        kill(client)
        client.wait(60)
        registry.delay = 0
        before = -1
        while before != registry.received:  # what was under way still arrives
            assert time.monotonic() < deadline, "it goes on without a client"
            before = registry.received
            time.sleep(0.5)
    assert registry.held.get("killed", set()) <= {digest_of(config(layer))}
    engine.stop()
    engine.start()
    assert os.listdir(engine.data_root / "tmp") == []
    assert engine.run_client([docker_path], "push", name).returncode == 0


def test_all_tags(engine: Engine, docker: Docker, real: RealRegistry) -> None:
    for tag in ("a", "b"):
        load(engine, f"{real.host}/many:{tag}", tar(("f", tag, tag)))
    lines = docker("push", "-a", f"{real.host}/many").stdout.splitlines()
    assert [line[0] for line in lines if "digest: sha256:" in line] == ["a", "b"]
    assert lines[0] == f"The push refers to repository [{real.host}/many]"
    assert len([line for line in lines if line.startswith("The push")]) == 1
    assert sorted(json.loads(skopeo("list-tags", "--tls-verify=false", f"docker://{real.host}/many"))["Tags"]) == ["a", "b"]
    assert docker("push", "-a", f"{real.host}/many:a").stderr == "tag can't be used with --all-tags/-a\n"
    assert engine.cli("push", "-a", f"{real.host}/many:a").stderr == "tag can't be used with --all-tags/-a\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none", "An image does not exist locally with the tag: {host}/none"),
        ("there:2", "tag does not exist: {host}/there:2"),
    ],
)
def test_what_is_not_there(engine: Engine, docker: Docker, registry: FaultyRegistry, name: str, message: str) -> None:
    load(engine, f"{registry.host}/there:1", tar(("f", "a", "b")))
    done = docker("push", f"{registry.host}/{name}")
    assert (done.returncode, done.stderr) == (1, message.format(host=registry.host) + "\n")
    ours = engine.cli("push", f"{registry.host}/{name}")
    assert (ours.returncode, ours.stdout, ours.stderr) == (1, done.stdout, done.stderr)


def test_a_refusal(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    load(engine, f"{registry.host}/secret:1", tar(("f", "a", "b")))
    registry.refuse = (403, {}, b'{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}')
    done = docker("push", f"{registry.host}/secret:1")
    assert (done.returncode, done.stderr) == (1, "denied: requested access to the resource is denied\n")
    registry.refuse, registry.login = None, ("user", "password")
    done = docker("push", f"{registry.host}/secret:1")
    assert "unauthorized: authentication required" in done.stderr


def test_a_platform_that_it_is_not(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    load(engine, f"{registry.host}/plat:1", tar(("f", "a", "b")))
    assert docker("push", "--platform", "linux/amd64", f"{registry.host}/plat:1").returncode == 0
    done = docker("push", "--platform", "linux/s390x", f"{registry.host}/plat:1")
    assert done.returncode == 1
    assert "does not match the specified platform" in done.stderr


def test_what_a_registry_has(engine: Engine, docker: Docker, registry: FaultyRegistry) -> None:
    layer = tar(("f", "a", "b"))
    digest = registry.add("asked", "1", config(layer), [layer])
    body = registry.manifests["asked:1"][1]
    client = docker_py.DockerClient(base_url=engine.url)
    found = client.images.get_registry_data(f"{registry.host}/asked:1")
    assert found.attrs["Descriptor"] == {"mediaType": MANIFEST, "digest": digest, "size": len(body)}
    assert [(item["os"], item["architecture"]) for item in found.attrs["Platforms"]] == [("linux", "amd64")]
    status, answer = engine.request("GET", f"/distribution/{registry.host}/none/json")
    assert (status, answer["message"]) == (404, f"manifest for {registry.host}/none:latest not found: manifest unknown: manifest unknown")
    client.close()


def test_docker_py(engine: Engine, registry: FaultyRegistry) -> None:
    registry.login = ("user", "good")
    name = f"{registry.host}/py/app"
    load(engine, f"{name}:1", tar(("f", "a", "py")))
    client = docker_py.DockerClient(base_url=engine.url)
    assert client.login("user", "good", registry=registry.host)["Status"] == "Login Succeeded"
    lines = list(client.images.push(name, tag="1", stream=True, decode=True))
    (aux,) = [line["aux"] for line in lines if "aux" in line]
    assert registry.manifests[f"py/app@{aux['Digest']}"][0] == MANIFEST
    assert (aux["Tag"], aux["Size"]) == ("1", len(registry.manifests["py/app:1"][1]))
    assert client.images.pull(name, tag="1").attrs["RepoDigests"] == [f"{name}@{aux['Digest']}"]
    client.close()
