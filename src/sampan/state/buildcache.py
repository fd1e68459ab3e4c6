"""The build cache: which image a step came to."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from sampan.digest import ImageId
from sampan.state.database import Database

_HIDDEN: Final = "hidden "
_HIDDEN_END: Final = "hidden!"
"""Keys that are no step's: from the one, before the other."""
_KNOWN_MAX: Final = 1024
"""Steps kept in memory: those of the builds that are done again and again."""


class CachedStep(NamedTuple):
    """A step that has been built. Times in ns since the epoch."""

    key: str
    image_id: ImageId
    description: str
    created: int
    last_used: int
    uses: int


class BuildCacheRepository:
    """Reads and writes it. Each method is one transaction; the last ones may be lost with the machine: then a step is built again."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, ImageId] = {}
        self._cascades = database.cascades

    def find(self, key: str) -> ImageId | None:
        """The image of a step, or None. It is there: its removal removes the row."""
        if self._cascades != self._database.cascades:
            self._cascades = self._database.cascades
            self._known.clear()
        return self._known.get(key) or self._stored(key)

    def _stored(self, key: str) -> ImageId | None:
        row = self._database.read().execute("SELECT image_id FROM build_cache WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        if len(self._known) >= _KNOWN_MAX:
            del self._known[next(iter(self._known))]
        image = self._known[key] = ImageId(row[0])
        return image

    def all(self) -> list[CachedStep]:
        """Every step, those used longest ago first."""
        columns = "key, image_id, description, created, last_used, uses"
        query = f"SELECT {columns} FROM build_cache WHERE key < ? OR key >= ? ORDER BY last_used"
        return [CachedStep(*row) for row in self._database.read().execute(query, (_HIDDEN, _HIDDEN_END))]

    def put(self, key: str, image: ImageId, description: str, now: int) -> None:
        """Note what a step came to."""
        self._known.pop(key, None)
        with self._database.transaction(durable=False) as cx:
            cx.execute(
                "INSERT OR REPLACE INTO build_cache (key, image_id, description, created, last_used) VALUES (?, ?, ?, ?, ?)",
                (key, image, description, now, now),
            )

    def hide(self, images: Iterable[str], now: int) -> None:
        """These are in no list: only the cache has them. As rows of their own, which go with the images."""
        with self._database.transaction(durable=False) as cx:
            cx.executemany(
                "INSERT OR REPLACE INTO build_cache (key, image_id, description, created, last_used) "
                "SELECT ?, id, '', ?, ? FROM images WHERE id = ?",  # one may have been removed meanwhile
                [(_HIDDEN + image, now, now, image) for image in images],
            )

    def show(self, image: ImageId) -> None:
        """It is in lists."""
        if self.find(_HIDDEN + image) is not None:
            self.delete([_HIDDEN + image])

    def hidden(self) -> frozenset[ImageId]:
        """The images that are in no list."""
        rows = self._database.read().execute("SELECT image_id FROM build_cache WHERE key >= ? AND key < ?", (_HIDDEN, _HIDDEN_END))
        return frozenset(ImageId(row[0]) for row in rows)

    def touch(self, keys: Iterable[str], now: int) -> None:
        """Steps were used."""
        with self._database.transaction(durable=False) as cx:
            cx.executemany("UPDATE build_cache SET last_used = ?, uses = uses + 1 WHERE key = ?", [(now, key) for key in keys])

    def delete(self, keys: Iterable[str]) -> None:
        """Forget steps."""
        gone = [(key,) for key in keys]
        for (key,) in gone:
            self._known.pop(key, None)
        with self._database.transaction(durable=False) as cx:
            cx.executemany("DELETE FROM build_cache WHERE key = ?", gone)
