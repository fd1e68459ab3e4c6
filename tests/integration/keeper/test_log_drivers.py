"""The contract of the log drivers, run on each through the real keeper."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.log_drivers import ReadableContract, UnreadableContract
from tests.support.disks import tmpfs

pytestmark = pytest.mark.root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    with tmpfs(tmp_path / "disk", "size=2m", lazily=True) as disk:
        yield disk


class TestLocal(ReadableContract):
    driver, exact = "local", True

    def belongs(self, path: Path) -> bool:
        return path.suffix == ".seg"


class TestJsonFile(ReadableContract):
    driver, exact = "json-file", False

    def belongs(self, path: Path) -> bool:
        return ".json" in path.name


class TestNone(UnreadableContract):
    driver = "none"
