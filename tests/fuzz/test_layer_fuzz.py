"""Bounded fuzzing of the tar reader and the indexer (atheris): no crash of ours, no complaint of the kernel's about what we wrote."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sampan.errors import SystemFailure
from sampan.snapshot.probe import probe_erofs
from tests.support.fuzzing import run_target

pytestmark = pytest.mark.root

pytest.importorskip("atheris")

SEEDS = Path(__file__).with_name("seeds") / "layers"


@contextmanager
def kernel_messages() -> Iterator[list[str]]:
    """What the kernel says meanwhile; filled when the block ends."""
    found: list[str] = []
    fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
    try:
        os.lseek(fd, 0, os.SEEK_END)
        yield found
        while True:
            try:
                found.append(os.read(fd, 8192).decode(errors="replace").partition(";")[2].partition("\n")[0])
            except BlockingIOError:
                return
            except BrokenPipeError:  # overwritten before it was read
                continue
    finally:
        os.close(fd)


def complaints(messages: list[str]) -> list[str]:
    """Those that are about EROFS, or worse."""
    return [
        line
        for line in messages
        if ("erofs" in line and "mounted with root inode" not in line) or line.startswith(("BUG", "WARNING", "Oops", "general protection"))
    ]


def fuzz(tmp_path: Path, seconds: int) -> None:
    """Run the target on a copy of the seeds."""
    try:
        probe_erofs(Path("/var/tmp"))
    except SystemFailure as error:
        pytest.skip(error.message)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    with tempfile.TemporaryDirectory(prefix="sampan-test-", dir="/var/tmp") as scratch, kernel_messages() as messages:
        options = [f"-max_total_time={seconds}", "-max_len=16384", "-timeout=60", "-rss_limit_mb=2048", f"-artifact_prefix={tmp_path}/"]
        command = [sys.executable, "-m", "tests.fuzz.layer_target", f"--scratch={scratch}", *options, str(corpus), str(SEEDS)]
        done = run_target(command, seconds)
    crashes = [path.read_bytes() for path in tmp_path.glob("crash-*")]
    assert done.returncode == 0, f"{done.stderr[-3000:]}\ninput: {crashes}"
    assert "Done " in done.stderr
    assert complaints(messages) == []


def test_the_kept_seeds_and_a_few_seconds_more(tmp_path: Path) -> None:
    fuzz(tmp_path, 5)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_minutes(tmp_path: Path) -> None:
    fuzz(tmp_path, 120)
