"""sampan-teardown leaves nothing behind, whatever state the engine is in."""

import os
import signal
import subprocess
from collections.abc import Callable

import pytest

from sampan.daemon.config import parse_command_line
from sampan.daemon.teardown import helper_pids
from tests.support.engine import TEARDOWN, Engine

pytestmark = [pytest.mark.root]


@pytest.fixture
def busy(make_engine: Callable[..., Engine]) -> Engine:
    """An engine with a plain container, one with a tty, a paused one and a published port."""
    engine = make_engine()
    engine.start()
    engine.bootstrap()
    for options in (["-t"], ["-p", "127.0.0.1::80"], ["--name", "paused"]):
        done = engine.cli("run", "-d", "--stop-timeout=1", *options, "busybox", "sleep", "1000")
        assert done.returncode == 0, done.stderr
    assert engine.cli("pause", "paused").returncode == 0
    return engine


def tear_down(engine: Engine, verb: str) -> str:
    """What it complains of."""
    done = subprocess.run([*TEARDOWN, verb, *engine.flags], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    if engine.process is not None:
        engine.process.wait(30)
    return done.stderr


def test_a_running_engine_is_ended_with_its_containers(busy: Engine) -> None:
    (busy.root / "daemon.json").write_text('{"registry-mirrors": [,]}')  # no reason to leave it running
    assert "invalid JSON" in tear_down(busy, "stop")
    (busy.root / "daemon.json").write_text("")
    assert not any(busy.leftovers().values()), busy.leftovers()
    assert busy.data_root.is_dir()


def test_what_was_killed_is_cleared_up(busy: Engine) -> None:
    helpers = helper_pids(parse_command_line(busy.flags))
    assert len(helpers) >= 2, "keeper and supervisor are found by their sockets"
    for pid in (busy.pid, *helpers):
        os.kill(pid, signal.SIGKILL)
    tear_down(busy, "purge")
    assert not any(busy.leftovers().values()), busy.leftovers()
    assert not busy.data_root.exists()


def test_an_engine_that_never_was_is_no_error(make_engine: Callable[..., Engine]) -> None:
    tear_down(make_engine(), "purge")


def test_after_a_stop_the_engine_starts_again_with_its_containers(busy: Engine) -> None:
    tear_down(busy, "stop")
    busy.start()
    assert busy.cli("start", "paused").returncode == 0
    assert "paused" in busy.cli("ps", "--format", "{{.Names}}").stdout
