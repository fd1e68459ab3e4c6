"""State databases of earlier versions."""

import os
import sqlite3
from importlib import resources
from pathlib import Path

import pytest

from sampan.errors import SystemFailure
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


def columns(database: sqlite3.Connection) -> set[tuple[str, ...]]:
    """Tables, indices and columns, without the order in which they came to be."""
    names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'")]
    return {(name, *map(str, row[1:])) for name in names for row in database.execute(f"PRAGMA table_info({name})")}


def kill_at_statement(path: Path, number: int) -> bool:
    """Migrate in a child that dies before that statement; whether it has lived to the end."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def statement(_text: str) -> None:
            nonlocal count
            count += 1
            if count == number:
                os._exit(9)

        connect = Database._connect

        def traced(path: Path, synchronous: str) -> sqlite3.Connection:
            connection = connect(path, synchronous)
            connection.set_trace_callback(statement)
            return connection

        try:
            Database._connect = staticmethod(traced)  # type: ignore[method-assign]
            Database(path)
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 9)
    return code == 0


def test_a_migration_may_be_killed_at_any_statement(tmp_path: Path) -> None:
    """Each time the next start goes on from what is there, and comes to what a new database is."""
    fresh = Database(tmp_path / "fresh.db")
    wanted = columns(fresh.read())
    fresh.close()
    for number in range(1, 100):
        path = tmp_path / f"{number}.db"
        old = old_database(path, 2)
        old.execute("INSERT INTO containers VALUES (?, 'one', 1, '', '', NULL, x'7b7d', x'7b7d', x'7b7d', ?)", ("1" * 64, ENDPOINT))
        old.commit()
        old.close()
        ended = kill_at_statement(path, number)
        database = Database(path)
        assert columns(database.read()) == wanted
        assert [row.state.endpoints[0].veth for row in ContainerRepository(database).all()] == ["sv0123456789"]
        assert database.damage() == []
        database.close()
        if ended:
            assert number > 10
            return
    raise AssertionError("it never ends")


def test_what_is_no_database_is_said_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(SystemFailure, match=r"state\.db cannot be used: file is not a database"):
        Database(path)
    path.unlink()
    Database(path).close()
