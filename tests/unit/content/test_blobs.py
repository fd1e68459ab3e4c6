"""The blob stores keep their contract; the one on disk forgets what was half-written."""

from pathlib import Path

import pytest

from sampan.content.store import FileBlobs
from sampan.testing.blobs import MemoryBlobs
from tests.contracts.blobs import BlobsContract


class TestFileBlobs(BlobsContract):
    @pytest.fixture
    def blobs(self, tmp_path: Path) -> FileBlobs:
        return FileBlobs(tmp_path)


class TestMemoryBlobs(BlobsContract):
    @pytest.fixture
    def blobs(self) -> MemoryBlobs:
        return MemoryBlobs()


def test_a_blob_cut_off_by_a_crash_is_removed_at_the_next_start(tmp_path: Path) -> None:
    writer = FileBlobs(tmp_path).ingest()
    writer.write(b"half")
    assert len(list((tmp_path / "content/ingest").iterdir())) == 1
    blobs = FileBlobs(tmp_path)
    assert list((tmp_path / "content/ingest").iterdir()) == []
    assert list(blobs.digests()) == []
    writer.__exit__(None, None, None)
