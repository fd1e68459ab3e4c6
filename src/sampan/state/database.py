"""The one state database: SQLite in WAL mode, one writer (sampand), migrations by number.

Two connections share the file. `transaction(durable=False)` uses synchronous=NORMAL (0.04 ms; the last commits can be lost with the
machine, never with the process), `durable=True` synchronous=FULL (0.4 ms). Both are used from the event loop's thread only.
"""

import fcntl
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from sampan.errors import SystemFailure

_MIGRATION = re.compile(r"(\d{4})_\w+\.sql")
LOCK_SECONDS = 2.0
WAL_BYTES = 5 << 20
"""Of the log that SQLite writes first: more than it lets come together (1,000 pages) before it begins at the front of it again."""
_NOT_WRITTEN = frozenset((sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN))


def _migrations() -> list[tuple[int, str]]:
    """All (number, SQL) in order, from the package's own files."""
    found: list[tuple[int, str]] = []
    for entry in (Path(__file__).parent / "migrations").iterdir():
        match = _MIGRATION.fullmatch(entry.name)
        if match:
            found.append((int(match[1]), entry.read_text(encoding="utf-8")))
    return sorted(found)


class DatabaseLocked(SystemFailure):
    """Another sampand uses this data root."""


class Unwritable(SystemFailure):
    """The disk refuses what is to be stored: it is full, or broken."""


class Database:
    """Open (and migrate) the state database below a data root; hold the root's lock while open."""

    def __init__(self, path: Path) -> None:
        """Open path. Raises DatabaseLocked when another process holds it, SystemFailure when it is of a newer schema, or damaged."""
        self._path = path.absolute()
        path.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
        self._lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not self._locked():
            os.close(self._lock)
            raise DatabaseLocked(f"another sampand is running on {path.parent}: its state is locked")
        self.cascades = 0
        """How often rows may have gone along with others, unheard of by those who keep some in memory."""
        try:
            self._fast = self._connect(path, "NORMAL")
            self._durable = self._connect(path, "FULL")
            self._migrate(path)
        except sqlite3.DatabaseError as error:
            self.close()
            raise SystemFailure(f"the state database {path} cannot be used: {error}") from error
        except BaseException:
            self.close()
            raise
        self._hold_room(path)

    def _locked(self) -> bool:
        """Take the lock. A sampand that was killed may have left it for a moment to a child that was not yet at its execve(2)."""
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
            else:
                return True

    @staticmethod
    def _connect(path: Path, synchronous: str) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None, timeout=10)
        os.chmod(path, 0o600)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")
        return connection

    def _migrate(self, path: Path) -> None:
        """Bring the schema up to date, one transaction a migration."""
        migrations = _migrations()
        newest = migrations[-1][0] if migrations else 0
        current = int(self._durable.execute("PRAGMA user_version").fetchone()[0])
        if current > newest:
            raise SystemFailure(
                f"the state database {path} has schema {current}, this sampand knows up to {newest}: "
                "it was written by a newer version; install that version, or use another --data-root"
            )
        for number, sql in migrations:
            if number > current:
                self._durable.executescript(f"BEGIN IMMEDIATE;\n{sql}\nPRAGMA user_version={number};\nCOMMIT;")

    @staticmethod
    def _hold_room(path: Path) -> None:
        """On a full disk rows can still change: what SQLite writes then has its blocks already. Best effort.

        Zeros behind the end of its log are no part of it (sqlite.org/walformat.html: frames whose salts do not match).
        """
        with suppress(OSError), open(f"{path}-wal", "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, WAL_BYTES)

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """One transaction: commits at the end of the block, rolls back when it raises. Not to be nested, no await inside.

        Raises Unwritable.
        """
        connection = self._durable if durable else self._fast
        try:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF in _NOT_WRITTEN:
                raise Unwritable(f"the state database {self._path} cannot be written: {error}") from error
            raise
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")

    def read(self) -> sqlite3.Connection:
        """A connection for queries outside a transaction."""
        return self._fast

    @contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A connection of its own that only reads: for what takes long, in a thread."""
        with closing(sqlite3.connect(f"{self._path.as_uri()}?mode=ro", uri=True, timeout=10)) as connection:
            yield connection

    def damage(self) -> list[str]:
        """What SQLite finds wrong in the file, a line each. Any thread. Raises sqlite3.DatabaseError when it cannot be read at all."""
        with self.reader() as connection:
            return [str(row[0]) for row in connection.execute("PRAGMA quick_check") if row[0] != "ok"]

    def close(self) -> None:
        """Close both connections and free the data root's lock. May be called twice."""
        with suppress(AttributeError):
            self._fast.close()
            self._durable.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
