"""What a snapshot driver offers: layers stacked into file trees, in containerd's manner (core/snapshots/snapshotter.go).

Terms
    name    the ChainID of a committed layer: immutable, may be a parent of other snapshots
    key     an active snapshot (a container's ID): writable, never a parent
    parent  the ChainID of the committed layer right below; None for an empty tree

Life of a layer (import, pull, load):
    unpacked = await snapshots.unpack(key, archive)     # files on disk, invisible; several at once, in any order
    snapshots.commit(key, name, parent)                 # durable and visible; in order, parent first
  A failed unpack leaves nothing. An unpacked layer never committed is removed by remove(key), or by repair() after a crash.

Life of a container's tree:
    snapshots.prepare(container_id, top_chain_id)       # create
    lowers, upper, work = snapshots.mounts(container_id)  # each start: arguments of an overlay mount; nothing is mounted here
    snapshots.remove(container_id)                      # rm: the caller has unmounted it

prepare, mounts, remove and commit are synchronous: they only touch metadata (under 0.3 ms; commit waits for the disk). Removed trees
are moved to a trash directory and deleted later by a worker.
A driver is used from the event loop's thread only.
"""

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from sampan.digest import ChainId, DiffId


class Mounts(NamedTuple):
    """Arguments of one overlay mount: absolute paths. xino=on belongs in the options (`Snapshots.mount_options`)."""

    lowers: tuple[str, ...]
    """Top-first, never empty."""
    upper: str
    work: str


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


class Snapshots(Protocol):
    """A snapshot driver."""

    driver: str
    """Its name in `docker info` (Storage Driver) and GraphDriver.Name."""
    mount_options: tuple[str, ...]
    """Further overlay options, `xino=on`."""

    async def unpack(self, key: str, archive: int) -> Unpacked:
        """Read a tar (gzip, bzip2, xz, zstd or plain) from descriptor archive to its end into a new layer named key.

        The descriptor stays the caller's. Raises Conflict when key exists, InvalidArgument for what is not a (safe) layer,
        SystemFailure when the disk fails; then nothing is left.
        """

    def commit(self, key: str, name: ChainId, parent: ChainId | None) -> Layer:
        """Make an unpacked layer durable and visible as name.

        If name exists already, the new copy is dropped and the old one returned. Raises NotFound for an unknown key or parent.
        """

    def layer(self, name: ChainId) -> Layer | None:
        """The committed layer, or None."""

    def layers(self) -> list[Layer]:
        """All committed layers, parents before children."""

    def prepare(self, key: str, parent: ChainId | None) -> None:
        """A new writable tree on parent. Raises Conflict when key exists, NotFound when parent does not. Nothing is mounted."""

    def mounts(self, key: str) -> Mounts:
        """What to mount for an active snapshot. Raises NotFound."""

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

    def layer_details(self, name: ChainId) -> dict[str, str]:
        """docker inspect's GraphDriver.Data for an image with this top layer. Raises NotFound."""

    def repair(self, live_keys: Iterable[str]) -> list[str]:
        """At start: drop every active snapshot not in live_keys, every unpacked layer, every stray directory.

        Returns a line for each thing found, for the log.
        """

    async def archive(self, name: ChainId, output: int) -> int:
        """Write a committed layer's tar to descriptor output, byte for byte as it was unpacked. Returns its length.

        Raises NotFound; SystemFailure when that cannot be done (any more). The digest is known only at the end.
        """

    async def empty_trash(self) -> None:
        """Delete what was removed. Safe to interrupt at any time."""
