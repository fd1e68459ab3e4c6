"""What is remembered of registries' blobs."""

from pathlib import Path

from sampan.digest import ChainId, DiffId, ImageId
from sampan.state.blobs import BlobSource, BlobSourceRepository, ManifestRow
from sampan.state.database import Database
from sampan.state.images import ImageRepository, ImageRow
from sampan.state.layers import LayerRepository, LayerRow

A, B = DiffId("sha256:" + "a" * 64), DiffId("sha256:" + "b" * 64)
IMAGE = ImageId("sha256:" + "c" * 64)


def source(diff_id: DiffId, digest: str, repository: str) -> BlobSource:
    return BlobSource(diff_id, digest, "application/x", 5, repository)


def test_sources_live_as_long_as_their_layers(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    layers, sources = LayerRepository(database), BlobSourceRepository(database)
    for diff_id in (A, B):
        layers.insert(LayerRow(ChainId(diff_id), None, diff_id, diff_id, 1, 1, "x"))
    sources.add([source(A, "one", "docker.io/library/a"), source(B, "two", "docker.io/library/a")], 1)
    sources.add([source(A, "one", "docker.io/library/b")], 2)
    assert [item.repository for item in sources.of(A)] == ["docker.io/library/b", "docker.io/library/a"]
    sources.add([source(A, "one", "docker.io/library/a")], 3)
    assert [item.repository for item in sources.of(A)] == ["docker.io/library/a", "docker.io/library/b"]
    sources.remove(source(A, "one", "docker.io/library/a"))
    assert [item.repository for item in sources.of(A)] == ["docker.io/library/b"]
    layers.delete(ChainId(B))
    sources.add([], 4)
    assert sources.of(B) == []
    database.close()


def test_manifests_live_as_long_as_their_images(tmp_path: Path) -> None:
    database = Database(tmp_path / "state.db")
    images, sources = ImageRepository(database), BlobSourceRepository(database)
    sources.keep_manifest(IMAGE, ManifestRow("x", b"1"))
    assert sources.manifest(IMAGE) is None, "there is no such image"
    images.insert(ImageRow(IMAGE, b"{}", "", 1, 0))
    for body in (b"1", b"2"):
        sources.keep_manifest(IMAGE, ManifestRow("x", body))
    assert sources.manifest(IMAGE) == ManifestRow("x", b"2")
    images.delete(IMAGE)
    assert sources.manifest(IMAGE) is None
    database.close()
