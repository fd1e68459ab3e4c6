"""The builds of tests/golden/build beside a live dockerd 28: the same stream and the same image, but for differences that are meant.

Slow: the peer is made of Debian's packages once, which takes some minutes.
"""

from collections.abc import Iterator

import pytest

from tests.golden.build.cases import CASES
from tests.golden.build.record import answer, caller, clean_up, prepare
from tests.support.builds import Call
from tests.support.dockerds import peer
from tests.support.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def docker() -> Iterator[Call]:
    """Requests to a dockerd that has the base image."""
    with peer("28") as url:
        call = caller(url.removeprefix("unix://"))
        prepare(call)
        yield call
        clean_up(call)


@pytest.fixture(scope="module")
def ours(live_engine: Engine) -> Call:
    """The same for Sampan."""
    call = caller(live_engine.socket)
    prepare(call)
    return call


@pytest.mark.parametrize("name", CASES)
def test_a_build(docker: Call, ours: Call, name: str) -> None:
    mine, theirs = answer(ours, name), answer(docker, name)
    if CASES[name].why:
        assert mine != theirs
    else:
        assert mine == theirs
