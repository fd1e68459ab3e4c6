"""Images and their names as they are stored."""

from collections.abc import Sequence
from typing import NamedTuple

from sampan.digest import ImageId, sha256_of
from sampan.state.database import Database


class ImageRow(NamedTuple):
    """One row of the images table."""

    id: ImageId
    config: bytes
    """The document, byte for byte."""
    parent: str
    added: int
    """ns since the epoch"""
    last_tagged: int


class NameRow(NamedTuple):
    """A tag or a repository digest of an image."""

    repository: str
    """Canonical, `docker.io/library/busybox`."""
    value: str
    """The tag, or the manifest's digest."""
    image_id: ImageId


class ImageRepository:
    """Reads and writes images and their names. Each method is one transaction, durable unless it is said otherwise."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[ImageRow]:
        """Every image, in the order they were added."""
        rows = self._database.read().execute("SELECT id, config, parent, added, last_tagged FROM images ORDER BY rowid")
        return [ImageRow(*row) for row in rows]

    def tags(self) -> list[NameRow]:
        """Every tag."""
        return [NameRow(*row) for row in self._database.read().execute("SELECT repository, tag, image_id FROM image_tags")]

    def digests(self) -> list[NameRow]:
        """Every repository digest."""
        return [NameRow(*row) for row in self._database.read().execute("SELECT repository, digest, image_id FROM image_digests")]

    def ids(self) -> set[ImageId]:
        """The ID of every image."""
        return {ImageId(row[0]) for row in self._database.read().execute("SELECT id FROM images")}

    def spoilt(self) -> list[ImageId]:
        """Images whose documents have not the digests that they are known by. Any thread."""
        with self._database.reader() as connection:
            return [ImageId(key) for key, config in connection.execute("SELECT id, config FROM images") if sha256_of(config) != key]

    def stray_manifests(self) -> list[ImageId]:
        """Of which images there are manifests, but no image."""
        rows = self._database.read().execute("SELECT image_id FROM image_manifests WHERE image_id NOT IN (SELECT id FROM images)")
        return [ImageId(row[0]) for row in rows]

    def drop_manifest(self, image: ImageId) -> None:
        """Forget an image's manifest."""
        with self._database.transaction() as cx:
            cx.execute("DELETE FROM image_manifests WHERE image_id = ?", (image,))

    def insert(
        self, row: ImageRow, tags: Sequence[tuple[str, str]] = (), digest: tuple[str, str] | None = None, *, durable: bool = True
    ) -> None:
        """Add an image (kept if it is there), (repository, tag)s and perhaps a (repository, digest), all or nothing.

        durable=False: the machine's end may lose it, as long as nothing durable comes after it.
        """
        with self._database.transaction(durable=durable) as cx:
            cx.execute(
                "INSERT INTO images (id, config, parent, added, last_tagged) VALUES (?, ?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET config = excluded.config WHERE config != excluded.config",  # a disk has spoilt it
                row,
            )
            for tag in tags:
                cx.execute("INSERT OR REPLACE INTO image_tags (repository, tag, image_id) VALUES (?, ?, ?)", (*tag, row.id))
            if tags:
                cx.execute("UPDATE images SET last_tagged = ? WHERE id = ?", (row.last_tagged, row.id))
            if digest is not None:
                cx.execute("INSERT OR REPLACE INTO image_digests (repository, digest, image_id) VALUES (?, ?, ?)", (*digest, row.id))

    def tag(self, image: ImageId, repository: str, tag: str, at: int) -> None:
        """Point a tag at an image; `at` in ns."""
        with self._database.transaction() as cx:
            cx.execute("INSERT OR REPLACE INTO image_tags (repository, tag, image_id) VALUES (?, ?, ?)", (repository, tag, image))
            cx.execute("UPDATE images SET last_tagged = ? WHERE id = ?", (at, image))

    def tag_again(self, image: ImageId, at: int) -> None:
        """A tag that it has already; `at` in ns. The machine's end may lose it, as long as nothing durable comes after it."""
        with self._database.transaction(durable=False) as cx:
            cx.execute("UPDATE images SET last_tagged = ? WHERE id = ?", (at, image))

    def remove_names(self, names: list[tuple[str, str | None, str | None]]) -> None:
        """Take off tags and digests, given as (repository, tag, digest) with one of the two."""
        with self._database.transaction() as cx:
            for repository, tag, digest in names:
                if digest is None:
                    cx.execute("DELETE FROM image_tags WHERE repository = ? AND tag = ?", (repository, tag))
                else:
                    cx.execute("DELETE FROM image_digests WHERE repository = ? AND digest = ?", (repository, digest))

    def remove_name_row(self, row: NameRow) -> None:
        """Take off a name, whatever it is and whichever image it means."""
        with self._database.transaction() as cx:
            key = (row.repository, row.value, row.image_id)
            cx.execute("DELETE FROM image_tags WHERE repository = ? AND tag = ? AND image_id = ?", key)
            cx.execute("DELETE FROM image_digests WHERE repository = ? AND digest = ? AND image_id = ?", key)

    def delete(self, image: ImageId) -> None:
        """Drop an image and all its names."""
        with self._database.transaction() as cx:
            cx.execute("DELETE FROM image_tags WHERE image_id = ?", (image,))
            cx.execute("DELETE FROM image_digests WHERE image_id = ?", (image,))
            cx.execute("UPDATE images SET parent = '' WHERE parent = ?", (image,))
            cx.execute("DELETE FROM images WHERE id = ?", (image,))
        self._database.cascades += 1
