"""Base images of the distribution's packages: the same each time, signed, and they run."""

import os
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest

from sampan.image import debian
from tests.support.engine import CLI, Engine

pytestmark = pytest.mark.root


def trees(engine: Engine) -> list[str]:
    return [name for name in os.listdir(engine.data_root / "bootstrap") if name.startswith("tree-")]


@pytest.mark.slow
@pytest.mark.timeout(3600)  # three installations of a Debian, on machines of any speed
def test_debian_twice(engine: Engine) -> None:
    """Also once more after an interruption: nothing is left of that."""
    first = engine.cli("image", "bootstrap", "debian:bookworm-slim", "--include", "less", timeout=1800)
    assert first.returncode == 0, first.stderr
    stopped = subprocess.Popen([*CLI, "image", "bootstrap", "debian:bookworm"], env=engine.environment(), stdout=subprocess.PIPE, text=True)
    assert stopped.stdout is not None
    for line in stopped.stdout:
        if "extracting" in line:
            break
    stopped.kill()
    stopped.wait()
    stopped.stdout.close()
    deadline = time.monotonic() + 120
    while trees(engine):
        assert time.monotonic() < deadline, "the interrupted tree is still there"
        time.sleep(0.2)
    assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/bootstrap/" in line]
    second = engine.cli("image", "bootstrap", "debian:bookworm-slim", "--include", "less", timeout=1800)
    assert second.returncode == 0, second.stderr
    assert first.stdout.splitlines()[-1] == second.stdout.splitlines()[-1]
    labels = engine.request("GET", "/images/debian:bookworm-slim/json")[1]["Config"]["Labels"]
    installed = engine.cli("run", "--rm", "debian:bookworm-slim", "dpkg-query", "-W", "-f", "${Package}=${Version} ").stdout.split()
    assert labels["sampan.packages"].split() == sorted(installed)
    assert any(package.startswith("less=") for package in installed)
    assert engine.cli("run", "--rm", "debian:bookworm-slim", "ls", "/usr/share/man").stdout == ""
    assert engine.cli("rmi", "debian:bookworm-slim").returncode == 0


def need_ubuntu() -> None:
    """Skip where its packages cannot be had or cannot be trusted."""
    package, keyring = debian.KEYRINGS["ubuntu"]
    if not Path("/usr/share/keyrings", keyring).exists():
        pytest.skip(
            f"/usr/share/keyrings/{keyring} is missing: Debian 12 has no package {package}; Ubuntu's own one can be installed there"
        )
    try:
        with urllib.request.urlopen("http://archive.ubuntu.com/ubuntu/dists/noble/InRelease", timeout=20):
            pass
    except OSError as error:
        pytest.skip(f"Ubuntu's archive cannot be reached from here: {error}")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ubuntu(engine: Engine) -> None:
    need_ubuntu()
    made = engine.cli("image", "bootstrap", "ubuntu:24.04", timeout=1700)
    assert made.returncode == 0, made.stderr
    assert "VERSION_CODENAME=noble" in engine.cli("run", "--rm", "ubuntu:24.04", "cat", "/etc/os-release").stdout
    installed = engine.cli("run", "--rm", "ubuntu:24.04", "dpkg-query", "-W", "-f", "${Package}=${Version} ").stdout.split()
    labels = engine.request("GET", "/images/ubuntu:24.04/json")[1]["Config"]["Labels"]
    assert labels["sampan.packages"].split() == sorted(installed)
    assert trees(engine) == []
    assert engine.cli("rmi", "ubuntu:24.04").returncode == 0


def test_what_cannot_be_made(engine: Engine) -> None:
    for name, words in (("fedora:40", "the images that can be made here are"), ("debian:no/such", "is no name of a release")):
        done = engine.cli("image", "bootstrap", name)
        assert done.returncode == 1
        assert words in done.stderr
