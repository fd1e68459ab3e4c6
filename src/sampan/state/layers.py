"""Committed layers as they are stored."""

from typing import NamedTuple

from sampan.digest import ChainId, DiffId
from sampan.state.database import Database


class LayerRow(NamedTuple):
    """One row of the layers table."""

    chain_id: ChainId
    parent: ChainId | None
    diff_id: DiffId
    directory: str
    """Name below the driver's own directory."""
    size: int
    entries: int
    driver: str
    """Which snapshot driver made it, and so what its files are."""


class LayerRepository:
    """Reads and writes committed layers. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[LayerRow]:
        """Every layer, parents before children."""
        rows = self._database.read().execute(
            "SELECT chain_id, parent, diff_id, directory, size, entries, driver FROM layers ORDER BY rowid"
        )
        return [LayerRow(*row) for row in rows]

    def insert(self, row: LayerRow) -> None:
        """Add a layer, durably. Raises sqlite3.IntegrityError when it exists or its parent does not."""
        with self._database.transaction() as cx:
            cx.execute(
                "INSERT INTO layers (chain_id, parent, diff_id, directory, size, entries, driver) VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )

    def delete(self, chain_id: ChainId) -> None:
        """Drop a layer, durably. Raises sqlite3.IntegrityError when another stands on it."""
        with self._database.transaction() as cx:
            cx.execute("DELETE FROM layers WHERE chain_id = ?", (chain_id,))

    def replace(self, row: LayerRow) -> None:
        """Store a layer anew, durably: it has other files. Those that stand on it go on standing on it."""
        with self._database.transaction() as cx:
            cx.execute(
                "UPDATE layers SET parent = ?, diff_id = ?, directory = ?, size = ?, entries = ?, driver = ? WHERE chain_id = ?",
                (*row[1:], row.chain_id),
            )
