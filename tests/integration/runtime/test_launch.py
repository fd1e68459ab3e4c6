"""Launching a process in a fresh container: output, exit codes, errors."""

from typing import Any

import pytest

pytestmark = pytest.mark.root


def test_a_command_runs_and_its_output_and_code_come_back(box: Any) -> None:
    assert box.run("sh", "-c", "echo hi; echo oops >&2; exit 3") == (3, "hi\n", "oops\n")
