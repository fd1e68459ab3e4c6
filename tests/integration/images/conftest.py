"""A data root on a real disk, registries and certificates for them."""

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import Engine
from tests.support.faultyregistry import FaultyRegistry

MARK = ".sampan-test"
"""A file that says whose a directory is."""


@pytest.fixture
def root() -> Iterator[Path]:
    """Not below /tmp, which may be a tmpfs or an overlay."""
    with tempfile.TemporaryDirectory(prefix="sampan-test-", dir="/var/tmp") as path:
        yield Path(path)


@pytest.fixture
def certs_d() -> Iterator[Callable[[str, str], Path]]:
    """A function that makes a directory for a registry's certificates, below /etc/sampan or /etc/docker."""
    made: list[Path] = []

    def make(product: str, host: str) -> Path:
        path = Path("/etc") / product / "certs.d" / host
        made.extend(parent for parent in (path, *path.parents) if not parent.exists())
        if (path / MARK).exists():  # a test run that was killed has left it
            shutil.rmtree(path)
            made.append(path)
        path.mkdir(parents=True)
        (path / MARK).touch()
        return path

    # One test run at a time: the directories are the machine's.
    with open("/run/lock/sampan-test-certs.d", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield make
        for path in sorted(made, key=lambda path: len(path.parts), reverse=True):
            if "certs.d" in path.parts[:-1]:
                shutil.rmtree(path)
            elif not any(path.iterdir()):
                path.rmdir()


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    registry = FaultyRegistry()
    yield registry
    registry.close()


@pytest.fixture
def no_images_left(engine: Engine) -> Iterator[None]:
    """A test's images go, and with them the layers that the next one wants to pull."""
    yield
    engine.remove_containers()
    for image in engine.request("GET", "/images/json")[1]:
        if not any(tag.startswith("busybox") for tag in image["RepoTags"]):
            engine.request("DELETE", f"/images/{image['Id']}?force=1")
