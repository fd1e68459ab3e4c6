"""Containers as the engine holds them: what was given at create, the state, and the live handles; found by docker's rules."""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

import msgspec

from sampan.engine.mounting import Mount, VolumeMount, stored
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.findings import Finding
from sampan.ids import ContainerId
from sampan.linux import pidfd
from sampan.spec.docker_api.container import Config, HostConfig
from sampan.spec.docker_api.network import NetworkingConfig
from sampan.state.containers import ContainerRepository, ContainerRow, ContainerState
from sampan.state.database import Unwritable

log = logging.getLogger(__name__)

STORE_SECONDS = 1.0
"""After which what could not be stored is tried again."""
_encode = msgspec.json.Encoder().encode


class Follower(Protocol):
    """A reader of a run's log."""

    def ended(self, position: tuple[int, int] | None) -> None:
        """All output is in the log, up to position (None: wherever it ends)."""

    async def again(self) -> None:
        """The keeper is a new one: register with it. Raises EngineError."""


class Live:
    """Handles of a container's running process. Owned by its Container; closed by close()."""

    def __init__(
        self, key: str, pidfd: int, *, stdin: int | None = None, pty: int | None = None, outputs: Mapping[str, int] | None = None
    ) -> None:
        self.key = key
        self.pidfd = pidfd
        self.stdin = stdin
        """Write end of the stdin pipe; None without one, or once closed."""
        self.pty = pty
        self.outputs = dict(outputs or {})
        """Read ends of the pipes `stdout` and `stderr`, never read here, and what else outlives keeper and supervisor by that."""
        self.drained = asyncio.Event()
        """Set once the keeper has all output in the log."""
        self.followers: set[Follower] = set()

    @property
    def has_ended(self) -> bool:
        """Whether its process has: then its number may be another's."""
        return self.pidfd < 0 or pidfd.has_ended(self.pidfd)

    def held(self) -> dict[str, int]:
        """Every descriptor by its name on the wire."""
        own = {"pidfd": self.pidfd, "stdin": self.stdin, "pty": self.pty, **self.outputs}
        return {name: fd for name, fd in own.items() if fd is not None and fd >= 0}

    def close(self) -> None:
        """Close every handle. May be called twice."""
        for fd in self.held().values():
            with suppress(OSError):
                os.close(fd)
        self.pidfd, self.stdin, self.pty, self.outputs = -1, None, None, {}


class Container:
    """One container. `lock` serialises what changes it; state changes go through Containers.set_state."""

    def __init__(
        self, row: ContainerRow, config: Config, host_config: HostConfig, networking: NetworkingConfig, mounts: Sequence[Mount] = ()
    ) -> None:
        self.id = row.id
        self.name = row.name
        self.created = row.created
        self.image_id = row.image_id
        self.image_name = row.image_name
        self.chain_id = row.chain_id
        self.config = config
        self.host_config = host_config
        self.networking = networking
        self.mounts = mounts
        """As decided at create; they never change."""
        self.state = row.state
        self.live: Live | None = None
        self.lock = asyncio.Lock()
        self.exec_ids: set[str] = set()
        self.exited = asyncio.Event()
        """Set while no process runs, once its output is in the log."""
        self.settled = asyncio.Event()
        """Set unless an ended run still holds something: its place on the network, its log, its cgroup. The next begins after that."""
        self.settled.set()
        self.restarts = 0
        """`restart` calls under way: --rm is not for the end of the run that they end."""
        self.removed = asyncio.Event()
        self.removing = False
        self.changed = asyncio.Condition()
        self.exits = 0
        """Count of ends seen by this sampand, for `wait` with condition next-exit."""
        self.restart_timer: asyncio.TimerHandle | None = None
        """Runs while the status is `restarting`."""
        if not self.is_running:
            self.exited.set()

    @property
    def is_running(self) -> bool:
        """Whether a process runs (paused counts)."""
        return self.state.status in ("running", "paused")

    @property
    def is_active(self) -> bool:
        """Whether a process runs, or its restart policy is about to start another."""
        return self.is_running or self.state.status == "restarting"

    @property
    def has_run(self) -> bool:
        """Whether a process runs, or what the last run had is not given back yet."""
        return self.is_running or self.live is not None

    async def notify(self) -> None:
        """Have those who wait for something of it look again."""
        async with self.changed:
            self.changed.notify_all()

    def not_running(self) -> Conflict:
        """What is said to who needs a process of it."""
        if self.state.status == "restarting":
            return Conflict(f"Container {self.id} is restarting, wait until the container is running")
        return Conflict(f"container {self.id} is not running")

    @property
    def key(self) -> str:
        """The name of the current run's process on the wire."""
        return f"{self.id}.{self.state.run}"


class Containers:
    """The index of all containers, and their only way into the database."""

    def __init__(self, repository: ContainerRepository) -> None:
        self._repository = repository
        self._by_id: dict[str, Container] = {}
        self._by_name: dict[str, Container] = {}
        self.ending = False
        """All are being stopped for the engine's own sake: no user has wished for that, and no policy starts one again."""
        self._unstored: set[str] = set()
        """Those whose state is newer here than in the database, which could not be written."""

    def load(self) -> None:
        """Read every container from the database."""
        for row in self._repository.all():
            container = Container(
                row,
                msgspec.json.decode(row.config, type=Config),
                host := msgspec.json.decode(row.host_config, type=HostConfig),
                msgspec.json.decode(row.networking, type=NetworkingConfig),
                stored(row.mounts, host),
            )
            self._by_id[container.id] = self._by_name[container.name] = container

    def __iter__(self) -> Iterator[Container]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, ref: str) -> Container:
        """By full ID, exact name (with or without `/`), unique ID prefix. Raises NotFound, InvalidArgument when ambiguous."""
        found = self._by_id.get(ref) or self._by_name.get(ref.removeprefix("/"))
        if found is not None:
            return found
        matches = [container for key, container in self._by_id.items() if ref and key.startswith(ref)]
        if len(matches) > 1:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {ref}")
        if not matches:
            raise NotFound(f"No such container: {ref}")
        return matches[0]

    def get(self, container: str) -> Container | None:
        """By full ID."""
        return self._by_id.get(container)

    def holder_of(self, name: str) -> Container | None:
        """Who has a name."""
        return self._by_name.get(name)

    def add(self, container: Container) -> None:
        """Store a new container. Raises Conflict when its name is taken."""
        self.check_name(container.name)
        volumes = {mount.name for mount in container.mounts if isinstance(mount, VolumeMount)}
        try:
            self._repository.insert(_row_of(container), sorted(volumes))
        except sqlite3.IntegrityError as error:
            raise Conflict(f"container {container.id}: {error}") from error
        self._by_id[container.id] = self._by_name[container.name] = container

    def look(self) -> Iterator[Finding]:
        """Where the database is not what is in use here."""
        stored = self._repository.ids()
        for key in stored - self._by_id.keys():
            forget = partial(self._repository.delete, ContainerId(key))
            yield Finding("database", key, "is a container that the engine does not know", "forget it", forget)
        for key in self._by_id.keys() - stored:
            yield Finding("container", key, "is not stored any more", "store it", partial(self._store_again, key))

    def _store_again(self, key: str) -> None:
        container = self._by_id.get(key)
        if container is not None and key not in self._repository.ids():
            self._repository.insert(_row_of(container))

    def check_name(self, name: str) -> None:
        """Raise Conflict in docker's words when a name is taken."""
        holder = self._by_name.get(name)
        if holder is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder.id}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )

    def rename(self, container: Container, name: str) -> None:
        """Give a free name."""
        self.check_name(name)
        self._repository.set_name(container.id, name)
        del self._by_name[container.name]
        container.name = name
        self._by_name[name] = container

    def set_state(self, container: Container, state: ContainerState) -> None:
        """Store and take over a new state: one transaction. Raises Unwritable."""
        self._repository.set_state(container.id, state)
        container.state = state
        self._unstored.discard(container.id)

    def note_state(self, container: Container, state: ContainerState) -> None:
        """Take over what has happened already, and store it: later, if the disk refuses it now."""
        container.state = state
        try:
            self._repository.set_state(container.id, state)
            self._unstored.discard(container.id)
        except Unwritable as error:
            log.warning("container %s: %s", container.id, error.message)
            if not self._unstored:
                asyncio.get_running_loop().call_later(STORE_SECONDS, self._store_late)
            self._unstored.add(container.id)

    def _store_late(self) -> None:
        try:
            for key in tuple(self._unstored):
                if (container := self._by_id.get(key)) is not None:
                    self._repository.set_state(container.id, container.state)
                self._unstored.discard(key)
        except Unwritable:
            asyncio.get_running_loop().call_later(STORE_SECONDS, self._store_late)

    def set_host_config(self, container: Container, host_config: HostConfig, state: ContainerState | None = None) -> None:
        """Store and take over another HostConfig, and a new state with it: one transaction."""
        self._repository.set_host_config(container.id, _encode(host_config), state or container.state)
        container.host_config = host_config
        container.state = state or container.state

    def set_networking(self, container: Container, state: ContainerState | None = None) -> None:
        """Store what container.networking is now, and take over a new state with it: one transaction."""
        self._repository.set_networking(container.id, _encode(container.networking), state or container.state)
        container.state = state or container.state

    def remove(self, container: Container, volumes: Collection[str] = ()) -> None:
        """Forget a container: its row is deleted. volumes: those that go with it, if they are nobody else's."""
        self._repository.delete(container.id, volumes)
        self._by_id.pop(container.id, None)
        self._by_name.pop(container.name, None)


def _row_of(container: Container) -> ContainerRow:
    return ContainerRow(
        id=container.id,
        name=container.name,
        created=container.created,
        image_id=container.image_id,
        image_name=container.image_name,
        chain_id=container.chain_id,
        config=_encode(container.config),
        host_config=_encode(container.host_config),
        networking=_encode(container.networking),
        mounts=_encode(container.mounts),
        state=container.state,
    )
