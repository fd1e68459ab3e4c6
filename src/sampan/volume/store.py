"""The table of volumes in memory, and which containers they are of. Its only way into the database.

What removes a volume goes in an order that a kill at any point leaves finishable: the row says `removing`, the directory goes to the
trash, the row goes. A volume made for a container is `pending` until that has its own row: without it sampand's start removes it again.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from sampan.clock import Clock
from sampan.errors import Conflict, EngineError, NotFound, SystemFailure
from sampan.ids import new_id
from sampan.state.volumes import Status, VolumeRepository, VolumeRow
from sampan.volume import options as rules
from sampan.volume.local import LocalVolumes

log = logging.getLogger(__name__)


class VolumeStore:
    """Used from the event loop's thread only. References are by container ID."""

    def __init__(self, rows: VolumeRepository, local: LocalVolumes, clock: Clock) -> None:
        self._rows = rows
        self.local = local
        self._clock = clock
        self._volumes: dict[str, VolumeRow] = {}
        self._users: dict[str, set[str]] = {}
        self._mounted_by: dict[str, set[str]] = {}
        """Who has a volume mounted now: containers that run, and workers that look into others."""
        self._locks: dict[str, asyncio.Lock] = {}

    def load(self) -> None:
        """Read every volume, and finish what a kill left half done."""
        self._volumes = {row.name: row for row in self._rows.all()}
        for name, container in self._rows.references():
            self._users.setdefault(name, set()).add(container)
        for row in list(self._volumes.values()):
            if row.status == "removing" or (row.status == "pending" and not self._users.get(row.name)):
                try:
                    self._drop(row)
                except EngineError as error:  # later, then
                    log.warning("volume %s: %s", row.name, error.message)
        for name, row in self._volumes.items():
            try:
                self.local.make(name)
                if not rules.needs_mount(row.options):
                    self.local.finish_copy(name)
            except (OSError, SystemFailure) as error:  # one volume's disk must not keep the engine from starting
                log.warning("volume %s: %s", name, error)
        for name in self.local.strays(self._volumes):
            if not self.local.drop_if_empty(name):
                log.warning("volumes/%s is no volume's: left alone; `volume create %s` takes it over as it is", name, name)

    # look

    def __iter__(self) -> Iterator[VolumeRow]:
        return iter(sorted(self._volumes.values(), key=lambda row: row.name))

    def get(self, name: str) -> VolumeRow | None:
        """By name."""
        return self._volumes.get(name)

    def find(self, name: str) -> VolumeRow:
        """By name. Raises NotFound."""
        found = self._volumes.get(name)
        if found is None:
            raise NotFound(f"get {name}: no such volume")
        return found

    def is_own(self, name: str) -> bool:
        """Whether its files are the engine's: no options mount something there. Raises NotFound."""
        return not rules.needs_mount(self.find(name).options)

    def users(self, name: str) -> list[str]:
        """IDs of the containers that a volume is of."""
        return sorted(self._users.get(name, ()))

    def lock(self, name: str) -> asyncio.Lock:
        """Held while a volume is mounted, unmounted, or gets an image's files."""
        return self._locks.setdefault(name, asyncio.Lock())

    # change

    def create(
        self,
        name: str,
        *,
        driver: str = "",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        container: str = "",
    ) -> tuple[VolumeRow, bool]:
        """The volume of this name, and whether it is new; "" makes up a name. container: the one that it is for, its first user.

        Raises InvalidArgument; NotFound: no such driver; Conflict: there is one of the name with other options, or something in its place.
        """
        if not name:
            name, labels = new_id(), {**(labels or {}), rules.ANONYMOUS_LABEL: ""}
        if driver not in ("", rules.DRIVER):
            raise NotFound(f'create {name}: error looking up volume plugin {driver}: plugin "{driver}" not found')
        found = self._volumes.get(name)
        if found is None:
            rules.check_name(name)
            rules.check_options(name, options or {})
            self.local.check_stray(name)
            self.local.make(name)
            found = VolumeRow(
                name=name,
                driver=rules.DRIVER,
                created=self._clock.now_ns(),
                labels=dict(labels) if labels is not None else None,
                options=dict(options) if options else None,
                status="pending" if container else "ready",
            )
            try:
                self._rows.insert(found)
            except sqlite3.Error as error:
                self.local.drop_if_empty(name)
                raise SystemFailure(f"create {name}: {error}") from error
            self._volumes[name] = found
            new = True
        else:
            if options and dict(options) != (found.options or {}):
                raise Conflict(f"create {name}: volume name must be unique: volume '{name}' exists with other options")
            new = False
            if found.status == "pending" and not container:
                self._set_status(name, "ready")
                found = self._volumes[name]
        if container:
            self.hold(name, container)
        return found, new

    def hold(self, name: str, container: str) -> None:
        """A container uses a volume from now on."""
        self._users.setdefault(name, set()).add(container)

    def owned(self, names: Iterable[str]) -> None:
        """The container that some volumes are for has its row now."""
        for name in names:
            row = self._volumes.get(name)
            if row is not None and row.status == "pending":
                self._volumes[name] = msgspec.structs.replace(row, status="ready")

    def release(self, container: str) -> None:
        """A container uses no volume any more."""
        for name in [name for name, users in self._users.items() if container in users]:
            users = self._users[name]
            users.discard(container)
            if not users:
                del self._users[name]

    def abandon(self, container: str) -> list[VolumeRow]:
        """The container of a create that failed: what was made for it alone goes. Returns that."""
        made = [self._volumes[name] for name, users in self._users.items() if users == {container}]
        self.release(container)
        gone = [row for row in made if row.status == "pending"]
        for row in gone:
            self._drop(row)
        return gone

    def discarded(self, container: str, anonymous: Iterable[str]) -> list[VolumeRow]:
        """The row of a container is gone, and volumes that were its alone were marked in the same transaction. Returns those removed."""
        self.release(container)
        gone: list[VolumeRow] = []
        for name in anonymous:
            row = self._volumes.get(name)
            if row is not None and not self._users.get(name):
                try:
                    self._drop(msgspec.structs.replace(row, status="removing"))
                    gone.append(row)
                except EngineError as error:  # something is mounted in there: the container is gone even so
                    log.warning("volume %s: %s", name, error.message)
        return gone

    def remove(self, name: str) -> VolumeRow:
        """Delete a volume; its data goes soon after (local.empty_trash). Raises NotFound, Conflict when it is in use."""
        row = self.find(name)
        if users := self.users(name):
            raise Conflict(f"remove {name}: volume is in use - [{', '.join(users)}]")
        self._drop(row)
        return row

    def _drop(self, row: VolumeRow) -> None:
        if row.status == "ready":
            self._set_status(row.name, "removing")
        try:
            self.local.discard(row.name)
        except EngineError:
            self._set_status(row.name, "ready")
            raise
        self._rows.delete(row.name)
        del self._volumes[row.name]
        self._locks.pop(row.name, None)

    def _set_status(self, name: str, status: Status) -> None:
        self._rows.set_status(name, status)
        self._volumes[name] = msgspec.structs.replace(self._volumes[name], status=status)

    # mounts

    async def mount(self, name: str, user: str) -> None:
        """Have a volume's file system there for a user (any word that tells it from others). Raises NotFound, SystemFailure."""
        row = self.find(name)
        self._mounted_by.setdefault(name, set()).add(user)
        async with self.lock(name):
            try:
                self.local.make(name)
                if rules.needs_mount(row.options):
                    await asyncio.to_thread(self.local.mount, name, row.options or {})
            except BaseException:
                self._forget_user(name, user)
                raise

    def still_mounted(self, name: str, user: str) -> None:
        """A user of before this sampand's start goes on."""
        self._mounted_by.setdefault(name, set()).add(user)

    async def unmount(self, name: str, user: str) -> None:
        """A user needs it no more; after the last one it is taken off. Never raises."""
        self._forget_user(name, user)
        row = self._volumes.get(name)
        if row is None or not rules.needs_mount(row.options) or name in self._mounted_by:
            return
        async with self.lock(name):
            if name not in self._mounted_by:
                await asyncio.to_thread(self.local.unmount, name)

    def _forget_user(self, name: str, user: str) -> None:
        users = self._mounted_by.get(name, set())
        users.discard(user)
        if not users:
            self._mounted_by.pop(name, None)
