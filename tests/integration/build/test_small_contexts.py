"""A small context is not unpacked before a step needs it; what comes of it is the same."""

import gzip
import os
import time

from tests.golden.build.record import caller
from tests.integration.build.conftest import Build
from tests.support.builds import Content, build, context
from tests.support.engine import Engine

FILES: dict[str, Content] = {
    "a/deep/file": "1\n",
    "a/mode": {"data": "2\n", "mode": 0o4750, "uid": 7, "gid": 8},
    "b": None,
    "z.txt": "3\n",
    ".dockerignore": "nothing\n",
}
DOCKERFILE = """FROM buildbase
COPY . /all/
COPY a/*d* z.txt /some/
RUN --mount=type=bind,target=/context grep -r . /context/a && test -d /context/b
"""


def test_the_cache_does_not_tell_a_small_context_from_an_unpacked_one(run_build: Build, engine: Engine) -> None:
    first = run_build(DOCKERFILE, FILES)
    assert not first.error, first.error
    assert first.cached == 0
    unpacked = build(caller(engine.socket), gzip.compress(context({"Dockerfile": DOCKERFILE, **FILES})))  # a worker's
    assert unpacked.cached == 3, unpacked.text
    assert unpacked.image == first.image
    other = build(caller(engine.socket), gzip.compress(context({"Dockerfile": DOCKERFILE, **FILES, "z.txt": "4\n"})), nocache=1)
    again = run_build(DOCKERFILE, {**FILES, "z.txt": "4\n"})
    assert (again.cached, again.image) == (3, other.image), again.text


def test_from_the_cache_nothing_is_unpacked(run_build: Build, engine: Engine) -> None:
    places = engine.data_root / "build"
    run_build(DOCKERFILE, FILES)
    deadline = time.monotonic() + 10
    while not set(os.listdir(places)) <= {"mounts", "void"} and time.monotonic() < deadline:  # a build's place goes after its end
        time.sleep(0.02)
    before = places.stat().st_mtime_ns
    assert run_build(DOCKERFILE, FILES).cached == 3
    assert places.stat().st_mtime_ns == before
