"""The storage contract, by each of the registry's storages."""

from pathlib import Path

import pytest

from sampan.registry.filesystem import FileSystem
from tests.contracts.registry_storage import Place, StorageContract


class TestFileSystem(StorageContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        def make() -> FileSystem:
            return FileSystem(tmp_path)

        make()
        return Place(make, tmp_path)
