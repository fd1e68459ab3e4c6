"""What a committed layer is on disk: each snapshot driver makes layers of one format; a data root may hold several."""

import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Protocol

from sampan.digest import DiffId
from sampan.errors import NotFound
from sampan.snapshot.api import Unpacked
from sampan.state.layers import LayerRow
from sampan.worker.client import WorkerPool

INIT_DIRECTORIES = ("dev", "dev/pts", "dev/shm", "etc", "proc", "sys")
INIT_FILES = (".dockerenv", "etc/hostname", "etc/hosts", "etc/resolv.conf", "dev/console")
INIT = (*INIT_DIRECTORIES, *INIT_FILES, "etc/mtab")
"""What lies below all layers of a container: targets of bind mounts."""


class LayerFormat(Protocol):
    """Layers of one kind. A layer's name is that in its row's `directory`."""

    driver: str
    """As in the layers table."""
    missing: str
    """Why none of its layers can be mounted here; empty where they can."""

    async def unpack(self, name: str, archive: int) -> Unpacked:
        """Read a tar into a new layer, durably. After an error the caller discards it. Raises as Snapshots.unpack does."""

    async def archive(self, row: LayerRow, output: int) -> int:
        """See Snapshots.archive."""

    async def archive_size(self, row: LayerRow) -> int:
        """See Snapshots.archive_size."""

    async def lowers(self, rows: Sequence[LayerRow]) -> list[str | int]:
        """For overlayfs: layers that lie upon each other, top first. Descriptors are the caller's. Raises SystemFailure."""

    def committed(self, rows: Sequence[LayerRow]) -> None:
        """Told of a new layer, with those below it, top first; may prepare for its use in the background."""

    def path(self, name: str) -> str:
        """Where it is on disk: a directory or a file."""

    def names(self) -> list[str]:
        """All that are on disk, committed or not."""

    def exists(self, name: str) -> bool:
        """Whether anything of one is on disk."""

    def discard(self, name: str) -> None:
        """Remove one; silent when it does not exist."""

    async def disk_usage(self, name: str) -> int:
        """Bytes on disk. Raises NotFound."""

    async def close(self) -> None:
        """Let go of every mount."""


def opened(stack: ExitStack, path: Path, flags: int) -> int:
    """Open a file until the stack unwinds."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    return fd


def discard_tree(path: Path, trash: Path) -> None:
    """Move a tree to the trash; silent when it does not exist."""
    with suppress(FileNotFoundError):
        path.rename(trash / os.urandom(12).hex())


class DirectoryLayers:
    """The overlay driver's: extracted trees, each with a recipe for its tar (sampan.archive.recipe)."""

    driver = "overlay"
    missing = ""

    def __init__(self, root: Path, workers: WorkerPool) -> None:
        """root has l, r and trash."""
        self._root = root
        self._workers = workers

    async def unpack(self, name: str, archive: int) -> Unpacked:
        """See LayerFormat.unpack."""
        path = self._root / "l" / name
        path.mkdir(mode=0o755)
        path.chmod(0o755)
        with ExitStack() as stack:
            fd = opened(stack, path, os.O_RDONLY | os.O_DIRECTORY)
            recipe = opened(stack, self._root / "r" / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
            result = await self._workers.stream("unpack", {}, [archive, fd, recipe])
        return Unpacked(DiffId(result["diff_id"]), result["size"], result["entries"])

    async def archive(self, row: LayerRow, output: int) -> int:
        """See Snapshots.archive."""
        with ExitStack() as stack:
            fd = opened(stack, self._root / "l" / row.directory, os.O_RDONLY | os.O_DIRECTORY)
            recipe = opened(stack, self._root / "r" / row.directory, os.O_RDONLY)
            result = await self._workers.stream("archive", {"diff_id": row.diff_id}, [fd, recipe, output])
        return int(result["size"])

    async def archive_size(self, row: LayerRow) -> int:
        """See Snapshots.archive_size."""
        with ExitStack() as stack:
            recipe = opened(stack, self._root / "r" / row.directory, os.O_RDONLY)
            empty = opened(stack, self._root / "empty", os.O_RDONLY | os.O_DIRECTORY)
            result = await self._workers.run("archive_size", {}, [recipe, empty])
        return int(result["size"])

    async def lowers(self, rows: Sequence[LayerRow]) -> list[str | int]:
        """See LayerFormat.lowers."""
        return [self.path(row.directory) for row in rows]

    def committed(self, rows: Sequence[LayerRow]) -> None:
        """See LayerFormat.committed."""

    def path(self, name: str) -> str:
        """See LayerFormat.path."""
        return f"{self._root}/l/{name}"

    def names(self) -> list[str]:
        """See LayerFormat.names."""
        return list({*os.listdir(self._root / "l"), *os.listdir(self._root / "r")})

    def exists(self, name: str) -> bool:
        """See LayerFormat.exists."""
        return os.path.lexists(self._root / "l" / name) or os.path.lexists(self._root / "r" / name)

    def discard(self, name: str) -> None:
        """See LayerFormat.discard."""
        discard_tree(self._root / "l" / name, self._root / "trash")
        (self._root / "r" / name).unlink(missing_ok=True)

    async def disk_usage(self, name: str) -> int:
        """See LayerFormat.disk_usage."""
        try:
            with ExitStack() as stack:
                fd = opened(stack, self._root / "l" / name, os.O_RDONLY | os.O_DIRECTORY)
                own = (os.fstat(fd).st_blocks + (self._root / "r" / name).stat().st_blocks) * 512
                return own + int((await self._workers.run("usage", {}, [fd]))["disk"])
        except FileNotFoundError:
            raise NotFound(f"layer {name}: not found") from None

    async def close(self) -> None:
        """See LayerFormat.close."""
