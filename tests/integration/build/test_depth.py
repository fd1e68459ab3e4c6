"""docker's limit is on an image's 128th layer: a build that would make one says so, and leaves nothing of it."""

import io
import sqlite3
import tarfile
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.integration.build.conftest import Build
from tests.support.engine import Engine
from tests.support.imagetars import base_layer, config, docker_files, packed

DEEPEST = 127
REFUSED = "max depth exceeded: the image of the step before has 127 layers, and an image can have 127; join several RUN, COPY or ADD"


def _small_layer(number: int) -> bytes:
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode="w") as tar:
        info = tarfile.TarInfo(f"layer{number}")
        info.mtime = 1_000_000_000
        tar.addfile(info)
    return body.getvalue()


@pytest.fixture(scope="module")
def deep(live_engine: Engine) -> Iterator[str]:
    """An image of as many layers as one can have, but one."""
    engine = live_engine
    layers = [base_layer(engine), *(_small_layer(number) for number in range(DEEPEST - 2))]
    assert engine.request("POST", "/images/load?quiet=1", packed(docker_files(config(*layers), layers, ["deep:1"])))[0] == 200
    yield "deep:1"
    engine.request("DELETE", "/images/deep:1?force=1")


def test_the_deepest_image_is_built_and_runs(run_build: Build, deep: str, engine: Engine) -> None:
    text = f"FROM {deep}\nCOPY <<EOT /last\nlast\nEOT\nENV A=b\nRUN cat /last /layer0 /layer124\nLABEL c=d\n"
    built = run_build(text, nocache=1)
    assert built.error == ""
    assert len(engine.request("GET", f"/images/{built.image}/json")[1]["RootFS"]["Layers"]) == DEEPEST


@pytest.mark.parametrize(
    ("step", "squash"),
    [("RUN echo x > /more", 0), ("RUN echo x > /more", 1), ("COPY more /more", 0), ("WORKDIR /more", 0)],
    ids=["run", "squashed", "copy", "workdir"],
)
def test_a_layer_more_is_refused(run_build: Build, deep: str, engine: Engine, step: str, squash: int) -> None:
    before = _layers_without_cache(engine)
    built = run_build(f"FROM {deep}\nRUN echo last > /last\n{step}\n", {"more": "x"}, nocache=1, forcerm=1, squash=squash)
    assert built.error.startswith(REFUSED)
    assert built.error.endswith("or begin with an image that has fewer")
    assert engine.request("GET", "/containers/json?all=1")[1] == []
    assert _layers_without_cache(engine) == before


def _layers_without_cache(engine: Engine) -> list[str]:
    assert engine.request("POST", "/build/prune?all=1")[0] == 200
    with closing(sqlite3.connect(engine.data_root / "state.db")) as database:
        return [name for (name,) in database.execute("SELECT chain_id FROM layers ORDER BY chain_id")]
