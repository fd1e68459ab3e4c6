"""State databases of earlier versions."""

import sqlite3
from importlib import resources
from pathlib import Path

from sampan.state.containers import ContainerRepository, PublishedBinding
from sampan.state.database import Database
from sampan.state.volumes import VolumeRepository

ENDPOINT = (
    b'{"status":"running","endpoint":{"network_id":"n","network_name":"bridge","ip":"10.0.0.2","ports":'
    b'[{"port":"80/tcp","host_ip":"0.0.0.0","host_port":8080}],"saved":{"ip":"10.0.0.2","veth":"sv0123456789","ports":'
    b'[{"port":80,"protocol":"tcp","host_ip":"0.0.0.0","host_port":8080}]}}}'
)


def old_database(path: Path, schema: int) -> sqlite3.Connection:
    """One with this schema number and no rows."""
    database = sqlite3.connect(path)
    for found in sorted(resources.files("sampan.state.migrations").iterdir(), key=lambda item: item.name):
        if found.name.endswith(".sql") and int(found.name[:4]) <= schema:
            database.executescript(found.read_text())
    database.execute(f"PRAGMA user_version={schema}")
    return database


def test_an_endpoint_of_schema_2_keeps_its_veth(tmp_path: Path) -> None:
    old = old_database(tmp_path / "state.db", 2)
    rows = (("1" * 64, "bridged", ENDPOINT), ("2" * 64, "of-the-host", b'{"endpoint":{"network_id":"h","network_name":"host"}}'))
    for number, name, state in rows:
        old.execute("INSERT INTO containers VALUES (?, ?, 1, '', '', NULL, x'7b7d', x'7b7d', x'7b7d', ?)", (number, name, state))
    old.commit()
    old.close()
    database = Database(tmp_path / "state.db")
    (bridged,), (of_the_host,) = (row.state.endpoints for row in ContainerRepository(database).all())
    assert [row.mounts for row in ContainerRepository(database).all()] == [None, None]
    assert VolumeRepository(database).all() == []
    stored = database.read().execute("SELECT state FROM containers WHERE name = 'bridged'").fetchone()[0]
    database.close()
    assert (bridged.ip, bridged.veth, bridged.ports) == ("10.0.0.2", "sv0123456789", (PublishedBinding("80/tcp", "0.0.0.0", 8080),))
    assert of_the_host.veth == ""
    assert isinstance(stored, bytes)
    assert b"saved" not in stored
