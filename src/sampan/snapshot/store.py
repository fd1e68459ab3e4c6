"""The snapshot store: layers of either format, and writable trees on them, stacked by overlayfs when a container starts.

    <data root>/overlay/
        l/<24 hex>/                 a layer's files; committed when the state database names it, else being unpacked or garbage
        r/<24 hex>                  how to make that layer's tar again, byte for byte (sampan.archive.recipe)
        c/<key>/{upper,work,parent} a writable tree; complete once its `parent` symlink exists, which names the parent's ChainID
        init/                       empty files and directories that every container's bind mounts need, below all layers
        empty/                      a directory with nothing in it
        trash/                      removed, deleted later
    <data root>/erofs/              layers that are files (sampan.snapshot.erofs)

The driver decides which format new layers get; those of the other one stay usable, so that changing it loses no image.
Layer directories have short names: mount(2) takes at most one page of options.
"""

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path

from sampan.archive.room import making
from sampan.digest import ChainId, DiffId
from sampan.errors import Conflict, NotFound, SystemFailure
from sampan.findings import Finding
from sampan.snapshot import treelimits
from sampan.snapshot.api import Files, Layer, LayerDetails, Mounts, Unpacked, Usage
from sampan.snapshot.formats import INIT_DIRECTORIES, INIT_FILES, DirectoryLayers, LayerFormat, discard_tree
from sampan.state.database import Database
from sampan.state.layers import LayerRepository, LayerRow
from sampan.worker.client import WorkerPool

log = logging.getLogger(__name__)

_NO_PARENT = "none"
_OVERLAY = "overlay2"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_OVERLAY_MAX = 500
"""Lower layers of one overlay (OVL_MAX_STACK)."""


class LayeredSnapshots:
    """Implements snapshot.api.Snapshots on overlayfs."""

    mount_options: tuple[str, ...] = ("xino=on",)

    def __init__(
        self,
        root: Path,
        database: Database,
        workers: WorkerPool,
        *,
        driver: str = _OVERLAY,
        more: Callable[[Path], Sequence[LayerFormat]] = lambda _empty: (),
        status: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Use (and make) `overlay/` below the data root. more: formats besides directories, given an empty directory. Raises OSError.

        driver: overlay2, or the format that new layers get.
        """
        self._root = root / "overlay"
        self.empty = self._root / "empty"
        self.driver = driver
        self.status: tuple[tuple[str, str], ...] = tuple(status)
        self._workers = workers
        self._rows = LayerRepository(database)
        self._unpacked: dict[str, tuple[str, Unpacked]] = {}
        """key -> (directory, result) of layers read but not committed"""
        for name in ("l", "r", "c", "empty", "trash"):
            (self._root / name).mkdir(mode=0o710, parents=True, exist_ok=True)
        self._make_init()
        every: list[LayerFormat] = [DirectoryLayers(self._root, workers), *more(self.empty)]
        self._formats = {item.driver: item for item in every}
        self._format = self._formats.get(driver, every[0])
        self._layers: dict[ChainId, LayerRow] = {row.chain_id: row for row in self._rows.all()}
        self._children = Counter(row.parent for row in self._layers.values())
        """How many layers stand on each"""
        self._stacks: dict[ChainId | None, tuple[LayerRow, ...]] = {None: ()}
        self._stuck = ""
        """What was last said of trees that cannot be removed"""
        self._parents: dict[str, ChainId | None] = {}
        """Parents of active snapshots, as far as they were asked for"""
        self._distrusted: set[ChainId] = set()
        self._measured: dict[str, int] = {}
        """Bytes on disk of committed directories, by name: they do not change"""

    def _make_init(self) -> None:
        init = self._root / "init"
        if (init / ".dockerenv").exists():
            return
        init.mkdir(mode=0o755, exist_ok=True)
        for name in INIT_DIRECTORIES:
            (init / name).mkdir(mode=0o755, exist_ok=True)
            (init / name).chmod(0o755)
        with suppress(FileExistsError):
            (init / "etc/mtab").symlink_to("/proc/mounts")
        for name in reversed(INIT_FILES):  # .dockerenv last: it says that all the others are there
            (init / name).touch(mode=0o755)
            (init / name).chmod(0o755)
        init.chmod(0o755)

    # layers

    async def unpack(self, key: str, archive: int) -> Unpacked:
        """See Snapshots.unpack."""
        if key in self._unpacked or _KEY.fullmatch(key) is None:
            raise Conflict(f"snapshot {key}: already exists")
        directory = os.urandom(12).hex()
        self._unpacked[key] = (directory, Unpacked(DiffId(""), 0, 0))
        try:
            with making("the layer"):
                unpacked = await self._format.unpack(directory, archive)
        except BaseException:
            del self._unpacked[key]
            self._format.discard(directory)
            raise
        self._unpacked[key] = (directory, unpacked)
        return unpacked

    def commit(self, key: str, name: ChainId, parent: ChainId | None) -> Layer:
        """See Snapshots.commit."""
        if key not in self._unpacked or not self._unpacked[key][1].diff_id:
            raise NotFound(f"snapshot {key}: not found")
        if parent is not None and parent not in self._layers:
            raise NotFound(f"layer {parent}: not found")
        directory, unpacked = self._unpacked[key]
        if name in self._layers and self.is_whole(name):
            self.remove(key)
            return _layer_of(self._layers[name])
        row = LayerRow(name, parent, unpacked.diff_id, directory, unpacked.size, unpacked.entries, self._format.driver)
        if name in self._layers:
            self._replace(row)
        else:
            self._rows.insert(row)
            self._layers[name] = row
            self._children[parent] += 1
        del self._unpacked[key]
        self._format.committed(self._stack(name))
        return _layer_of(row)

    def _replace(self, row: LayerRow) -> None:
        """Have other files for a layer that is not whole. What lies under a mounted overlay must not change."""
        former = self._layers[row.chain_id]
        if os.path.lexists(self._format_of(former).path(former.directory)) and row.chain_id in self.parents():
            raise Conflict(f"layer {row.chain_id} is damaged, and containers stand on it: remove them, then pull or load the image again")
        self._rows.replace(row)
        self._layers[row.chain_id] = row
        self._stacks = {None: ()}
        self._distrusted.discard(row.chain_id)
        self._measured.pop(former.directory, None)
        self._format_of(former).discard(former.directory)

    def is_whole(self, name: ChainId) -> bool:
        """See Snapshots.is_whole."""
        row = self._layers.get(name)
        return row is not None and name not in self._distrusted and not self._is_missing(row)

    def _is_missing(self, row: LayerRow) -> bool:
        return row.driver in self._formats and not os.path.lexists(self._formats[row.driver].path(row.directory))

    def _check_files(self, row: LayerRow) -> None:
        """Raise SystemFailure when a layer's files are gone: the one error for it, whatever the layer is wanted for."""
        if self._is_missing(row):
            path = self._format_of(row).path(row.directory)
            raise SystemFailure(f"the files of layer {row.chain_id} are missing ({path}): pull or load the image again")

    def distrust(self, name: ChainId) -> None:
        """See Snapshots.distrust."""
        if name in self._layers:
            self._distrusted.add(name)

    def layer(self, name: ChainId) -> Layer | None:
        """See Snapshots.layer."""
        row = self._layers.get(name)
        return None if row is None else _layer_of(row)

    def layers(self) -> list[Layer]:
        """See Snapshots.layers."""
        return [_layer_of(row) for row in self._layers.values()]

    def remove_layer(self, name: ChainId) -> None:
        """See Snapshots.remove_layer."""
        row = self._layers.get(name)
        if row is None:
            return
        if self._children[name]:
            raise Conflict(f"layer {name} has layers on it")
        if any(self._parent_of(key) == name for key in self._active()):
            raise Conflict(f"layer {name} is in use")
        self._rows.delete(name)
        del self._layers[name]
        del self._children[name]
        self._children[row.parent] -= 1
        self._stacks.pop(name, None)
        self._distrusted.discard(name)
        self._measured.pop(row.directory, None)
        self._format_of(row).discard(row.directory)

    async def archive(self, name: ChainId, output: int) -> int:
        """See Snapshots.archive."""
        row = self._row(name)
        self._check_files(row)
        try:
            return await self._format_of(row).archive(row, output)
        except OSError as error:
            raise SystemFailure(f"cannot read layer {name}: {error}") from error

    async def archive_size(self, name: ChainId) -> int:
        """See Snapshots.archive_size."""
        row = self._row(name)
        self._check_files(row)
        try:
            return await self._format_of(row).archive_size(row)
        except OSError as error:
            raise SystemFailure(f"cannot read layer {name}: {error}") from error

    async def disk_usage(self, name: ChainId) -> int:
        """See Snapshots.disk_usage."""
        row = self._row(name)
        known = self._measured.get(row.directory)
        if known is None:
            known = await self._format_of(row).disk_usage(row.directory)
            if row.driver == DirectoryLayers.driver:
                self._measured[row.directory] = known
        return known

    def _row(self, name: ChainId) -> LayerRow:
        row = self._layers.get(name)
        if row is None:
            raise NotFound(f"layer {name}: not found")
        return row

    def _format_of(self, row: LayerRow) -> LayerFormat:
        found = self._formats.get(row.driver)
        if found is None:
            raise SystemFailure(f"layer {row.chain_id} was made by the storage driver {row.driver}, which cannot be used here")
        return found

    def _stack(self, name: ChainId | None) -> tuple[LayerRow, ...]:
        """A layer and those below it, top first."""
        rows: list[LayerRow] = []
        below = name
        while below is not None and below not in self._stacks:
            rows.append(self._row(below))
            below = rows[-1].parent
        self._stacks[name] = (*rows, *self._stacks[below])
        return self._stacks[name]

    def _paths(self, name: ChainId | None) -> list[str]:
        return [self._format_of(row).path(row.directory) for row in self._stack(name)]

    async def _lowers(self, name: ChainId | None) -> Mounts:
        """The layers as overlayfs wants them, in a Mounts that owns their descriptors."""
        found = Mounts(())
        for row in self._stack(name):
            self._check_files(row)
        try:
            for _, rows in groupby(self._stack(name), key=lambda row: row.driver):
                run = list(rows)
                found.lowers += tuple(await self._format_of(run[0]).lowers(run))
        except BaseException:
            found.close()
            raise
        if len(found.lowers) > _OVERLAY_MAX:
            count = len(found.lowers)
            found.close()
            raise SystemFailure(f"max depth exceeded: the image has {count} layers, the storage driver overlay2 stacks {_OVERLAY_MAX}")
        return found

    async def view(self, name: ChainId) -> Mounts:
        """See Snapshots.view."""
        found = await self._lowers(name)
        if len(found.lowers) == 1:  # overlayfs wants two
            found.lowers += (str(self.empty),)
        return found

    # writable trees

    def prepare(self, key: str, parent: ChainId | None, size: int | None = None) -> None:
        """See Snapshots.prepare."""
        self._stack(parent)
        if size is not None:
            self.check_limits()
        path = self._path(key)
        with making("the container's directory"):
            try:
                os.mkdir(path, 0o710)
            except FileExistsError:
                if os.path.islink(f"{path}/parent") or key in self._unpacked:
                    raise Conflict(f"snapshot {key}: already exists") from None
                self._discard(Path(path))  # left by a crash half-way
                os.mkdir(path, 0o710)
            try:
                if size:
                    treelimits.limit(path, size, trash=f"{self._root}/trash")
                os.mkdir(f"{path}/upper", 0o755)
                os.chmod(f"{path}/upper", 0o755)
                os.mkdir(f"{path}/work", 0o700)
                os.symlink(parent or _NO_PARENT, f"{path}/parent")
            except (OSError, SystemFailure):
                self._discard(Path(path))
                raise
        self._parents[key] = parent

    def check_limits(self) -> None:
        """See Snapshots.check_limits."""
        if reason := treelimits.problem(f"{self._root}/c"):
            raise SystemFailure(f"{treelimits.UNSUPPORTED}: {reason}")

    async def mounts(self, key: str) -> Mounts:
        """See Snapshots.mounts."""
        path = self._path(key)
        found = await self._lowers(self._parent_of(key))
        if len(found.lowers) < _OVERLAY_MAX:  # else the mount points are made in the container's own tree
            found.lowers += (f"{self._root}/init",)
        found.upper, found.work = f"{path}/upper", f"{path}/work"
        return found

    def upper(self, key: str) -> str:
        """See Snapshots.upper."""
        self._parent_of(key)
        return f"{self._path(key)}/upper"

    def keys(self) -> list[str]:
        """See Snapshots.keys."""
        return [*self._active(), *self._unpacked]

    def remove(self, key: str) -> None:
        """See Snapshots.remove."""
        if key in self._unpacked:
            directory, _ = self._unpacked.pop(key)
            self._format.discard(directory)
            return
        self._parents.pop(key, None)
        self._discard(Path(self._path(key)))

    async def usage(self, key: str) -> Usage:
        """See Snapshots.usage."""
        self._parent_of(key)
        fd = os.open(f"{self._path(key)}/upper", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            result = await self._workers.run("usage", {}, [fd])
        finally:
            os.close(fd)
        return Usage(result["size"], result["inodes"])

    async def tree_disk_usage(self, key: str) -> int:
        """See Snapshots.tree_disk_usage."""
        self._parent_of(key)
        return await self._disk_usage(self._path(key))

    async def rest_disk_usage(self) -> int:
        """See Snapshots.rest_disk_usage."""
        total = await self._disk_usage(f"{self._root}/trash") if self.trash() else 0
        for directory, _ in list(self._unpacked.values()):
            with suppress(NotFound):
                total += await self._format.disk_usage(directory)
        return total

    async def _disk_usage(self, path: str) -> int:
        """Bytes on disk of a directory with all that is in it."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return os.fstat(fd).st_blocks * 512 + int((await self._workers.run("usage", {}, [fd]))["disk"])
        finally:
            os.close(fd)

    def details(self, key: str) -> dict[str, str]:
        """See Snapshots.details."""
        lowers = [*self._paths(self._parent_of(key)), f"{self._root}/init"]
        path = self._path(key)
        return {"LowerDir": ":".join(lowers), "MergedDir": f"{path}/merged", "UpperDir": f"{path}/upper", "WorkDir": f"{path}/work"}

    def layer_details(self, name: ChainId) -> LayerDetails:
        """See Snapshots.layer_details."""
        top, *lowers = self._paths(name)
        driver = self._row(name).driver
        below = {"LowerDir": ":".join(lowers)} if lowers else {}
        return LayerDetails(_OVERLAY if driver == DirectoryLayers.driver else driver, {**below, "UpperDir": top})

    def _path(self, key: str) -> str:
        if _KEY.fullmatch(key) is None:
            raise NotFound(f"snapshot {key}: not found")
        return f"{self._root}/c/{key}"

    def _active(self) -> list[str]:
        """What is not named as a tree is somebody else's, and left alone."""
        return [name for name in os.listdir(self._root / "c") if _KEY.fullmatch(name)]

    def _parent_of(self, key: str) -> ChainId | None:
        """The parent of an active snapshot. Raises NotFound."""
        if key not in self._parents:
            try:
                text = os.readlink(f"{self._path(key)}/parent")
            except OSError:
                raise NotFound(f"snapshot {key}: not found") from None
            self._parents[key] = None if text == _NO_PARENT else ChainId(text)
        return self._parents[key]

    # cleaning up

    def _discard(self, path: Path) -> None:
        treelimits.lift(str(path))
        discard_tree(path, self._root / "trash")

    def files(self) -> Files:
        """See Snapshots.files."""
        layers = [(item.driver, name) for item in list(self._formats.values()) for name in item.names()]
        return Files(self._active(), layers, [row.chain_id for row in list(self._layers.values()) if self._is_missing(row)])

    def look(self, files: Files, live_keys: Collection[str]) -> list[Finding]:
        """See Snapshots.look."""
        live = set(live_keys)
        return [*self._look_at_trees(files, live), *self._look_at_layers(files), *self._look_at_rows()]

    def _look_at_trees(self, files: Files, live: set[str]) -> Iterator[Finding]:
        for key in files.trees:
            if self._is_stray_tree(key, live):
                yield Finding("tree", key, "is of no container", "remove it", partial(self.remove, key))
        for key in live.difference(files.trees):
            if not os.path.islink(f"{self._root}/c/{key}/parent"):
                yield Finding("container", key, "has lost its files", "remove the container")
        if treelimits.is_off(f"{self._root}/c"):
            for key in live.intersection(files.trees):
                if treelimits.is_limited(f"{self._root}/c/{key}"):
                    problem = "is not limited in size any more: project quotas are not enforced"
                    yield Finding("container", key, problem, "mount the data root's file system with prjquota")

    def _is_stray_tree(self, key: str, live: set[str]) -> bool:
        path = f"{self._root}/c/{key}"
        return os.path.lexists(path) and (key not in live or not os.path.islink(f"{path}/parent"))

    def _look_at_layers(self, files: Files) -> Iterator[Finding]:
        busy = {directory for directory, _ in self._unpacked.values()} | {row.directory for row in self._layers.values()}
        for driver, name in files.layers:
            item = self._formats[driver]
            if name not in busy and item.exists(name):
                yield Finding("file", item.path(name), "is a layer that was never finished", "remove it", partial(item.discard, name))
        for chain_id in files.missing:
            row = self._layers.get(chain_id)
            if row is not None and self._is_missing(row):
                problem = f"has lost its files ({self._format_of(row).path(row.directory)}): images with it cannot run"
                yield Finding("layer", chain_id, problem, "pull or load an image with it again")
        for chain_id in self._distrusted:
            yield Finding("layer", chain_id, "is not what was unpacked", "pull or load an image with it again")
        for row in self._layers.values():
            if row.driver not in self._formats:
                problem = f"was made by the storage driver {row.driver}: images with it cannot run"
                yield Finding("layer", row.chain_id, problem, "save its images where that driver works, and load them here")
        for item in self._formats.values():
            count = sum(row.driver == item.driver for row in self._layers.values())
            if item.missing and count:
                yield Finding("driver", item.driver, f"made {count} layers, and images with them cannot run", item.missing)

    def _look_at_rows(self) -> Iterator[Finding]:
        rows, stored = self._rows, {row.chain_id: row for row in self._rows.all()}
        for name in stored.keys() - self._layers.keys():
            yield Finding("database", name, "is a layer that the engine does not know", "forget it", partial(rows.delete, name))
        for name, row in self._layers.items():
            if name not in stored:
                yield Finding("layer", name, "is not stored any more", "store it", partial(rows.insert, row))
            elif stored[name] != row:
                yield Finding("layer", name, "is stored otherwise than it is in use", "store it", partial(rows.replace, row))
            if row.parent is not None and row.parent not in self._layers:
                yield Finding("layer", name, f"stands on layer {row.parent}, which is not there", "pull or load an image with it again")

    def repair(self, live_keys: Iterable[str]) -> list[str]:
        """At start: mend what look() finds. Returns a line for each thing, for the log."""
        found = self.look(self.files(), list(live_keys))
        for finding in found:
            if finding.mend is not None:
                finding.mend()
        return [f"{finding.text}: {'repaired' if finding.mend else finding.remedy}" for finding in found]

    def parents(self) -> set[ChainId]:
        """See Snapshots.parents."""
        found: set[ChainId] = set()
        for key in self._active():
            with suppress(NotFound):
                name = self._parent_of(key)
                while name is not None and name not in found and name in self._layers:
                    found.add(name)
                    name = self._layers[name].parent
        return found

    def trash(self) -> list[str]:
        """See Snapshots.trash."""
        return os.listdir(self._root / "trash")

    async def empty_trash(self) -> None:
        """See Snapshots.empty_trash."""
        fd = os.open(f"{self._root}/trash", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            stuck = (await self._workers.run("empty", {}, [fd]))["stuck"] if os.listdir(fd) else ""
        finally:
            os.close(fd)
        if stuck and stuck != self._stuck:
            log.warning("%s", stuck)
        self._stuck = stuck

    async def close(self) -> None:
        """See Snapshots.close."""
        for item in self._formats.values():
            await item.close()


def _layer_of(row: LayerRow) -> Layer:
    return Layer(row.chain_id, row.parent, row.diff_id, row.size)
