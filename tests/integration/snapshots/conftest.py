"""A data root for the snapshot tests."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def root() -> Iterator[Path]:
    """Not below /tmp, which may be a tmpfs or an overlay."""
    with tempfile.TemporaryDirectory(prefix="sampan-test-", dir="/var/tmp") as path:
        yield Path(path)
