"""Builds told and made as a dockerd 28 does: stream, config, history, and every file of every layer (tests/golden/build)."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden.build.cases import CASES
from tests.golden.build.record import answer, caller, prepare
from tests.support.builds import Call
from tests.support.engine import Engine

DOCKER28: dict[str, Any] = json.loads((Path(__file__).parents[2] / "golden/build/docker28.json").read_text())


@pytest.fixture(scope="module")
def call(live_engine: Engine) -> Call:
    """Requests to an engine that has the base image."""
    found = caller(live_engine.socket)
    prepare(found)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_build(call: Call, name: str) -> None:
    assert answer(call, name) == DOCKER28[name]
