"""Bounded fuzzing of the decompressors, the extraction of layers and their recipes (atheris): refused, or made again byte for byte."""

import os
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.disks import tmpfs
from tests.support.fuzzing import run_target

pytestmark = pytest.mark.root

pytest.importorskip("atheris")

SEEDS = Path(__file__).with_name("seeds")


def fuzz(seconds: int) -> None:
    """Run the target on a copy of the seeds, in a file system of its own."""
    with tempfile.TemporaryDirectory(prefix="sampan-test-", dir="/var/tmp") as directory, tmpfs(Path(directory), "size=256m") as root:
        for name in ("corpus", "found"):
            (root / name).mkdir()
        for kind in ("layers", "streams"):
            shutil.copytree(SEEDS / kind, root / kind)
        options = [f"-max_total_time={seconds}", "-max_len=16384", "-timeout=30", "-rss_limit_mb=1024", "-artifact_prefix=/found/"]
        command = [sys.executable, "-m", "tests.fuzz.unpack_target", f"--root={root}", *options, "/corpus", "/layers", "/streams"]
        done = run_target(command, seconds)
        found = [(name, (root / "found" / name).read_bytes()) for name in os.listdir(root / "found") if not name.startswith("slow-unit")]
    assert done.returncode == 0, f"{done.stderr[-3000:]}\ninput: {found}"
    assert "Done " in done.stderr
    assert found == []


def test_the_kept_seeds_and_a_few_seconds_more() -> None:
    fuzz(4)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_minutes() -> None:
    fuzz(120)
