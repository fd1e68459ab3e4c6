"""Volumes as they are stored. Every change is on the disk before it is reported: what a volume holds cannot be made again."""

from typing import Literal

import msgspec

from sampan.state.database import Database

Status = Literal["pending", "ready", "removing"]


class VolumeRow(msgspec.Struct, frozen=True):
    """One row of the volumes table."""

    name: str
    driver: str
    created: int
    """ns since the epoch"""
    labels: dict[str, str] | None
    options: dict[str, str] | None
    status: Status = "ready"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, str] | None).decode


class VolumeRepository:
    """Reads and writes the volumes table. Each method is one durable transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[VolumeRow]:
        """Every volume, by name."""
        cursor = self._database.read().execute("SELECT name, driver, created, labels, options, status FROM volumes ORDER BY name")
        return [
            VolumeRow(name, driver, created, _decode(labels), _decode(options), status)
            for name, driver, created, labels, options, status in cursor
        ]

    def references(self) -> list[tuple[str, str]]:
        """Every (volume, container ID)."""
        return self._database.read().execute("SELECT volume, container_id FROM volume_references").fetchall()

    def insert(self, row: VolumeRow) -> None:
        """Add a volume. Raises sqlite3.IntegrityError when there is one of its name."""
        with self._database.transaction() as cx:
            cx.execute(
                "INSERT INTO volumes (name, driver, created, labels, options, status) VALUES (?, ?, ?, ?, ?, ?)",
                (row.name, row.driver, row.created, _encode(row.labels), _encode(row.options), row.status),
            )

    def set_status(self, name: str, status: Status) -> None:
        """Note how far a volume is in its life."""
        with self._database.transaction() as cx:
            cx.execute("UPDATE volumes SET status = ? WHERE name = ?", (status, name))

    def delete(self, name: str) -> None:
        """Remove the row. Raises sqlite3.IntegrityError while a container refers to it."""
        with self._database.transaction() as cx:
            cx.execute("DELETE FROM volumes WHERE name = ?", (name,))
