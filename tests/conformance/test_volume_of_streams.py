"""Much data through both clients' hijacked streams: all of it, in order, however slow the reader is."""

import os
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.engine import CLI, Engine

pytestmark = pytest.mark.root

PIECE = 1 << 20


@pytest.fixture(params=["sampan", "docker"])
def client(request: pytest.FixtureRequest, docker_path: str) -> list[str]:
    return CLI if request.param == "sampan" else [docker_path]


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_ten_megabytes_through_stdin_and_back(engine: Engine, client: list[str], verb: str) -> None:
    sent = os.urandom(10 << 20)
    if verb == "run":
        words = ["run", "--rm", "-i", "busybox", "cat"]
    else:
        assert engine.cli("run", "-d", "--name", "box", "busybox", "sleep", "1000").returncode == 0
        words = ["exec", "-i", "box", "cat"]
    done = subprocess.run([*client, *words], input=sent, capture_output=True, timeout=110, env=engine.environment(), check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == sent


def through_a_slow_reader(engine: Engine, client: list[str], folder: Path, times: int, pause: float) -> int:
    """Bytes that came out of `run`, each as it was written; the reader pauses after every megabyte."""
    content = os.urandom(16 * PIECE)
    (folder / "content").write_bytes(content)
    words = ["run", "--rm", "-v", f"{folder}:/data:ro", "busybox", "sh", "-c", f"for i in $(seq {times}); do cat /data/content; done"]
    total = 0
    with subprocess.Popen([*client, *words], stdout=subprocess.PIPE, env=engine.environment()) as run:
        assert run.stdout is not None
        while data := run.stdout.read(PIECE):
            start = total % len(content)
            assert data == content[start : start + len(data)], f"wrong after {total} bytes"
            total += len(data)
            time.sleep(pause)
    assert run.returncode == 0
    return total


def test_output_to_a_slow_reader_is_whole(engine: Engine, client: list[str], tmp_path: Path) -> None:
    assert through_a_slow_reader(engine, client, tmp_path, 3, 0.02) == 48 * PIECE


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_gigabyte_to_a_slow_reader_is_whole(engine: Engine, client: list[str], tmp_path: Path) -> None:
    assert through_a_slow_reader(engine, client, tmp_path, 64, 0.01) == 1024 * PIECE
