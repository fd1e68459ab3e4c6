"""Volumes left by a test are removed after it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.support.engine import Engine

Docker = Callable[..., CompletedProcess[str]]


@pytest.fixture(autouse=True)
def no_volumes_left(engine: Engine) -> Iterator[None]:
    """Before the containers of the test: they go first."""
    yield
    engine.remove_containers()
    for volume in engine.request("GET", "/volumes")[1]["Volumes"]:
        assert engine.request("DELETE", f"/volumes/{volume['Name']}")[0] == 204
    assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f"{engine.data_root}/volumes" in line]


@pytest.fixture
def error(docker: Docker) -> Callable[..., str]:
    """A function that runs the real docker client, which has to fail, and gives the daemon's message."""

    def run(*args: str) -> str:
        done = docker(*args)
        assert done.returncode != 0, done.stdout
        return done.stderr.removeprefix("docker: ").removeprefix("Error response from daemon: ").partition("\n")[0]

    return run
