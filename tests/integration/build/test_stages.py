"""Stages side by side: when each begins, whom it waits for, and what becomes of the others when one fails."""

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.golden.build.record import caller
from tests.integration.build.conftest import Build
from tests.support.builds import Built, build
from tests.support.engine import Engine
from tests.support.faultyregistry import FaultyRegistry
from tests.support.imagetars import base_layer, config


@pytest.fixture
def meeting() -> Callable[[str], str]:
    """A function that makes the start of a RUN: all of this test's have one directory at /c."""
    name = uuid.uuid4().hex
    return lambda command: f"RUN --mount=type=cache,id={name},target=/c {command}"


def waits_for(name: str) -> str:
    """A command that ends once another stage has made a file, and fails if none does."""
    return f"for i in $(seq 200); do [ -e /c/{name} ] && exit 0; sleep 0.1; done; exit 1"


def wait_until(condition: Callable[[], object]) -> None:
    """Up to ten seconds."""
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_a_stage_begins_before_those_it_copies_from_are_complete(run_build: Build, meeting: Callable[[str], str]) -> None:
    text = f"""FROM buildbase AS one
{meeting(waits_for("two"))}
RUN echo made > /f
FROM buildbase
{meeting("touch /c/two")}
COPY --from=one /f /f
RUN --mount=from=one,source=/f,target=/g cat /f /g
"""
    built = run_build(text, nocache=1)
    assert built.error == ""
    assert "made\nmade\n" in built.text


def test_many_that_wait_leave_room_for_whom_they_wait_for(run_build: Build) -> None:
    copies = "".join(f"FROM buildbase AS w{number}\nCOPY --from=late /f /f\n" for number in range(12))
    ends = "".join(f"COPY --from=w{number} /f /f{number}\n" for number in range(12))
    text = f"FROM buildbase AS first\nRUN echo late > /f\nFROM first AS late\nLABEL late=1\n{copies}FROM buildbase\n{ends}"
    assert run_build(text, nocache=1).error == ""


def test_those_that_have_much_to_say_leave_room_for_whom_is_heard(run_build: Build, meeting: Callable[[str], str]) -> None:
    loud = meeting("yes 0123456789abcdef | while ! [ -e /c/go ]; do head -c 65536; done")
    stages = "".join(f"FROM buildbase AS loud{number}\n{loud}\nRUN touch /f\n" for number in range(9))
    ends = "".join(f"COPY --from=loud{number} /f /f{number}\n" for number in range(9))
    first = f"FROM buildbase AS one\nRUN sleep 2\nFROM one AS two\n{meeting('touch /c/go /f')}\n"
    assert run_build(f"{first}{stages}FROM buildbase\nCOPY --from=two /f /f\n{ends}", nocache=1).error == ""


def test_triggers_that_ask_for_stages_leave_room_for_these(run_build: Build) -> None:
    numbers = range(9)  # one more than work at a time
    for number in numbers:
        assert run_build(f"FROM buildbase\nONBUILD RUN true\nONBUILD COPY --from=h{number} /h /h\n", t=f"asks{number}").error == ""
    helpers = "".join(f"FROM buildbase AS h{number}\nRUN echo {number} > /h\n" for number in numbers)
    asking = "".join(f"FROM asks{number} AS a{number}\nRUN [ $(cat /h) = {number} ]\n" for number in numbers)
    ends = "".join(f"COPY --from=a{number} /h /h{number}\n" for number in numbers)
    assert run_build(f"{helpers}{asking}FROM buildbase\n{ends}", nocache=1).error == ""


def test_a_trigger_that_asks_for_a_stage_that_fails_is_told_up_to_there(run_build: Build) -> None:
    assert run_build("FROM buildbase\nONBUILD COPY --from=helper /h /h\n", nocache=1, t="asks").error == ""
    text = "FROM buildbase AS helper\nRUN exit 5\nFROM asks AS first\nFROM buildbase AS then\nRUN exec sleep 600\nFROM buildbase\n"
    built = run_build(f"{text}COPY --from=first /h /h\nCOPY --from=then /h /h\n", nocache=1, forcerm=1)
    assert built.code == 5
    assert "RUN exit 5" in built.text
    assert "AS then" not in built.text


def test_a_long_row_of_stages_each_with_a_mount_of_the_one_before(run_build: Build) -> None:
    row = "".join(
        f"FROM buildbase AS r{number + 1}\nRUN --mount=from=r{number},source=/f,target=/g cat /g > /f; echo {number} >> /f\n"
        for number in range(12)
    )
    built = run_build(f"FROM buildbase AS r0\nRUN echo begin > /f\n{row}RUN cat /f\n", nocache=1)
    assert built.error == ""
    assert "begin\n" + "".join(f"{number}\n" for number in range(12)) in built.text


def test_a_stage_that_fails_ends_the_others_at_once(run_build: Build, engine: Engine, meeting: Callable[[str], str]) -> None:
    text = f"""FROM buildbase AS long
{meeting("touch /c/begun; exec sleep 600")}
FROM buildbase AS fails
{meeting(waits_for("begun").replace("exit 0", "exit 5"))}
FROM buildbase AS waits
COPY --from=long /etc/passwd /p
FROM buildbase AS runs
RUN exec sleep 600
FROM buildbase
COPY --from=fails /etc/passwd /p
COPY --from=waits /etc/passwd /p
COPY --from=runs /etc/passwd /p
"""
    built = run_build(text, nocache=1, forcerm=1)
    assert built.code == 5
    assert engine.request("GET", "/containers/json?all=1")[1] == []
    assert "AS fails" in built.text
    assert "AS waits" not in built.text
    wait_until(lambda: sorted(os.listdir(engine.data_root / "build")) == ["mounts", "void"])


@pytest.fixture
def registry(engine: Engine) -> Iterator[FaultyRegistry]:
    """Has `one:1` and `two:1`."""
    registry = FaultyRegistry()
    layer = base_layer(engine)
    for name in ("one", "two"):
        registry.add(name, "1", config(layer), [layer])
    yield registry
    registry.close()
    for name in ("one", "two"):
        engine.request("DELETE", f"/images/{registry.host}/{name}:1?force=1")


def test_bases_of_stages_that_wait_are_fetched_meanwhile(engine: Engine, registry: FaultyRegistry) -> None:
    asked = registry.hang["/one/manifests/"] = threading.Event()
    text = f"FROM {registry.host}/one:1 AS one\nRUN echo one > /f\nFROM {registry.host}/two:1\nCOPY --from=one /f /f\nRUN cat /f\n"
    built: list[Built] = []
    thread = threading.Thread(target=lambda: built.append(build(caller(engine.socket), {"Dockerfile": text}, nocache=1)))
    thread.start()
    try:
        wait_until(lambda: any("/two/manifests/" in line for line in registry.requests))
    finally:
        asked.set()
        thread.join(60)
    assert built[0].error == ""


def test_a_base_of_two_stages_is_fetched_once(engine: Engine, registry: FaultyRegistry) -> None:
    text = f"FROM {registry.host}/one:1 AS one\nFROM {registry.host}/one:1\nCOPY --from=one /etc/passwd /p\n"
    built = build(caller(engine.socket), {"Dockerfile": text}, nocache=1)
    assert built.error == ""
    assert [line.get("status", "") for line in built.lines].count("Pulling from one") == 1
