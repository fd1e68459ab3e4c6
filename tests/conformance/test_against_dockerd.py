"""Beside a live dockerd of the versions in bench/peers: layers, archives and diffs of images are the same in both.

Slow: each peer is made of Debian's packages once, which takes some minutes.
"""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contracts.layer_semantics import CASES, Case, seen_by
from tests.support import dockercli
from tests.support.dockerds import peer
from tests.support.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

TREE = """
mkdir -p /lower/deep && echo 1 > /lower/deep/file && echo 2 > /lower/other && ln /lower/other /lower/linked && ln -s other /lower/soft
mkdir /gone && echo 3 > /gone/file && mkdir /replaced && echo 4 > /replaced/old && echo 5 > /kept
"""
CHANGES = """
mv /lower /renamed
chmod 700 /renamed/deep
rm -rf /gone
rm -rf /replaced && mkdir /replaced && echo 6 > /replaced/new
chmod 600 /kept && ln /kept /hard
mkdir -p /fresh/deep && touch /fresh/deep/file && mkfifo /fresh/fifo
touch /removed-again && rm /removed-again
ln -sf /nowhere /fresh/soft
"""
"""Shell scripts: the first makes a layer, the second changes a container of it, in all ways that docker tells apart."""

Dockerd = Callable[..., str]


@pytest.fixture(scope="module", params=["28", "20"])
def host(request: pytest.FixtureRequest) -> Iterator[str]:
    """A dockerd's address; it is stopped again unless it ran before."""
    with peer(request.param) as url:
        yield url


@pytest.fixture
def dockerd(host: str) -> Dockerd:
    """A function that runs the real docker client against the dockerd; it must succeed."""

    def run(*args: str) -> str:
        done = subprocess.run([dockercli.find(), "-H", host, *args], capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, (args, done.stderr)
        return done.stdout.strip()

    return run


@pytest.fixture
def archive(engine: Engine, dockerd: Dockerd, tmp_path: Path) -> Iterator[Path]:
    """Our base image as a file; the dockerd has it as `busybox`, too."""
    path = tmp_path / "base.tar"
    assert engine.cli("save", "-o", str(path), "busybox").returncode == 0
    dockerd("load", "-i", str(path))
    yield path
    dockerd("rmi", "-f", "busybox")


def ours(engine: Engine) -> Dockerd:
    """As dockerd, for Sampan."""

    def run(*args: str) -> str:
        done = engine.cli(*args)
        assert done.returncode == 0, (args, done.stderr)
        return done.stdout.strip()

    return run


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_layers_come_to_the_same(host: str, case: Case) -> None:
    listed, error = seen_by(host, case)
    assert listed == tuple(sorted(case.listed))
    assert case.error in error
    assert bool(error) == bool(case.error)


def test_one_scripted_set_of_changes_is_the_same_diff(engine: Engine, dockerd: Dockerd, archive: Path) -> None:
    def changes(docker: Dockerd) -> list[str]:
        docker("run", "--name", "tree", "--network", "none", "busybox", "sh", "-c", TREE)
        docker("commit", "tree", "tree")
        docker("run", "--name", "changed", "--network", "none", "tree", "sh", "-c", CHANGES)
        try:
            return sorted(docker("diff", "changed").splitlines())
        finally:
            docker("rm", "-f", "tree", "changed")
            docker("rmi", "tree")

    assert changes(ours(engine)) == changes(dockerd)


@pytest.mark.parametrize("fields", ["{{.Id}}", "{{json .RootFS.Layers}}", "{{.Size}}"])
def test_an_image_is_the_same_in_both(engine: Engine, dockerd: Dockerd, archive: Path, fields: str) -> None:
    arguments = ("image", "inspect", "--format", fields, "busybox")
    assert ours(engine)(*arguments) == dockerd(*arguments)


def test_what_dockerd_made_and_saved_runs_here_and_goes_back(engine: Engine, dockerd: Dockerd, archive: Path, tmp_path: Path) -> None:
    docker, theirs, back = ours(engine), tmp_path / "theirs.tar", tmp_path / "back.tar"
    dockerd("run", "--name", "maker", "--network", "none", "busybox", "sh", "-c", TREE)
    dockerd("commit", "--change", 'CMD ["cat", "/lower/linked"]', "maker", "made:theirs")
    dockerd("save", "-o", str(theirs), "made:theirs")
    layers = ("image", "inspect", "--format", "{{json .RootFS.Layers}}", "made:theirs")
    known = dockerd(*layers)
    dockerd("rm", "maker")
    dockerd("rmi", "made:theirs")
    assert docker("load", "-i", str(theirs)) == "Loaded image: made:theirs"
    assert docker(*layers) == known
    assert docker("run", "--rm", "--network", "none", "made:theirs") == "2"
    docker("save", "-o", str(back), "made:theirs")
    docker("rmi", "made:theirs")
    assert dockerd("load", "-i", str(back)) == "Loaded image: made:theirs"
    assert dockerd(*layers) == known
    assert dockerd("run", "--rm", "--network", "none", "made:theirs") == "2"
    dockerd("rmi", "made:theirs")
