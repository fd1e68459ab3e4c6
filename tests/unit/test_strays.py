"""What tests take for an engine's own processes."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.strays import pid_of

HOLD = "import fcntl, sys; file = open(sys.argv[2], 'w'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
LOOK = "import sys; print(flush=True); sys.stdin.read()"


@contextlib.contextmanager
def process(program: str, *words: str) -> Iterator[int]:
    """One that runs until the end of the block."""
    with subprocess.Popen([sys.executable, "-c", program, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as started:
        assert started.stdout is not None
        started.stdout.readline()
        yield started.pid


@pytest.mark.parametrize("role", ["keeper", "supervisor"])
def test_a_child_with_its_words_is_not_taken_for_the_process_of_a_role(tmp_path: Path, role: str) -> None:
    engine: Any = SimpleNamespace(exec_root=tmp_path)
    lock = str(tmp_path / f"{role}.lock")
    assert pid_of(engine, role) is None, "never started"
    with process(LOOK, role, lock, str(tmp_path)), process(HOLD, role, lock, str(tmp_path)) as holder:
        assert pid_of(engine, role) == holder
    assert pid_of(engine, role) is None, "ended"
