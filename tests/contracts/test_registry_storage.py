"""The storage contract, by each of the registry's storages."""

import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.registry.filesystem import FileSystem
from sampan.registry.s3 import S3
from tests.contracts.registry_storage import Place, StorageContract


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    pytest.importorskip("obstore", reason="pip install obstore")
    server = pytest.importorskip("moto.server", reason="pip install 'moto[server]'").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


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
        bucket = f"b{uuid.uuid4().hex}"
        with urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{bucket}", method="PUT"), timeout=20) as answer:
            assert answer.status == 200

        def make() -> S3:
            settings = {"endpoint": endpoint, "region": "us-east-1", "access_key_id": "k", "secret_access_key": "s"}
            return S3.connect(bucket, prefix="below", settings=settings)

        return Place(make, tmp_path)
