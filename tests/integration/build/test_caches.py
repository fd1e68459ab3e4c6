"""`RUN --mount=type=cache` of builds that run at the same time."""

import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from tests.integration.build.conftest import Build
from tests.support.builds import Built, context
from tests.support.engine import Engine

SYNC = "--mount=type=cache,id=sync-{},target=/sync"
AWAIT = "n=0; until [ -e /sync/{} ]; do n=$((n+1)); [ $n -lt 600 ] || exit 7; sleep 0.05; done"
"""Waits for another step, half a minute at most."""


def together(*builds: Callable[[], Built]) -> list[Built]:
    """What builds come to that run at the same time."""
    with ThreadPoolExecutor(len(builds)) as pool:
        return [future.result(timeout=100) for future in [pool.submit(one) for one in builds]]


def pair(run_build: Build, test: str, cache: str, command: str) -> list[Built]:
    """Two builds whose steps are there together: each has touched /c/<own name> when the command runs."""

    def one(own: str, other: str) -> Built:
        mounts = f"{SYNC.format(test)} --mount=type=cache,id=c-{test},target=/c,{cache}"
        wait = AWAIT.format(other)
        return run_build(f"FROM buildbase\nRUN {mounts} touch /c/{own} /sync/{own}; {wait}; {command}\n", nocache=1)

    return together(lambda: one("a", "b"), lambda: one("b", "a"))


def test_shared_caches_are_one(run_build: Build) -> None:
    for built in pair(run_build, "shared", "sharing=shared", "echo $(ls /c)"):
        assert built.error == ""
        assert "\na b\n" in built.text


def test_private_caches_are_one_each(run_build: Build) -> None:
    built = pair(run_build, "private", "sharing=private", "echo $(ls /c)")
    assert [one.error for one in built] == ["", ""]
    assert "\na\n" in built[0].text
    assert "\nb\n" in built[1].text
    # the first of them that is free is used again
    text = "FROM buildbase\nRUN --mount=type=cache,id=c-private,target=/c,sharing=private echo found $(ls /c)\n"
    assert any(f"\nfound {name}\n" in run_build(text, nocache=1).text for name in ("a", "b"))


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_locked_caches_wait_for_each_other(run_build: Build, engine: Engine) -> None:
    cache = "--mount=type=cache,id=c-locked,target=/c,sharing=locked"
    hold = f"mkdir /c/held && touch /sync/a; {AWAIT.format('go')}; rmdir /c/held"
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run_build, f"FROM buildbase\nRUN {SYNC.format('locked')} {cache} {hold}\n", nocache=1)
        check = f"FROM buildbase\nRUN {SYNC.format('locked')} {AWAIT.format('a')}\n"
        assert run_build(check, nocache=1).error == ""
        second = pool.submit(run_build, f"FROM buildbase\nRUN {cache} mkdir /c/held && echo alone; rmdir /c/held\n", nocache=1)
        # a build that was asked for later, and needs no cache that is held, is over first
        assert run_build("FROM buildbase\nRUN true\n", nocache=1).error == ""
        assert not second.done()
        assert len(engine.request("GET", "/containers/json")[1]) == 1
        assert run_build(f"FROM buildbase\nRUN {SYNC.format('locked')} touch /sync/go\n", nocache=1).error == ""
        assert first.result(60).error == ""
        assert "alone\n" in second.result(60).text


def test_a_waiting_build_can_be_left(run_build: Build, engine: Engine) -> None:
    """Who waits for a locked cache and goes away keeps nobody from it."""
    cache = "--mount=type=cache,id=c-left,target=/c,sharing=locked"
    with ThreadPoolExecutor(1) as pool:
        hold = pool.submit(run_build, f"FROM buildbase\nRUN {SYNC.format('left')} {cache} {AWAIT.format('go')}\n", nocache=1)
        until(lambda: engine.request("GET", "/containers/json")[1])
        waiting = f"FROM buildbase\nRUN {cache} true\n"
        command = ["curl", "-sN", "--unix-socket", engine.socket, "-H", "Content-Type: application/x-tar", "--data-binary", "@-"]
        with subprocess.Popen([*command, "http://d/build?nocache=1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(context({"Dockerfile": waiting}))
            client.stdin.close()
            while b"Step 2/2" not in (line := client.stdout.readline()):
                assert line
            client.kill()
            assert b"Running in" not in client.stdout.read()
        assert run_build(f"FROM buildbase\nRUN {SYNC.format('left')} touch /sync/go\n", nocache=1).error == ""
        assert hold.result(60).error == ""
    assert run_build(waiting, nocache=1).error == ""


def test_caches_of_one_step_are_no_trap(run_build: Build) -> None:
    def mounts(*names: str) -> str:
        return " ".join(f"--mount=type=cache,id=trap-{name[0]},sharing=locked,target=/{name}" for name in names)

    twice = run_build(f"FROM buildbase\nRUN {mounts('x1', 'x2')} touch /x1/f && ls /x2\n", nocache=1)
    assert "\nf\n" in twice.text
    forth, back = (f"FROM buildbase\nRUN {mounts(*names)} true\n" for names in (("x", "y"), ("y", "x")))
    for built in together(*[partial(run_build, text, nocache=1) for text in (forth, back) * 4]):
        assert built.error == ""
