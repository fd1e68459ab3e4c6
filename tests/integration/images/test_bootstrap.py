"""Base images of the distribution's packages: the same each time, signed, and they run."""

import os
import subprocess
import time
from pathlib import Path

import pytest

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


def test_what_cannot_be_made(engine: Engine) -> None:
    for name, words in (("fedora:40", "the images that can be made here are"), ("debian:no/such", "is no name of a release")):
        done = engine.cli("image", "bootstrap", name)
        assert done.returncode == 1
        assert words in done.stderr
