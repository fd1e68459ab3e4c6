"""The contract of the log drivers, run on each through the real keeper."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contracts.log_drivers import ReadableContract, UnreadableContract

pytestmark = pytest.mark.root


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True, timeout=10)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True, timeout=10)


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
