"""Builds told and made as a dockerd 28 does: the stream, and every field of the image and every file of its layers (tests/golden/build)."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.golden.build.case import WHY
from tests.golden.build.cases import CASES
from tests.golden.build.record import answer, caller, prepare
from tests.golden.build.requests import DIFFERENT, REQUESTS, answer_of_request
from tests.support.builds import Call
from tests.support.engine import Engine

_GOLDEN = Path(__file__).parents[2] / "golden/build"
DOCKER28: dict[str, Any] = json.loads((_GOLDEN / "docker28.json").read_text())
REQUESTS28: dict[str, Any] = json.loads((_GOLDEN / "requests28.json").read_text())
SAMPAN: dict[str, Any] = json.loads((_GOLDEN / "sampan.json").read_text())


@pytest.fixture(scope="module")
def call(live_engine: Engine) -> Call:
    """Requests to an engine that has the base image."""
    found = caller(live_engine.socket)
    prepare(found)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_build(call: Call, name: str) -> None:
    assert answer(call, name) == (SAMPAN if CASES[name].why else DOCKER28)[name]


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request(call: Call, name: str) -> None:
    expected, found = REQUESTS28[name], answer_of_request(call, name)
    if name in DIFFERENT:
        assert (found["status"], found["said"][-1]) == (expected["status"], DIFFERENT[name])
        assert found["said"] != expected["said"]
    else:
        assert found == expected


def test_every_difference_has_a_reason_and_is_one() -> None:
    assert SAMPAN.keys() == {name for name, case in CASES.items() if case.why}
    assert {case.why for case in CASES.values() if case.why} == WHY.keys()
    assert not [name for name, answer in SAMPAN.items() if answer == DOCKER28[name]]
