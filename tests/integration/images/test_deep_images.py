"""Images of many layers on either driver: they run, and `diff` names what the container did and nothing of the engine's own."""

from collections.abc import Callable

import pytest

from tests.support.engine import Engine
from tests.support.imagetars import base_layer, config, docker_files, packed
from tests.support.layers import need
from tests.support.tars import tar

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

COMMAND = "echo x > /new; rm /data/1; touch /etc/mine; cat /data/* | wc -c"
CHANGES = [(0, "/data"), (2, "/data/1"), (0, "/etc"), (1, "/etc/mine"), (1, "/mnt"), (1, "/mnt/here"), (1, "/new")]


@pytest.fixture(scope="module", params=["overlay2", "erofs"])
def driven(make_engine: Callable[..., Engine], request: pytest.FixtureRequest) -> Engine:
    """An engine with one of the drivers."""
    need(request.param)
    engine = make_engine(f"--storage-driver={request.param}")
    engine.start()
    engine.bootstrap()
    return engine


def deep(engine: Engine, count: int) -> bytes:
    """The archive of an image of so many layers."""
    layers = [base_layer(engine), *(tar(("d", "data"), ("f", f"data/{number}", "x")) for number in range(count - 1))]
    return packed(docker_files(config(*layers, config={"Cmd": ["sh", "-c", COMMAND]}), layers, [f"deep:{count}"]))


def load(engine: Engine, count: int) -> str:
    """An image of so many layers; returns its name."""
    status, said = engine.request("POST", "/images/load?quiet=1", deep(engine, count), timeout=250)
    assert (status, said) == (200, {"stream": f"Loaded image: deep:{count}\n"})
    return f"deep:{count}"


# one less than erofs folds, more than docker allows, as many as overlayfs stacks: no room for the engine's own mount points below them
@pytest.mark.parametrize("count", [40, 130, pytest.param(500, marks=pytest.mark.slow)])
def test_diff(driven: Engine, count: int) -> None:
    name = load(driven, count)
    ran = driven.cli("run", "--name=deep", "-v/tmp:/mnt/here", name)
    try:
        assert (ran.stdout, ran.stderr) == (f"{count - 2}\n", "")
        found = driven.request("GET", "/containers/deep/changes")[1]
        assert [(change["Kind"], change["Path"]) for change in found] == CHANGES
    finally:
        driven.cli("rm", "deep")
        driven.cli("rmi", name)


def test_too_many(driven: Engine) -> None:
    """Refused before anything of it is kept."""
    done = driven.cli("load", stdin=deep(driven, 501))
    assert done.returncode == 1
    assert "invalid image config: 501 layers, at most 500" in done.stderr
