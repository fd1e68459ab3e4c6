"""A client that goes away in the midst of a build: it ends at once, wherever it is, and nothing of it is left."""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.integration.build.conftest import Build
from tests.support.builds import Content, context
from tests.support.engine import Engine
from tests.support.faultyregistry import FaultyRegistry

BIG = 48 << 20
"""Bytes that take a while to be copied, hashed and made a layer of."""


def _left(engine: Engine) -> dict[str, object]:
    """What a build may leave."""
    return {
        "containers": [container["Names"] for container in engine.request("GET", "/containers/json?all=1")[1]],
        "build": sorted(os.listdir(engine.data_root / "build")),
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(engine.root) in line],
        "cgroups": sorted(engine.cgroups()),
        "processes": sorted(line for line in _children(engine) if "sleep 600" in line),
    }


def _children(engine: Engine) -> list[str]:
    found = []
    for directory in engine.cgroups():
        for place, _, names in os.walk(directory):
            if "cgroup.procs" in names:
                with suppress(OSError):  # it is going
                    pids = (Path(place) / "cgroup.procs").read_text().split()
                    found += [command for pid in pids if (command := _command_of(pid))]
    return found


def _command_of(pid: str) -> str:
    """Empty: it is going."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


@contextmanager
def _asked(engine: Engine, body: bytes, query: str, *, sent: int | None = None) -> Iterator[socket.socket]:
    """A client that has asked for a build, of whose context it has sent so much; at the end it is gone."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(30)
        client.connect(engine.socket)
        head = f"POST /v1.50/build?{query} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-tar\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall(head.encode() + body[: len(body) if sent is None else sent])
        yield client


def _read_until(client: socket.socket, words: bytes) -> None:
    got = b""
    while words not in got:
        more = client.recv(65536)
        assert more, got
        got += more


@pytest.fixture
def nothing_left(engine: Engine, run_build: Build) -> Iterator[Callable[[], None]]:
    """A function: all is soon as it was before the test. It is called at the test's end too."""
    run_build("FROM buildbase\nRUN true\n", nocache=1)
    assert _comes_true(lambda: _left(engine)["build"] == ["mounts", "void"])
    before = _left(engine)

    def check() -> None:
        _comes_true(lambda: _left(engine) == before)
        assert _left(engine) == before

    yield check
    check()
    assert engine.findings() == []


def _comes_true(condition: Callable[[], bool]) -> bool:
    """Whether it does within ten seconds."""
    deadline = time.monotonic() + 10
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return met


CASES: dict[str, tuple[str, bytes, str]] = {
    "copy": ("COPY big /big\n", b"COPY", ""),
    "start": ("RUN exec sleep 600\n", b"Running in", ""),
    "run": ("RUN echo begun; exec sleep 600\n", b'"begun', ""),
    "layer": (f"RUN head -c {BIG} /dev/zero > /f; echo written\n", b'"written', ""),
    "after-a-step": ("RUN true\nRUN true\nRUN true\n", b"Step 3/4", ""),
    "kept-containers": ("RUN echo begun; exec sleep 600\n", b'"begun', "rm=0"),
    "workdir": (f"RUN head -c {BIG} /dev/zero > /f\nWORKDIR /w\nENV a=b\n", b"WORKDIR", ""),
    "squash": ("COPY big /big\nRUN rm /big\nCOPY big /other\n", b'"aux"', "squash=1"),
    "mounts": ("RUN --mount=type=cache,id=cancelled,target=/c --mount=target=/s,rw echo begun; exec sleep 600\n", b'"begun', ""),
}


@pytest.mark.parametrize("name", CASES)
def test_a_client_that_goes_away(engine: Engine, nothing_left: Callable[[], None], name: str) -> None:
    text, words, query = CASES[name]
    files: dict[str, Content] = {"Dockerfile": f"FROM buildbase\n{text}"}
    if "big" in text:
        files["big"] = os.urandom(1 << 20) * (BIG >> 20)
    with _asked(engine, context(files), f"nocache=1&{query}") as client:
        _read_until(client, words)
    nothing_left()


def test_a_client_that_goes_away_while_it_sends(engine: Engine, nothing_left: Callable[[], None]) -> None:
    body = context({"Dockerfile": "FROM buildbase\n", "big": os.urandom(1 << 20) * 8})
    with _asked(engine, body, "", sent=len(body) // 2):
        assert _comes_true(lambda: _left(engine)["build"] != ["mounts", "void"])
    nothing_left()


def test_a_client_that_goes_away_while_its_base_is_pulled(engine: Engine, nothing_left: Callable[[], None]) -> None:
    registry = FaultyRegistry()
    never = registry.hang["/manifests/"] = threading.Event()
    try:
        with _asked(engine, context({"Dockerfile": f"FROM {registry.host}/base:1\n"}), ""):
            assert _comes_true(lambda: any("/manifests/" in line for line in registry.requests))
        nothing_left()
    finally:
        never.set()
        registry.close()


def test_a_client_that_goes_away_ends_all_stages(engine: Engine, nothing_left: Callable[[], None]) -> None:
    stages = "".join(f"FROM buildbase AS s{number}\nRUN echo begun; exec sleep 600\n" for number in range(4))
    ends = "".join(f"COPY --from=s{number} /etc/passwd /p\n" for number in range(4))
    with _asked(engine, context({"Dockerfile": f"{stages}FROM buildbase\n{ends}"}), "nocache=1") as client:
        _read_until(client, b'"begun')
    nothing_left()


def test_a_client_that_goes_away_at_whatever_time(engine: Engine, nothing_left: Callable[[], None]) -> None:
    text = "FROM buildbase AS one\nCOPY f /f\nRUN echo 1 > /g\nFROM buildbase\nRUN echo 2 > /h\nCOPY --from=one /g /g\nWORKDIR /w\n"
    body = context({"Dockerfile": text, "f": "x"})
    for turn in range(25):
        with _asked(engine, body, "nocache=1&squash=1") as client:
            client.settimeout(0.01 * turn)
            try:
                while client.recv(65536):
                    pass
            except (TimeoutError, BlockingIOError):
                continue
    nothing_left()
