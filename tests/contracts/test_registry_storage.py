"""The storage contract, by each of the registry's storages."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.registry.filesystem import FileSystem
from tests.contracts.registry_storage import Place, StorageContract
from tests.support.buckets import bucket_at, s3_server


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with s3_server() as url:
        yield url


class TestFileSystem(StorageContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        def make() -> FileSystem:
            return FileSystem(tmp_path)

        make()
        return Place(make, tmp_path)


class TestS3(StorageContract):
    """Against moto's server, where obstore and moto are installed."""

    @pytest.fixture
    def place(self, endpoint: str, tmp_path: Path) -> Place:
        return Place(bucket_at(endpoint), tmp_path)
