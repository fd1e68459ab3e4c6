"""What a snapshot driver offers: layers stacked into file trees, in containerd's manner (core/snapshots/snapshotter.go).

Terms
    name    the ChainID of a committed layer: immutable, may be a parent of other snapshots
    key     an active snapshot (a container's ID): writable, never a parent
    parent  the ChainID of the committed layer right below; None for an empty tree

Life of a layer (import, pull, load):
    unpacked = await snapshots.unpack(key, archive)     # files on disk, invisible; several at once, in any order
    snapshots.commit(key, name, parent)                 # visible; in order, parent first; durable with the image's own transaction
  A failed unpack leaves nothing. An unpacked layer never committed is removed by remove(key), or as look() finds it after a crash.

Life of a container's tree:
    snapshots.prepare(container_id, top_chain_id)       # create
    with await snapshots.mounts(container_id) as layers:  # each start: arguments of an overlay mount, which the caller makes
        mount_overlay(layers.lowers, layers.upper, layers.work)
    snapshots.remove(container_id)                      # rm: the caller has unmounted it

prepare, remove and commit are synchronous: they only touch metadata (under 0.3 ms). Removed trees
are moved to a trash directory and deleted later by a worker.
A driver is used from the event loop's thread only.
"""

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

from sampan.digest import ChainId, DiffId
from sampan.findings import Finding


class Mounts:
    """Arguments of one overlay mount. xino=on belongs in the options (`Snapshots.mount_options`).

    Owns the descriptors among lowers: close() it, or leave its `with`, once the mount is made or the descriptors have been sent.
    The layers stay mounted as long as an overlay stands on them.
    """

    def __init__(self, lowers: tuple[str | int, ...], upper: str = "", work: str = "") -> None:
        """lowers: top first, two or more; absolute paths, or descriptors of detached mounts. No upper: for a read-only overlay."""
        self.lowers, self.upper, self.work = lowers, upper, work

    def __enter__(self) -> "Mounts":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptors. May be called twice."""
        for lower in self.lowers:
            if isinstance(lower, int):
                os.close(lower)
        self.lowers = ()


class Unpacked(NamedTuple):
    """A layer that was read to its end."""

    diff_id: DiffId
    """sha256 of the uncompressed tar."""
    size: int
    """Sum of the sizes of its files and symlinks, as docker counts layers, in bytes."""
    entries: int


class Layer(NamedTuple):
    """A committed layer."""

    name: ChainId
    parent: ChainId | None
    diff_id: DiffId
    size: int


class Usage(NamedTuple):
    """Disk use of a writable tree."""

    size: int
    """Bytes: sum of file sizes, hard links once."""
    inodes: int


class LayerDetails(NamedTuple):
    """Where an image's layers are."""

    driver: str
    """The one that made the top layer: another than today's, perhaps."""
    data: dict[str, str]
    """UpperDir, the top layer, a directory or a file; LowerDir, those below it, top first. An image has neither MergedDir nor WorkDir:
    it is mounted only under containers."""


class Files(NamedTuple):
    """What lies in the directories of a data root."""

    trees: list[str]
    """Keys"""
    layers: list[tuple[str, str]]
    """(driver, name), committed or not"""
    missing: list[ChainId]
    """Committed layers whose files were not found."""


class Snapshots(Protocol):
    """A snapshot driver."""

    driver: str
    """Its name in `docker info` (Storage Driver) and GraphDriver.Name."""
    mount_options: tuple[str, ...]
    """Further overlay options, `xino=on`."""
    status: tuple[tuple[str, str], ...]
    """Rows for `docker info` (DriverStatus): what the driver stands on, and why it was chosen."""
    empty: Path
    """A directory with nothing in it: the root of workers that need no files."""

    async def unpack(self, key: str, archive: int) -> Unpacked:
        """Read a tar (gzip, bzip2, xz, zstd or plain) from descriptor archive to its end into a new layer named key, on disk.

        The descriptor stays the caller's. Raises Conflict when key exists, InvalidArgument for what is not a (safe) layer,
        SystemFailure when the disk fails; then nothing is left.
        """

    def commit(self, key: str, name: ChainId, parent: ChainId | None) -> Layer:
        """Make an unpacked layer visible as name, durably once the state database's next durable transaction is.

        If name exists already, the new copy is dropped and the old one returned; it replaces one that is not whole. Raises NotFound for
        an unknown key or parent, Conflict when active snapshots stand on files that are to be replaced.
        """

    def layer(self, name: ChainId) -> Layer | None:
        """The committed layer, or None."""

    def layers(self) -> list[Layer]:
        """All committed layers, parents before children."""

    def is_whole(self, name: ChainId) -> bool:
        """Whether a committed layer is there with its files, and not distrusted: another copy of it is not wanted."""

    def distrust(self, name: ChainId) -> None:
        """A layer's files are not what was unpacked, as archive() has found: the next copy of it that is committed replaces them."""

    def prepare(self, key: str, parent: ChainId | None, size: int | None = None) -> None:
        """A new writable tree on parent. Raises Conflict when key exists, NotFound when parent does not. Nothing is mounted.

        size: bytes that may be written into it; 0: any, None: nothing was said. Raises SystemFailure as check_limits() does.
        """

    def check_limits(self) -> None:
        """Raise SystemFailure, in docker's words and why, where the size of trees cannot be limited."""

    async def mounts(self, key: str) -> Mounts:
        """What to mount for an active snapshot. Raises NotFound, SystemFailure when a layer cannot be mounted."""

    async def view(self, name: ChainId) -> Mounts:
        """What to mount to see a committed layer and those below it read-only, without the engine's own mount points.

        Raises NotFound, SystemFailure.
        """

    def upper(self, key: str) -> str:
        """The directory with an active snapshot's changes, in overlayfs's form. Raises NotFound."""

    def keys(self) -> list[str]:
        """All active snapshots and unpacked layers."""

    def remove(self, key: str) -> None:
        """Drop an active snapshot or an unpacked layer; silent when it does not exist."""

    def remove_layer(self, name: ChainId) -> None:
        """Drop a committed layer; silent when it does not exist. Raises Conflict when a layer or an active snapshot stands on it."""

    async def usage(self, key: str) -> Usage:
        """What the writable tree holds now. Raises NotFound."""

    def details(self, key: str) -> dict[str, str]:
        """docker inspect's GraphDriver.Data for a container. Raises NotFound."""

    def layer_details(self, name: ChainId) -> LayerDetails:
        """docker inspect's GraphDriver for an image with this top layer. Raises NotFound."""

    def files(self) -> Files:
        """What is on the disk, for look(); reads directories only, and may be called in another thread."""

    def look(self, files: Files, live_keys: Collection[str]) -> list[Finding]:
        """What is not as it should be: trees not in live_keys and those of them that are missing, layers that nobody knows and those
        that are missing, rows that are not what is in memory.

        files may be older than that: all that it leads to is looked at again.
        """

    def repair(self, live_keys: Iterable[str]) -> list[str]:
        """At start: mend what look() finds. Returns a line for each thing, for the log."""

    def parents(self) -> set[ChainId]:
        """The layers that active snapshots stand on, those below them included."""

    async def archive(self, name: ChainId, output: int) -> int:
        """Write a committed layer's tar to descriptor output, byte for byte as it was unpacked. Returns its length.

        Raises NotFound; SystemFailure when that cannot be done (any more). The digest is known only at the end.
        """

    async def archive_size(self, name: ChainId) -> int:
        """Bytes of what archive() writes, without writing it. Raises NotFound, SystemFailure."""

    async def disk_usage(self, name: ChainId) -> int:
        """Bytes a committed layer takes on disk. Raises NotFound."""

    async def tree_disk_usage(self, key: str) -> int:
        """Bytes an active snapshot takes on disk. Raises NotFound."""

    async def rest_disk_usage(self) -> int:
        """Bytes on disk of layers that are not committed yet, and of what was removed and is not deleted yet."""

    def trash(self) -> list[str]:
        """The names of what was removed and is not deleted yet."""

    async def empty_trash(self) -> None:
        """Delete what was removed. Safe to interrupt at any time."""

    async def close(self) -> None:
        """Let go of every mounted layer; overlays that stand on them stay."""
