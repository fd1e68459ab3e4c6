"""./dev chaos for a minute, with a seed of each day's own that is printed when it fails."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.timeout(600)]

REPO = Path(__file__).resolve().parents[3]


def test_a_minute_of_chaos() -> None:
    seed = int(time.time()) // 86400
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--seconds", "60", "--seed", str(seed)],
        cwd=REPO, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-3000:]
