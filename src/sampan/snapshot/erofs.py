"""The erofs driver: a layer is its tar, indexed where it lies (sampan.archive.erofs), mounted without a mount point.

<data root>/erofs/
    l/<24 hex>      a layer file; committed when the state database names it
    f/<24 hex>.<8 hex>  one index of that layer and all below it, for images with many; made again when it is missing, or was made
                    by another version of us
"""

import asyncio
import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from itertools import takewhile
from pathlib import Path

from sampan.archive import layerfile
from sampan.archive.reader import InvalidArchive
from sampan.digest import DiffId
from sampan.errors import EngineError, NotFound, SystemFailure
from sampan.linux.erofs import mount_erofs
from sampan.snapshot.api import Unpacked
from sampan.snapshot.formats import INIT, opened
from sampan.state.layers import LayerRow
from sampan.worker.client import WorkerPool

log = logging.getLogger(__name__)

FOLD_ABOVE = 40
"""Layers that are stacked by overlayfs; more are folded into one index."""
_FORESEEN_SECONDS = 1.0
_FOLD_VERSION = b"2"
"""Another one for each change of what an index holds: those that are there are then made again."""
_MOUNTS_MAX = 512
"""Mounts kept for the next container; those that containers stand on live on without us."""
_WAY_OUT = (
    "{} (`save` still writes its images, `commit` what containers changed: to be loaded where it works, or here once they are removed)"
)
_SETTLE_SECONDS = 10.0
"""After a layer's first mount: what its containers needed at start is then in EROFS's page cache, and the file's own copy can go."""


class ErofsLayers:
    """Implements formats.LayerFormat."""

    driver = "erofs"

    def __init__(self, root: Path, empty: Path, workers: WorkerPool, *, fold_above: int = FOLD_ABOVE, missing: str = "") -> None:
        """Use (and make) root; empty is a directory with nothing in it; missing: why no layer can be mounted, or "". Raises OSError."""
        self.missing = missing
        self._root = root
        self._empty = empty
        self._workers = workers
        self._fold_above = fold_above
        self._mounts: dict[str, int] = {}
        """File -> its detached mount, the one used longest ago first"""
        self._folding = asyncio.Lock()
        self._not_folded: set[str] = set()
        """Top layers of those that could not be"""
        self._warm: set[str] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._foreseen: asyncio.TimerHandle | None = None
        self._closing: set[asyncio.Future[None]] = set()
        for name in ("l", "f"):
            (root / name).mkdir(mode=0o710, parents=True, exist_ok=True)

    async def unpack(self, name: str, archive: int) -> Unpacked:
        """See LayerFormat.unpack."""
        with ExitStack() as stack:
            output = opened(stack, self._root / "l" / name, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            empty = opened(stack, self._empty, os.O_RDONLY | os.O_DIRECTORY)
            result = await self._workers.stream("index", {}, [archive, output, empty])
            await asyncio.to_thread(os.fsync, opened(stack, self._root / "l", os.O_RDONLY | os.O_DIRECTORY))
        return Unpacked(DiffId(result["diff_id"]), result["size"], result["entries"])

    async def archive(self, row: LayerRow, output: int) -> int:
        """See Snapshots.archive."""
        with ExitStack() as stack:
            layer = opened(stack, self._root / "l" / row.directory, os.O_RDONLY)
            empty = opened(stack, self._empty, os.O_RDONLY | os.O_DIRECTORY)
            result = await self._workers.stream("archive_file", {"diff_id": row.diff_id}, [layer, output, empty])
        return int(result["size"])

    async def archive_size(self, row: LayerRow) -> int:
        """See Snapshots.archive_size."""
        try:
            with ExitStack() as stack:
                return layerfile.tar_size(opened(stack, self._root / "l" / row.directory, os.O_RDONLY))
        except (OSError, InvalidArchive) as error:
            raise SystemFailure(f"cannot read the layer {self.path(row.directory)}: {error}") from error

    async def lowers(self, rows: Sequence[LayerRow]) -> list[str | int]:
        """See LayerFormat.lowers."""
        if self._is_deep(rows) and (index := await self._folded_if_possible(rows)):
            return [self._mounted(index, [self.path(row.directory) for row in rows])]
        found: list[str | int] = []
        try:
            found.extend(self._mounted(self.path(row.directory)) for row in rows)
        except BaseException:
            for lower in found:
                os.close(int(lower))
            raise
        return found

    def _is_deep(self, rows: Sequence[LayerRow]) -> bool:
        # Only with nothing of an image below: a folded index has no whiteouts.
        return len(rows) > self._fold_above and rows[-1].parent is None

    def committed(self, rows: Sequence[LayerRow]) -> None:
        """See LayerFormat.committed. The last of many layers is folded once no other has come for a moment."""
        if self._foreseen is not None:
            self._foreseen.cancel()
            self._foreseen = None
        own = list(takewhile(lambda row: row.driver == self.driver, rows))
        if self._is_deep(own):
            self._foreseen = asyncio.get_running_loop().call_later(_FORESEEN_SECONDS, self._fold_soon, own)

    def _fold_soon(self, rows: Sequence[LayerRow]) -> None:
        async def work() -> None:
            with suppress(EngineError, OSError):  # the first start tries again, and says why
                if os.path.exists(self.path(rows[0].directory)):
                    await self._folded(rows)

        self._foreseen = None
        self._work(asyncio.ensure_future(work()))

    def _work(self, future: asyncio.Future[None]) -> None:
        self._closing.add(future)
        future.add_done_callback(self._closing.discard)

    def _mounted(self, file: str, devices: Sequence[str] = ()) -> int:
        """A descriptor of the file's mount, the caller's."""
        held = self._mounts.pop(file, -1)
        if held < 0:
            try:
                fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    layerfile.warm(fd)
                finally:
                    os.close(fd)
                held = mount_erofs(file, devices)
            except (OSError, InvalidArchive) as error:
                raise SystemFailure(f"cannot mount the layer {file}: {_WAY_OUT.format(self.missing) if self.missing else error}") from error
            self._cool_later([file, *devices])
        self._mounts[file] = held
        if len(self._mounts) > _MOUNTS_MAX:
            self._let_go(next(iter(self._mounts)))
        return os.dup(held)

    async def _folded_if_possible(self, rows: Sequence[LayerRow]) -> str:
        """The index of these layers, or empty: too large for a worker or for the disk, once for all. Overlayfs stacks them, more slowly."""
        top = rows[0].directory
        if top in self._not_folded:
            return ""
        try:
            return await self._folded(rows)
        except (EngineError, OSError) as error:
            log.warning("the layers below %s are not folded into one index: %s", rows[0].chain_id, error)
            self._not_folded.add(top)
            return ""

    async def _folded(self, rows: Sequence[LayerRow]) -> str:
        """The index of these layers, made if it is missing."""
        names = [row.directory for row in rows]
        # The same each time: overlayfs keeps inode numbers of copied-up files by the lower file system's UUID.
        uuid = hashlib.sha256(b"\0".join([_FOLD_VERSION, *map(str.encode, (*INIT, *names))])).hexdigest()[:32]
        path = f"{self._root}/f/{names[0]}.{uuid[:8]}"
        async with self._folding:
            if os.path.exists(path):
                return path
            with ExitStack() as stack:
                for former in self._indexes(names[0]):
                    os.unlink(former)
                    self._let_go(former)
                new = Path(f"{path}.new")
                stack.callback(new.unlink, missing_ok=True)  # renamed, or half of it
                output = opened(stack, new, os.O_RDWR | os.O_CREAT | os.O_EXCL)
                empty = opened(stack, self._empty, os.O_RDONLY | os.O_DIRECTORY)
                layers = opened(stack, self._root / "l", os.O_RDONLY | os.O_DIRECTORY)
                await self._workers.run("fold", {"uuid": uuid, "names": names, "kept": INIT}, [output, empty, layers])
                new.rename(path)
        return path

    def _indexes(self, name: str) -> list[str]:
        """The folded indexes with this layer on top: finished ones and others, of this version and others."""
        return [f"{self._root}/f/{file}" for file in os.listdir(self._root / "f") if file.partition(".")[0] == name]

    def path(self, name: str) -> str:
        """See LayerFormat.path."""
        return f"{self._root}/l/{name}"

    def names(self) -> list[str]:
        """See LayerFormat.names."""
        return list({*os.listdir(self._root / "l"), *(name.partition(".")[0] for name in os.listdir(self._root / "f"))})

    def exists(self, name: str) -> bool:
        """See LayerFormat.exists."""
        return os.path.lexists(self.path(name)) or bool(self._indexes(name))

    def discard(self, name: str) -> None:
        """See LayerFormat.discard."""
        for file in (*self._indexes(name), self.path(name)):
            with suppress(FileNotFoundError):
                os.unlink(file)
            self._let_go(file)

    async def disk_usage(self, name: str) -> int:
        """See LayerFormat.disk_usage."""
        try:
            return sum(os.stat(file).st_blocks * 512 for file in (self.path(name), *self._indexes(name)))
        except FileNotFoundError:
            raise NotFound(f"layer {name}: not found") from None

    # mounts and the page cache

    def _let_go(self, file: str) -> None:
        """Close a mount in a thread: the last one that goes waits for the kernel."""
        held = self._mounts.pop(file, -1)
        if held >= 0:
            self._work(asyncio.get_running_loop().run_in_executor(None, os.close, held))

    def _cool_later(self, files: Sequence[str]) -> None:
        self._warm.update(files)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_SETTLE_SECONDS, self._cool)

    def _cool(self) -> None:
        """Give back the page cache of layer files; EROFS has cached what is in use."""
        self._timer = None
        files, self._warm = self._warm, set()
        self._work(asyncio.get_running_loop().run_in_executor(None, _drop_cache, files))

    async def close(self) -> None:
        """See LayerFormat.close."""
        for timer in (self._timer, self._foreseen):
            if timer is not None:
                timer.cancel()
        for file in list(self._mounts):
            self._let_go(file)
        while self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)


def _drop_cache(files: set[str]) -> None:
    for file in files:
        with suppress(OSError):
            fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
            try:
                layerfile.cool(fd)
            finally:
                os.close(fd)
