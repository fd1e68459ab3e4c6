"""A large file of a context is hashed late where the Dockerfile does not look as if it copied it; what comes of it is the same."""

import os

from sampan.archive.context import LATER_MIN
from tests.integration.build.conftest import Build
from tests.support.engine import Engine


def copied(engine: Engine, image: str) -> str:
    """What the history says of an image's last step."""
    created_by = engine.request("GET", f"/images/{image}/history")[1][0]["CreatedBy"]
    assert "file:" in created_by, created_by
    return str(created_by)


def test_a_large_file_behind_a_symlink(run_build: Build, engine: Engine) -> None:
    data = os.urandom(LATER_MIN)
    files = {"d/large": data, "link": {"link": "d/large"}, "other": {"link": "d"}}
    at_once = run_build("FROM buildbase\nCOPY d/large /x\n", files)
    late = run_build("FROM buildbase\nCOPY link /x\n", files)
    assert not at_once.error, at_once.error
    assert not late.error, late.error
    assert copied(engine, late.image) == copied(engine, at_once.image)
    assert run_build("FROM buildbase\nCOPY link /x\n", files).cached == 1
    twice = "FROM buildbase\nCOPY link /x\nCOPY other/ /y/\nRUN cmp /x /y/large\n"
    assert not run_build(twice, files).error
    again = run_build(twice, {**files, "d/large": os.urandom(LATER_MIN)})
    assert not again.error, again.error
    assert again.cached == 0
