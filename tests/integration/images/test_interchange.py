"""Archives go both ways between Sampan and others' programs: the same image ID everywhere, and it still runs."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import dockercli
from tests.support.engine import Engine

pytestmark = pytest.mark.root

NAME = "docker.io/library/busybox:latest"


@pytest.fixture(scope="module")
def engine(make_engine: Callable[..., Engine]) -> Engine:
    """An engine with the base image, which is removed and loaded again."""
    engine = make_engine()
    engine.start()
    engine.bootstrap()
    return engine


@pytest.fixture(scope="module")
def image_id(engine: Engine) -> str:
    """The base image's."""
    return str(engine.request("GET", "/images/busybox:latest/json")[1]["Id"])


@pytest.fixture
def saved(engine: Engine, image_id: str, tmp_path: Path) -> Path:
    """The base image as we save it."""
    done = engine.cli("save", "-o", str(tmp_path / "saved.tar"), "busybox:latest")
    assert done.returncode == 0, done.stderr
    return tmp_path / "saved.tar"


@pytest.fixture
def storage() -> Iterator[list[str]]:
    """podman's and buildah's options for a store of their own; they want short paths."""
    with tempfile.TemporaryDirectory(prefix="spi", dir="/var/tmp") as path:
        options = ["--root", f"{path}/store", "--runroot", f"{path}/run", "--storage-driver", "vfs"]
        yield options
        subprocess.run(["podman", *options, "rmi", "-fa"], capture_output=True, check=False, timeout=60)


def run(*command: str | Path) -> str:
    """A program's output; it must succeed."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def load(engine: Engine, archive: Path) -> str:
    """Load it; what was loaded, by its name or ID."""
    done = engine.cli("load", "-i", str(archive))
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().partition(": ")[2]


def id_of(engine: Engine, name: str) -> str:
    """An image's ID here."""
    return str(engine.request("GET", f"/images/{name}/json")[1]["Id"])


def forget(engine: Engine) -> None:
    """Remove the base image, so that a load has to bring it all."""
    engine.request("DELETE", "/images/busybox:latest?force=1")


def test_podman_takes_what_we_save_and_we_what_it_saves(engine: Engine, image_id: str, saved: Path, storage: list[str]) -> None:
    assert NAME in run("podman", *storage, "load", "-i", saved)
    assert json.loads(run("podman", *storage, "image", "inspect", NAME))[0]["Id"] == image_id.removeprefix("sha256:")
    for form in ("docker-archive", "oci-archive"):
        archive = saved.with_name(f"{form}.tar")
        run("podman", *storage, "save", "--format", form, "-o", archive, NAME)
        forget(engine)
        assert load(engine, archive) == "busybox:latest"
        assert id_of(engine, "busybox:latest") == image_id
        assert engine.cli("run", "--rm", "--network", "none", "busybox", "echo", "it runs").stdout == "it runs\n"


def test_skopeo_copies_between_all_forms(engine: Engine, image_id: str, saved: Path) -> None:
    for form, name in (("docker-archive", "busybox:copied"), ("oci-archive", "busybox:oci")):
        archive = saved.with_name(f"{form}.tar")
        run("skopeo", "copy", "--insecure-policy", f"docker-archive:{saved}", f"{form}:{archive}:{name}")
        assert load(engine, archive) == name
        # skopeo writes the config anew for OCI: the layers are the same, the ID is that of its config
        expected = json.loads(run("skopeo", "inspect", "--raw", "--config", f"{form}:{archive}"))
        shown = engine.request("GET", f"/images/{name}/json")[1]
        assert shown["RootFS"]["Layers"] == expected["rootfs"]["diff_ids"]
    assert id_of(engine, "busybox:copied") == image_id
    layout = saved.with_name("layout")
    run("skopeo", "copy", "--insecure-policy", f"docker-archive:{saved}", f"oci:{layout}:latest")
    run("tar", "-C", layout, "-cf", saved.with_name("layout.tar"), ".")
    assert load(engine, saved.with_name("layout.tar")) == id_of(engine, "busybox:oci")
    # our own archive is an OCI layout as well
    run("tar", "-xf", saved, "--one-top-level=" + str(saved.with_name("ours")))
    assert json.loads(run("skopeo", "inspect", f"oci:{saved.with_name('ours')}:latest"))["Layers"] == shown["RootFS"]["Layers"]


def test_buildah_builds_upon_what_we_save(engine: Engine, saved: Path, storage: list[str]) -> None:
    run("buildah", *storage, "from", "--name", "work", f"docker-archive:{saved}")
    run("buildah", *storage, "config", "--env", "WHERE=buildah", "work")
    for number, form in enumerate(("docker-archive", "oci-archive")):
        archive = saved.with_name(f"built-{form}.tar")
        run("buildah", *storage, "commit", "work", f"{form}:{archive}:built:{number}")
        assert load(engine, archive) == f"built:{number}"
        done = engine.cli("run", "--rm", "--network", "none", f"built:{number}", "sh", "-c", "echo $WHERE")
        assert done.stdout == "buildah\n", done.stderr
    run("buildah", *storage, "rm", "work")


@pytest.mark.parametrize("tool", ["gzip", "bzip2", "xz", "zstd"])
def test_compressed_by_the_usual_programs(engine: Engine, image_id: str, saved: Path, tool: str) -> None:
    run(tool, "-k", "-1", saved)
    (packed,) = (path for path in saved.parent.iterdir() if path != saved)
    forget(engine)
    assert load(engine, packed) == "busybox:latest"
    assert id_of(engine, "busybox:latest") == image_id


def test_the_docker_client_says_the_same_as_ours(engine: Engine, saved: Path) -> None:
    docker = dockercli.find()
    for arguments in (["load", "-i", str(saved)], ["load", "-q", "-i", str(saved)], ["load", "-i", "/etc/passwd"], ["save", "nope"]):
        theirs, ours = engine.run_client([docker], *arguments), engine.cli(*arguments)
        assert (ours.returncode, ours.stdout, ours.stderr) == (theirs.returncode, theirs.stdout, theirs.stderr)
    for program in ([docker], None):
        archive = saved.with_name("again.tar")
        done = (
            engine.run_client(program, "save", "-o", str(archive), "busybox:latest")
            if program
            else engine.cli("save", "-o", str(archive), "busybox:latest")
        )
        assert done.returncode == 0, done.stderr
        assert archive.read_bytes() == saved.read_bytes()
        assert archive.stat().st_mode & 0o777 == 0o600
        archive.unlink()
