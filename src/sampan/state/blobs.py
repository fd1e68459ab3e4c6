"""Which blobs registries have of our layers, and the manifests by which images came."""

from collections.abc import Sequence
from typing import NamedTuple

from sampan.digest import DiffId, ImageId
from sampan.state.database import Database


class BlobSource(NamedTuple):
    """A layer's compressed blob in a repository."""

    diff_id: DiffId
    digest: str
    media_type: str
    size: int
    """Of the compressed blob, bytes."""
    repository: str
    """Canonical, `docker.io/library/busybox`; empty: what our own compression makes of the layer."""


class ManifestRow(NamedTuple):
    """A manifest, byte for byte."""

    media_type: str
    body: bytes


class BlobSourceRepository:
    """Reads and writes them. Each method is one transaction; the last ones may be lost with the machine: then something is sent twice."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of(self, diff_id: DiffId) -> list[BlobSource]:
        """All of a layer, last seen first."""
        rows = self._database.read().execute(
            "SELECT diff_id, digest, media_type, size, repository FROM blob_sources WHERE diff_id = ? ORDER BY seen DESC", (diff_id,)
        )
        return [BlobSource(*row) for row in rows]

    def add(self, sources: Sequence[BlobSource], now: int) -> None:
        """Remember sources; now in ns. What belongs to layers that are gone is forgotten."""
        with self._database.transaction(durable=False) as cx:
            cx.execute("DELETE FROM blob_sources WHERE diff_id NOT IN (SELECT diff_id FROM layers)")
            cx.executemany(
                "INSERT OR REPLACE INTO blob_sources (diff_id, digest, media_type, size, repository, seen) VALUES (?, ?, ?, ?, ?, ?)",
                [(*source, now) for source in sources],
            )

    def remove(self, source: BlobSource) -> None:
        """The repository has it no more."""
        with self._database.transaction(durable=False) as cx:
            key = (source.diff_id, source.repository, source.digest)
            cx.execute("DELETE FROM blob_sources WHERE diff_id = ? AND repository = ? AND digest = ?", key)

    def manifest(self, image: ImageId) -> ManifestRow | None:
        """By which an image last came or went."""
        row = self._database.read().execute("SELECT media_type, body FROM image_manifests WHERE image_id = ?", (image,)).fetchone()
        return None if row is None else ManifestRow(*row)

    def keep_manifest(self, image: ImageId, manifest: ManifestRow) -> None:
        """Remember it in place of the former one; nothing happens when there is no such image."""
        with self._database.transaction(durable=False) as cx:
            cx.execute(
                "INSERT OR REPLACE INTO image_manifests (image_id, media_type, body) SELECT id, ?, ? FROM images WHERE id = ?",
                (*manifest, image),
            )
