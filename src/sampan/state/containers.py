"""Containers as they are stored: the documents given at create, and the state the engine last knew."""

from collections.abc import Collection
from typing import Literal

import msgspec

from sampan.ids import ContainerId
from sampan.state.database import Database

Status = Literal["created", "running", "paused", "restarting", "removing", "exited", "dead"]
HealthStatus = Literal["starting", "healthy", "unhealthy"]


class PublishedBinding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One published port as inspect shows it."""

    port: str
    """`80/tcp`"""
    host_ip: str
    host_port: int


class EndpointState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a running container has on one network; empty strings where the network gives none."""

    network_id: str
    network_name: str
    driver: str = ""
    """The network's; "" of the default bridge, host and none."""
    endpoint_id: str = ""
    ip: str = ""
    prefix_len: int = 0
    gateway: str = ""
    mac: str = ""
    ports: tuple[PublishedBinding, ...] = ()
    veth: str = ""
    """The name of its interface's end on the host."""
    interface: str = ""
    """The interface's name inside."""
    ip6: str = ""
    prefix_len6: int = 0
    gateway6: str = ""


class ProbeResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one run of a health check came to; times in nanoseconds since 1970."""

    start: int
    end: int
    exit_code: int
    """-1: it did not start, or took too long."""
    output: str = ""


class HealthState(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is known of a container's health; engine/health.py says how it changes."""

    status: HealthStatus
    failing_streak: int = 0
    log: tuple[ProbeResult, ...] = ()
    """Oldest first; those of earlier runs stay until newer ones take their place."""


UserMap = tuple[tuple[int, int, int], ...]
"""(ID inside, ID on the host, how many)"""


class ContainerState(msgspec.Struct, frozen=True, omit_defaults=True):
    """The part of a container that changes. Replaced as a whole (msgspec.structs.replace), stored in one transaction."""

    status: Status = "created"
    pid: int = 0
    start_time: int = 0
    """Field 22 of /proc/PID/stat: with boot_id it tells this process from a later one with the same PID."""
    boot_id: str = ""
    run: int = 0
    """Count of starts; the process's key on the wire is `<id>.<run>`."""
    exit_code: int = 0
    error: str = ""
    oom_killed: bool = False
    started_at: int = 0
    finished_at: int = 0
    restart_count: int = 0
    """By its policy, since it was last started by somebody."""
    backoff: int = 0
    """Of these, those in a row after which it did not run for long."""
    manually_stopped: bool = False
    """`docker stop` or `kill` asked for the end: restart policies leave it alone."""
    paused: bool = False
    endpoints: tuple[EndpointState, ...] = ()
    """Its networks, in the order of their interfaces; of the last run where none goes on."""
    pipes: tuple[int, ...] = ()
    """Inode numbers of stdin, stdout, stderr (0: none): how the pipes are found again when keeper and supervisor died at once."""
    runtime: tuple[str, ...] = ()
    """The OCI runtime that started the last run, with its own arguments; none: our own way."""
    console_size: tuple[int, int] = (0, 0)
    user_maps: tuple[UserMap, UserMap] | None = None
    """Of users and groups, while it runs: it was started in a user namespace."""
    health: HealthState | None = None
    """None: it has no health check, or has not run yet."""
    remove_volumes: bool = False
    """With the status `removing`: its anonymous volumes go too."""


class ContainerRow(msgspec.Struct, frozen=True):
    """One row of the containers table; the documents are JSON text."""

    id: ContainerId
    name: str
    created: int
    image_id: str
    image_name: str
    chain_id: str | None
    config: bytes
    host_config: bytes
    networking: bytes
    mounts: bytes | None
    """None: the row is from before there were volumes."""
    state: ContainerState


_COLUMNS = "id, name, created, image_id, image_name, chain_id, config, host_config, networking, mounts, state"
_encode = msgspec.json.Encoder().encode
_decode_state = msgspec.json.Decoder(ContainerState).decode


class ContainerRepository:
    """Reads and writes the containers table. Each method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> list[ContainerRow]:
        """Every container, oldest first."""
        cursor = self._database.read().execute(f"SELECT {_COLUMNS} FROM containers ORDER BY created, id")
        return [ContainerRow(*columns, _decode_state(state)) for *columns, state in cursor]  # type: ignore[call-arg]

    def ids(self) -> set[str]:
        """The ID of every container."""
        return {row[0] for row in self._database.read().execute("SELECT id FROM containers")}

    def insert(self, row: ContainerRow, volumes: Collection[str] = ()) -> None:
        """Add a container that refers to volumes, which are no longer pending then.

        Raises sqlite3.IntegrityError when the id or the name is taken, or a volume is not there.
        """
        values = (
            row.id,
            row.name,
            row.created,
            row.image_id,
            row.image_name,
            row.chain_id,
            row.config,
            row.host_config,
            row.networking,
            row.mounts,
            _encode(row.state),
        )
        # Durable with volumes: a pending one whose container is lost would be removed with what that container wrote.
        with self._database.transaction(durable=bool(volumes)) as cx:
            cx.execute(f"INSERT INTO containers ({_COLUMNS}) VALUES ({', '.join('?' * len(values))})", values)
            for volume in volumes:
                cx.execute("INSERT INTO volume_references (volume, container_id) VALUES (?, ?)", (volume, row.id))
                cx.execute("UPDATE volumes SET status = 'ready' WHERE name = ? AND status = 'pending'", (volume,))

    def set_state(self, container: ContainerId, state: ContainerState) -> None:
        """Replace the state."""
        with self._database.transaction(durable=False) as cx:
            cx.execute("UPDATE containers SET state = ? WHERE id = ?", (_encode(state), container))

    def set_networking(self, container: ContainerId, networking: bytes, state: ContainerState) -> None:
        """Replace what it asks for of networks, and the state with it."""
        with self._database.transaction(durable=False) as cx:
            cx.execute("UPDATE containers SET networking = ?, state = ? WHERE id = ?", (networking, _encode(state), container))

    def set_host_config(self, container: ContainerId, host_config: bytes, state: ContainerState) -> None:
        """Replace the HostConfig, and the state with it."""
        with self._database.transaction() as cx:
            cx.execute("UPDATE containers SET host_config = ?, state = ? WHERE id = ?", (host_config, _encode(state), container))

    def set_name(self, container: ContainerId, name: str) -> None:
        """Rename. Raises sqlite3.IntegrityError when the name is taken."""
        with self._database.transaction(durable=False) as cx:
            cx.execute("UPDATE containers SET name = ? WHERE id = ?", (name, container))

    def delete(self, container: ContainerId, volumes: Collection[str] = ()) -> None:
        """Remove the row, and note that those volumes are to go which no other container refers to."""
        with self._database.transaction(durable=bool(volumes)) as cx:
            cx.execute("DELETE FROM containers WHERE id = ?", (container,))
            for volume in volumes:
                unused = "NOT EXISTS (SELECT 1 FROM volume_references WHERE volume = name)"
                cx.execute(f"UPDATE volumes SET status = 'removing' WHERE name = ? AND {unused}", (volume,))


class MetaRepository:
    """Small facts about this data root (its ID)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, key: str) -> str | None:
        """The value, or None."""
        row = self._database.read().execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return None if row is None else str(row[0])

    def put(self, key: str, value: str) -> None:
        """Set the value."""
        with self._database.transaction() as cx:
            cx.execute("INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value", (key, value))
