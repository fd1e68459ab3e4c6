"""Real clients pull through a mirror by `sampan registry serve`, each in its own way: a prefix, `?ns=`, or the default of all names."""

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.dockerds import dockerd, peer
from tests.support.engine import Engine
from tests.support.imagetars import config, docker_files, packed
from tests.support.registryprogram import RegistryProgram
from tests.support.tars import tar

pytestmark = pytest.mark.root

LAYER = tar(("f", "a/file", "by a mirror"))
UPSTREAM = "up.invalid"


class World(NamedTuple):
    """An upstream with an image under two names, and its mirror: of the upstream's own name, and in the place of Docker Hub."""

    upstream: RegistryProgram
    mirror: RegistryProgram

    def close(self) -> None:
        """End both."""
        self.mirror.close()
        self.upstream.close()

    def blobs_fetched(self) -> int:
        """How often a blob was asked of the upstream."""
        return sum(entry["method"] == "GET" and "/blobs/sha256:" in entry["path"] for entry in self.upstream.accesses())

    def agents(self, path: str) -> set[str]:
        """Who has asked the mirror for it, by the first word."""
        return {entry["agent"].split("/")[0] for entry in self.mirror.accesses() if entry["path"] == path and entry["status"] == 200}


def run(*command: str, environment: dict[str, str] | None = None) -> str:
    inside = [f"{name}={value}" for name, value in (environment or {}).items()]
    done = subprocess.run(["env", *inside, *command], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def world_in(directory: Path, namespace: str = "") -> World:
    """A pair of registries. The image's manifest and blobs are three things to fetch."""
    archive = directory / "image.tar"
    archive.write_bytes(packed(docker_files(config(LAYER), [LAYER], ["app:1"])))
    upstream = RegistryProgram(directory / "upstream", namespace=namespace)
    inside = ["nsenter", f"--net=/run/netns/{namespace}"] if namespace else []
    for path in ("team/app", "library/sampan-app"):
        run(*inside, "skopeo", "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{archive}", f"docker://{upstream.host}/{path}:1")
    url = f"http://{upstream.host}"
    settings = {"mirrors": {UPSTREAM: {"url": url}, "docker.io": {"url": url, "default": True}}}
    return World(upstream, RegistryProgram(directory / "mirror", settings=settings, namespace=namespace))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = world_in(tmp_path)
    yield made
    made.close()


def test_podman_buildah_and_skopeo_by_registries_conf(world: World, tmp_path: Path) -> None:
    conf = tmp_path / "registries.conf"
    conf.write_text(
        "".join(
            f'[[registry]]\nprefix = "{name}"\nlocation = "{name}"\n'
            f'[[registry.mirror]]\nlocation = "{world.mirror.host}/{name}"\ninsecure = true\n'
            for name in (UPSTREAM, "docker.io")
        )
    )
    environment = {"CONTAINERS_REGISTRIES_CONF": str(conf)}
    image, hub = f"{UPSTREAM}/team/app:1", "docker.io/library/sampan-app:1"
    with tempfile.TemporaryDirectory(prefix="sampan-podman-") as runroot:  # podman's, which may have 50 characters at most
        storage = ["--root", str(tmp_path / "root"), "--runroot", runroot, "--storage-driver", "vfs"]
        run("podman", *storage, "pull", "-q", image, environment=environment)
        assert image in run("podman", *storage, "images", "--format", "{{.Repository}}:{{.Tag}}")
        container = run("buildah", *storage, "from", hub, environment=environment).strip()
        run("buildah", *storage, "rm", container)
        run("podman", *storage, "rmi", "-af")
    fetched = world.blobs_fetched()
    run("skopeo", "--registries-conf", str(conf), "copy", "-q", f"docker://{image}", f"oci:{tmp_path / 'layout'}:x")
    assert world.blobs_fetched() == fetched == 2  # config and layer, however many clients and names
    assert world.agents(f"/v2/{UPSTREAM}/team/app/manifests/1") >= {"containers"}


def test_our_engine_by_namespace_and_as_docker_hubs(world: World, make_engine: Callable[..., Engine]) -> None:
    engine = make_engine("--bridge=none")
    engine.start()
    url = f"http://{world.mirror.host}/"
    for arguments in (["--registry", UPSTREAM, url], [url]):
        done = engine.cli("mirror", "add", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
    for image in (f"{UPSTREAM}/team/app:1", "sampan-app:1"):
        done = engine.cli("pull", image)
        assert done.returncode == 0, done.stderr
        assert engine.cli("rmi", image).returncode == 0
    asked = len(world.upstream.accesses())
    assert engine.cli("pull", f"{UPSTREAM}/team/app:1").returncode == 0
    assert len(world.upstream.accesses()) == asked
    assert world.agents("/v2/team/app/manifests/1") == world.agents("/v2/library/sampan-app/manifests/1") == {"docker"}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("version", ["20", "28"])
def test_dockerd_and_containerd(version: str, docker_path: str) -> None:
    """dockerd by `registry-mirrors`; its containerd by a hosts.toml, with `?ns=`."""
    with ExitStack() as stack:
        run_directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sampan-dockerd-", dir="/var/tmp")))  # a short path
        stack.enter_context(peer(version))
        world = world_in(run_directory, f"sampan-peer{version}")
        stack.callback(world.close)
        daemon = stack.enter_context(dockerd(version, run_directory, f"--registry-mirror=http://{world.mirror.host}"))
        assert "Downloaded newer image" in run(docker_path, "-H", daemon.url, "pull", "sampan-app:1")
        assert world.agents("/v2/library/sampan-app/manifests/1") == {"docker"}
        hosts = run_directory / "certs.d" / UPSTREAM
        hosts.mkdir(parents=True)
        mirror = f'[host."http://{world.mirror.host}"]\ncapabilities = ["pull", "resolve"]\n'
        (hosts / "hosts.toml").write_text(f'server = "https://{UPSTREAM}"\n{mirror}')
        ctr = ["ctr", "-a", daemon.containerd, "-n", "test", "content", "fetch", "--hosts-dir", str(hosts.parent)]
        run(*daemon.inside, *ctr, f"{UPSTREAM}/team/app:1")
        assert world.agents("/v2/team/app/manifests/1") == {"containerd"}
