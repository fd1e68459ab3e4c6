"""The overlay driver: one extracted directory a layer, stacked by overlayfs when a container starts.

    <data root>/overlay/
        l/<24 hex>/                 a layer's files; committed when the state database names it, else being unpacked or garbage
        c/<key>/{upper,work}        a writable tree; complete once its `parent` symlink exists, which names the parent's ChainID
        r/<24 hex>                  how to make that layer's tar again, byte for byte (sampan.archive.recipe)
        init/                       empty files and directories that every container's bind mounts need, below all layers
        trash/                      removed, deleted later

Layer directories have short names: mount(2) takes at most one page of options.
"""

import errno
import os
import re
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path

from sampan.archive.trees import remove_tree
from sampan.digest import ChainId, DiffId
from sampan.errors import Conflict, NotFound, SystemFailure
from sampan.linux.overlay import mount_overlay
from sampan.snapshot.api import Layer, Mounts, Unpacked, Usage
from sampan.state.database import Database
from sampan.state.layers import LayerRepository, LayerRow
from sampan.worker.client import WorkerPool

_NO_PARENT = "none"
_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_INIT_DIRECTORIES = ("dev", "dev/pts", "dev/shm", "etc", "proc", "sys")
_INIT_FILES = (".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf", "dev/console")


class OverlaySnapshots:
    """Implements snapshot.api.Snapshots on overlayfs."""

    driver: str = "overlay2"
    mount_options: tuple[str, ...] = ("xino=on",)

    def __init__(self, root: Path, database: Database, workers: WorkerPool) -> None:
        """Use (and make) `overlay/` below the data root. Raises OSError."""
        self._root = root / "overlay"
        self._workers = workers
        self._rows = LayerRepository(database, "overlay")
        self._unpacked: dict[str, tuple[str, Unpacked]] = {}
        """key -> (directory, result) of layers read but not committed"""
        for name in ("l", "r", "c", "trash"):
            (self._root / name).mkdir(mode=0o710, parents=True, exist_ok=True)
        self._make_init()
        self._layers: dict[ChainId, LayerRow] = {row.chain_id: row for row in self._rows.all()}
        self._lowers: dict[ChainId | None, tuple[str, ...]] = {None: (str(self._root / "init"),)}
        self._parents: dict[str, ChainId | None] = {}
        """Parents of active snapshots, as far as they were asked for"""

    def _make_init(self) -> None:
        init = self._root / "init"
        if (init / ".dockerenv").exists():
            return
        init.mkdir(mode=0o755, exist_ok=True)
        for name in _INIT_DIRECTORIES:
            (init / name).mkdir(mode=0o755, exist_ok=True)
            (init / name).chmod(0o755)
        with suppress(FileExistsError):
            (init / "etc/mtab").symlink_to("/proc/mounts")
        for name in reversed(_INIT_FILES):  # .dockerenv last: it says that all the others are there
            (init / name).touch(mode=0o755)
            (init / name).chmod(0o755)
        init.chmod(0o755)

    # layers

    async def unpack(self, key: str, archive: int) -> Unpacked:
        """See Snapshots.unpack."""
        if key in self._unpacked or _KEY.fullmatch(key) is None:
            raise Conflict(f"snapshot {key}: already exists")
        directory = os.urandom(12).hex()
        path = self._root / "l" / directory
        path.mkdir(mode=0o755)
        path.chmod(0o755)
        self._unpacked[key] = (directory, Unpacked(DiffId(""), 0, 0))
        try:
            with ExitStack() as stack:
                fd = _opened(stack, path, os.O_RDONLY | os.O_DIRECTORY)
                recipe = _opened(stack, self._root / "r" / directory, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                result = await self._workers.run("unpack", {}, [archive, fd, recipe])
        except BaseException:
            del self._unpacked[key]
            self._discard_layer(directory)
            raise
        unpacked = Unpacked(DiffId(result["diff_id"]), result["size"], result["entries"])
        self._unpacked[key] = (directory, unpacked)
        return unpacked

    def commit(self, key: str, name: ChainId, parent: ChainId | None) -> Layer:
        """See Snapshots.commit."""
        if key not in self._unpacked or not self._unpacked[key][1].diff_id:
            raise NotFound(f"snapshot {key}: not found")
        if parent is not None and parent not in self._layers:
            raise NotFound(f"layer {parent}: not found")
        directory, unpacked = self._unpacked[key]
        if name in self._layers:
            self.remove(key)
        else:
            row = LayerRow(name, parent, unpacked.diff_id, directory, unpacked.size, unpacked.entries)
            self._rows.insert(row)
            self._layers[name] = row
            del self._unpacked[key]
        return _layer_of(self._layers[name])

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
        if any(other.parent == name for other in self._layers.values()):
            raise Conflict(f"layer {name} has layers on it")
        if any(self._parent_of(key) == name for key in self._active()):
            raise Conflict(f"layer {name} is in use")
        self._rows.delete(name)
        del self._layers[name]
        self._lowers.pop(name, None)
        self._discard_layer(row.directory)

    async def archive(self, name: ChainId, output: int) -> int:
        """See Snapshots.archive."""
        row = self._layers.get(name)
        if row is None:
            raise NotFound(f"layer {name}: not found")
        with ExitStack() as stack:
            fd = _opened(stack, self._root / "l" / row.directory, os.O_RDONLY | os.O_DIRECTORY)
            recipe = _opened(stack, self._root / "r" / row.directory, os.O_RDONLY)
            result = await self._workers.run("archive", {"diff_id": row.diff_id}, [fd, recipe, output])
        return int(result["size"])

    def _stack(self, name: ChainId | None) -> tuple[str, ...]:
        """Lower directories, top-first."""
        known = self._lowers.get(name)
        if known is not None:
            return known
        paths: list[str] = []
        below = name
        while below is not None and below not in self._lowers:
            row = self._layers.get(below)
            if row is None:
                raise NotFound(f"layer {below}: not found")
            paths.append(str(self._root / "l" / row.directory))
            below = row.parent
        self._lowers[name] = (*paths, *self._lowers[below])
        return self._lowers[name]

    # writable trees

    def prepare(self, key: str, parent: ChainId | None) -> None:
        """See Snapshots.prepare."""
        self._stack(parent)
        path = self._path(key)
        try:
            os.mkdir(path, 0o710)
        except FileExistsError:
            if os.path.islink(f"{path}/parent") or key in self._unpacked:
                raise Conflict(f"snapshot {key}: already exists") from None
            self._discard(Path(path))  # left by a crash half-way
            os.mkdir(path, 0o710)
        try:
            os.mkdir(f"{path}/upper", 0o755)
            os.chmod(f"{path}/upper", 0o755)
            os.mkdir(f"{path}/work", 0o700)
            os.symlink(parent or _NO_PARENT, f"{path}/parent")
        except OSError as error:
            self._discard(Path(path))
            raise SystemFailure(f"cannot make the container's directory: {error}") from error
        self._parents[key] = parent

    def mounts(self, key: str) -> Mounts:
        """See Snapshots.mounts."""
        path = self._path(key)
        return Mounts(self._stack(self._parent_of(key)), f"{path}/upper", f"{path}/work")

    def keys(self) -> list[str]:
        """See Snapshots.keys."""
        return [*self._active(), *self._unpacked]

    def remove(self, key: str) -> None:
        """See Snapshots.remove."""
        if key in self._unpacked:
            directory, _ = self._unpacked.pop(key)
            self._discard_layer(directory)
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

    def details(self, key: str) -> dict[str, str]:
        """See Snapshots.details."""
        lowers, upper, work = self.mounts(key)
        return {"LowerDir": ":".join(lowers), "MergedDir": f"{self._path(key)}/merged", "UpperDir": upper, "WorkDir": work}

    def layer_details(self, name: ChainId) -> dict[str, str]:
        """See Snapshots.layer_details."""
        top, *lowers, _ = self._stack(name)
        data = {"MergedDir": f"{top}/merged", "UpperDir": top, "WorkDir": f"{top}/work"}
        return {"LowerDir": ":".join(lowers), **data} if lowers else data

    def _path(self, key: str) -> str:
        if _KEY.fullmatch(key) is None:
            raise NotFound(f"snapshot {key}: not found")
        return f"{self._root}/c/{key}"

    def _active(self) -> list[str]:
        return os.listdir(self._root / "c")

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
        """Move a tree to the trash; silent when it does not exist."""
        with suppress(FileNotFoundError):
            path.rename(self._root / "trash" / os.urandom(12).hex())

    def _discard_layer(self, directory: str) -> None:
        self._discard(self._root / "l" / directory)
        (self._root / "r" / directory).unlink(missing_ok=True)

    def repair(self, live_keys: Iterable[str]) -> list[str]:
        """See Snapshots.repair."""
        found: list[str] = []
        live = set(live_keys)
        for key in self._active():
            if key not in live or not os.path.islink(f"{self._root}/c/{key}/parent"):
                found.append(f"removed the writable tree of {key}, which no container owns")
                self._discard(self._root / "c" / key)
        busy = {directory for directory, _ in self._unpacked.values()} | {row.directory for row in self._layers.values()}
        for name in os.listdir(self._root / "l"):
            if name not in busy:
                found.append(f"removed {name}, a layer that was never finished")
                self._discard_layer(name)
        for name in os.listdir(self._root / "r"):
            if name not in busy:
                (self._root / "r" / name).unlink()
        found += [
            f"the files of layer {row.chain_id} are missing ({row.directory}): images with it cannot run"
            for row in self._layers.values()
            if not (self._root / "l" / row.directory).is_dir()
        ]
        return found

    async def empty_trash(self) -> None:
        """See Snapshots.empty_trash."""
        fd = os.open(self._root / "trash", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if os.listdir(fd):
                await self._workers.run("empty", {}, [fd])
        finally:
            os.close(fd)


def _opened(stack: ExitStack, path: Path, flags: int) -> int:
    """Open a file until the stack unwinds."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    return fd


def _layer_of(row: LayerRow) -> Layer:
    return Layer(row.chain_id, row.parent, row.diff_id, row.size)


def probe(root: Path) -> None:
    """Mount a small overlay inside the data root and use it. Raises SystemFailure that says what is wrong and what helps.

    Never by version number: tmpfs may lack xattrs, an overlay data root cannot hold upper directories, a sandbox may forbid mount.
    """
    base = root / "overlay-probe"
    parent = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    names = ("low", "low2", "upper", "work")
    try:
        remove_tree(parent, base.name)  # left by a probe that was killed
        for name in names:
            (base / name).mkdir(mode=0o755, parents=True)
        (base / "low/file").write_bytes(b"lower")
        os.setxattr(base / "low2", "trusted.overlay.opaque", b"y")
        mount_fd = mount_overlay([str(base / "low"), str(base / "low2")], str(base / "upper"), str(base / "work"))
        try:
            file = os.open("file", os.O_RDWR | os.O_CLOEXEC, dir_fd=mount_fd)
            os.pwrite(file, b"UPPER", 0)  # copy-up
            os.close(file)
            os.unlink("file", dir_fd=mount_fd)  # whiteout
        finally:
            os.close(mount_fd)
    except OSError as error:
        hint = "the data root must be on a file system like ext4 or xfs, and mounting must be allowed here"
        if error.errno in (errno.EPERM, errno.EACCES):
            hint = "mounting is not allowed here: sampand needs root with CAP_SYS_ADMIN"
        raise SystemFailure(f"overlayfs does not work in {root}: {error.strerror}; {hint}") from error
    finally:
        with suppress(OSError):
            remove_tree(parent, base.name)
        os.close(parent)
