"""Builds on the session's engine."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.golden.build.record import caller, prepare
from tests.support.builds import Built, Content, build
from tests.support.engine import Engine

Build = Callable[..., Built]


@pytest.fixture(scope="module")
def _prepared(live_engine: Engine) -> Engine:
    prepare(caller(live_engine.socket))
    return live_engine


@pytest.fixture
def run_build(_prepared: Engine, engine: Engine) -> Build:
    """A function that builds: run_build("FROM buildbase...", {files}, t="name"). The Dockerfile is the first argument."""

    def run(dockerfile: str, files: dict[str, Content] | None = None, /, **query: Any) -> Built:
        return build(caller(engine.socket), {"Dockerfile": dockerfile, **(files or {})}, **query)

    return run
