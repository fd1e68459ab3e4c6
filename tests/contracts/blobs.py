"""What every blob store does. Import the functions' holder into a test module that defines the fixture `blobs`."""

import pytest

from sampan.content.store import Blobs
from sampan.digest import Digest, sha256_of
from sampan.errors import InvalidArgument, NotFound


class BlobsContract:
    """Run against each implementation."""

    def test_a_committed_blob_can_be_read(self, blobs: Blobs) -> None:
        with blobs.ingest() as writer:
            writer.write(b"hello ")
            writer.write(memoryview(b"world"))
            digest = writer.commit(Digest(sha256_of(b"hello world")), 11)
        assert blobs.size(digest) == 11
        with blobs.open(digest) as file:
            assert file.read() == b"hello world"
        assert list(blobs.digests()) == [digest]

    def test_nothing_is_visible_before_commit(self, blobs: Blobs) -> None:
        with blobs.ingest() as writer:
            writer.write(b"x")
            assert list(blobs.digests()) == []
        assert list(blobs.digests()) == []

    @pytest.mark.parametrize(("expected", "size"), [(Digest(sha256_of(b"other")), None), (None, 3)])
    def test_what_was_not_asked_for_is_refused(self, blobs: Blobs, expected: Digest | None, size: int | None) -> None:
        with blobs.ingest() as writer:
            writer.write(b"x")
            with pytest.raises(InvalidArgument, match="unexpected blob"):
                writer.commit(expected, size)
        assert list(blobs.digests()) == []

    def test_the_same_blob_twice_is_one(self, blobs: Blobs) -> None:
        for _ in range(2):
            with blobs.ingest() as writer:
                writer.write(b"x")
                writer.commit()
        assert len(list(blobs.digests())) == 1

    def test_a_missing_blob(self, blobs: Blobs) -> None:
        digest = Digest(sha256_of(b"nothing"))
        assert blobs.size(digest) is None
        blobs.remove(digest)
        with pytest.raises(NotFound):
            blobs.open(digest)

    def test_a_name_that_is_no_digest_is_not_a_path(self, blobs: Blobs) -> None:
        with pytest.raises(NotFound):
            blobs.open(Digest("sha256:../../../etc/passwd"))

    def test_a_removed_blob_is_gone(self, blobs: Blobs) -> None:
        with blobs.ingest() as writer:
            writer.write(b"x")
            digest = writer.commit()
        blobs.remove(digest)
        assert blobs.size(digest) is None
