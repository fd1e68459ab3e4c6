"""Fuzzed programs (atheris) as tests start them."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def run_target(command: Sequence[str], seconds: int) -> subprocess.CompletedProcess[str]:
    """The end of a target that is to run for so long.

    By a shell: the most memory that this process ever had would count as the target's, were it started from here (getrusage(2)).
    """
    words = ["sh", "-c", '"$@"; exit $?', "sh", *command]
    return subprocess.run(words, capture_output=True, text=True, timeout=seconds + 100, check=False, cwd=REPOSITORY)
