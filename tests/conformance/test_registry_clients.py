"""Real clients against `sampan registry serve`: skopeo, buildah, podman, our engine, artifacts as oras makes them; dockerd is slow."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.dockerds import peer
from tests.support.engine import Engine
from tests.support.imagetars import base_layer, config, docker_files, packed
from tests.support.registries import Docker, load
from tests.support.registryprogram import SAMPAN, RegistryProgram
from tests.support.registryserver import EMPTY, EMPTY_TYPE, Client, descriptor, digest_of
from tests.support.tars import tar

pytestmark = pytest.mark.root

LAYER = tar(("f", "a/file", "of an image"))
Run = Callable[..., str]


class Registry(NamedTuple):
    program: RegistryProgram
    host: str
    directory: Path


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """Everybody may pull, alice (whose password is `secret`) may push: logins are by token."""
    directory = tmp_path_factory.mktemp("clients")
    line = subprocess.run([SAMPAN, "registry", "passwd", "alice"], input="secret\n", capture_output=True, text=True, check=True, timeout=20)
    (directory / "htpasswd").write_text(line.stdout)
    settings = {"auth": {"htpasswd": str(directory / "htpasswd"), "anonymous-pull": True}}
    program = RegistryProgram(directory / "registry", settings=settings)
    yield Registry(program, program.host, directory)
    program.close()


def run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """A docker-archive for skopeo."""
    path = tmp_path / "image.tar"
    path.write_bytes(packed(docker_files(config(LAYER), [LAYER], ["app:1"])))
    return f"docker-archive:{path}"


def test_skopeo(registry: Registry, archive: str, tmp_path: Path) -> None:
    image, credentials = f"docker://{registry.host}/skopeo/app", "--dest-creds=alice:secret"
    plain = ["--dest-tls-verify=false", "--src-tls-verify=false"]
    run("skopeo", "copy", "--dest-tls-verify=false", credentials, archive, f"{image}:1")
    refused = subprocess.run(
        ["skopeo", "copy", "--dest-tls-verify=false", archive, f"{image}:2"], capture_output=True, text=True, timeout=60
    )
    assert refused.returncode != 0
    assert "unauthorized" in refused.stderr.lower() or "authentication required" in refused.stderr.lower()
    run("skopeo", "copy", "--dest-tls-verify=false", credentials, "--format=oci", archive, f"{image}:oci")
    run("skopeo", "copy", *plain, credentials, f"{image}:1", f"docker://{registry.host}/skopeo/copy:1")  # by mounts
    mounted = ("/v2/skopeo/copy/blobs/uploads/", 201)
    registry.program.accesses_until(lambda entries: mounted in [(entry["path"], entry["status"]) for entry in entries])
    assert json.loads(run("skopeo", "list-tags", "--tls-verify=false", image))["Tags"] == ["1", "oci"]
    shown = json.loads(run("skopeo", "inspect", "--tls-verify=false", f"{image}:oci"))
    assert (len(shown["Layers"]), shown["Architecture"]) == (1, "amd64")
    run("skopeo", "copy", "--src-tls-verify=false", f"{image}:oci", f"oci:{tmp_path / 'layout'}:x")
    run("skopeo", "delete", "--tls-verify=false", "--creds=alice:secret", f"{image}:1")
    assert json.loads(run("skopeo", "list-tags", "--tls-verify=false", image))["Tags"] == ["oci"]


@pytest.fixture
def runroot() -> Iterator[str]:
    """podman's, which may have 50 characters at most."""
    with tempfile.TemporaryDirectory(prefix="sampan-podman-") as directory:
        yield directory


def test_podman_and_buildah(registry: Registry, archive: str, tmp_path: Path, runroot: str) -> None:
    storage = ["--root", str(tmp_path / "root"), "--runroot", runroot, "--storage-driver", "vfs"]
    auth = ["--authfile", str(tmp_path / "auth.json")]
    image = f"{registry.host}/podman/app:1"
    run("podman", *storage, "login", *auth, "--tls-verify=false", "-u", "alice", "--password-stdin", registry.host, stdin="secret")
    run("podman", *storage, "load", "-i", archive.partition(":")[2])
    run("podman", *storage, "push", *auth, "--tls-verify=false", "localhost/app:1", image)
    container = run("buildah", *storage, "from", "--tls-verify=false", image).strip()
    run("buildah", *storage, "config", "--label", "made=by-buildah", container)
    run("buildah", *storage, "commit", container, "localhost/second")
    run("buildah", *storage, "push", *auth, "--tls-verify=false", "localhost/second", f"docker://{registry.host}/podman/app:2")
    run("podman", *storage, "rmi", "-af")
    run("podman", *storage, "pull", "--tls-verify=false", f"{registry.host}/podman/app:2")
    assert "by-buildah" in run("podman", *storage, "image", "inspect", f"{registry.host}/podman/app:2")


def test_our_engine_and_dockers_client(engine: Engine, docker: Docker, registry: Registry) -> None:
    """docker login, push, pull and run; and `sampan` the same."""
    name = f"{registry.host}/engine/app"
    load(engine, f"{name}:1", base_layer(engine), LAYER)
    assert docker("login", "-u", "alice", "--password-stdin", registry.host, stdin=b"secret").returncode == 0
    try:
        pushed = docker("push", f"{name}:1")
        assert (pushed.returncode, pushed.stderr) == (0, "")
        assert engine.cli("push", f"{name}:1").returncode == 0
        assert docker("rmi", f"{name}:1").returncode == 0
    finally:
        docker("logout", registry.host)
    assert docker("pull", f"{name}:1").returncode == 0  # anonymous
    assert docker("run", "--rm", f"{name}:1", "cat", "/a/file").stdout == "of an image"
    assert docker("push", f"{name}:1").returncode == 1
    assert docker("rmi", f"{name}:1").returncode == 0
    assert docker("manifest", "inspect", "--insecure", f"{name}:1").returncode == 0


def test_artifacts_as_oras_makes_them(registry: Registry) -> None:
    """`oras push`, `oras attach`, `oras discover`: token first, HEAD before each upload, PUT by digest, then the referrers."""
    client = Client(registry.host)
    scope = "repository:oras/app:pull,push"
    challenge = client("POST", "oras/app/blobs/uploads/").headers["WWW-Authenticate"]
    assert f'scope="{scope}"' in challenge
    basic = {"Authorization": "Basic YWxpY2U6c2VjcmV0"}
    token = {"Authorization": f"Bearer {client('GET', '/token', None, basic, scope=scope).json['token']}"}

    def push(content: bytes) -> None:
        digest = digest_of(content)
        if client("HEAD", f"oras/app/blobs/{digest}", None, token).status == 404:
            location = client("POST", "oras/app/blobs/uploads/", None, token).headers["Location"]
            assert client("PUT", location, content, token, digest=digest).status == 201

    def artifact(kind: str, content: bytes, **more: object) -> bytes:
        document = {
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": kind,
            "config": {**descriptor(EMPTY, EMPTY_TYPE), "data": "e30="}, "layers": [descriptor(content, "text/plain")], **more,
        }  # fmt: skip
        for blob in (EMPTY, content):
            push(blob)
        body = json.dumps(document).encode()
        headers = {"Content-Type": "application/vnd.oci.image.manifest.v1+json", **token}
        assert client("PUT", f"oras/app/manifests/{digest_of(body)}", body, headers).status == 201
        return body

    base = artifact("application/vnd.example.thing", b"the thing")
    subject = descriptor(base, "application/vnd.oci.image.manifest.v1+json")
    sbom = artifact(
        "application/spdx+json", b"its parts", subject=subject, annotations={"org.opencontainers.image.created": "2026-01-01T00:00:00Z"}
    )
    found = client("GET", f"oras/app/referrers/{digest_of(base)}", artifactType="application/spdx+json")
    assert [entry["digest"] for entry in found.json["manifests"]] == [digest_of(sbom)]
    client.close()


@pytest.mark.slow
@pytest.mark.parametrize("version", ["20", "28"])
def test_dockerd(version: str, docker_path: str, tmp_path: Path, archive: str) -> None:
    """Docker's own daemon, in its network namespace, pulls, pushes and mounts (test_registry_mirror_clients.py: mirrors)."""
    with ExitStack() as stack:
        url = stack.enter_context(peer(version))

        def docker(*args: str) -> str:
            return run(docker_path, "-H", url, *args)

        program = RegistryProgram(tmp_path / "r", namespace=f"sampan-peer{version}")
        stack.callback(program.close)
        name = f"{program.host}/peer/app"
        docker("load", "-i", archive.partition(":")[2])
        docker("tag", "app:1", f"{name}:1")
        assert "digest: sha256:" in docker("push", f"{name}:1")
        docker("tag", "app:1", f"{name}-second:1")
        assert "Mounted from peer/app" in docker("push", f"{name}-second:1")
        assert "Layer already exists" in docker("push", f"{name}:1")
        docker("rmi", "app:1", f"{name}:1", f"{name}-second:1")
        assert "Downloaded newer image" in docker("pull", f"{name}:1")
        digest = next(entry["path"] for entry in program.accesses() if entry["method"] == "HEAD" and "/manifests/" in entry["path"])
        assert digest.endswith("/manifests/1")
        docker("rmi", f"{name}:1")
