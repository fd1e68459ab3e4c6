"""Images shown read-only on the host, where the user wants them. The mounts themselves are the record of it: they outlive sampand."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from sampan.digest import ChainId
from sampan.engine.images import ImageService
from sampan.errors import Conflict, InvalidArgument, NotFound, SystemFailure
from sampan.linux import mounts, overlay
from sampan.linux.mountinfo import mount_points
from sampan.snapshot.api import Snapshots

MARK = "sampan-image"


def mounted(data_root: str) -> Iterator[tuple[str, str]]:
    """(mount point, the top layer's ChainID) of every image of this data root that is mounted in this namespace."""
    for point in mount_points():
        source = point.source.split(":", 2)
        if source[0] == MARK and source[2:] == [data_root]:
            yield point.path, f"sha256:{source[1]}"


class ImageMounts:
    """Mounts and unmounts images. Layers of a mounted image stay, even when the image is removed."""

    def __init__(self, images: ImageService, snapshots: Snapshots, data_root: Path) -> None:
        self._images = images
        self._snapshots = snapshots
        self._root = os.path.realpath(data_root)
        self._pins: dict[str, ExitStack] = {}
        """By mount point"""

    def restore(self) -> None:
        """Keep what is mounted, and let go of what is no more."""
        there = dict(mounted(self._root))
        for point in self._pins.keys() - there.keys():
            self._pins.pop(point).close()
        for point, top in there.items():
            if point not in self._pins:
                self._pin(point, self._chain(top))

    def _chain(self, top: str) -> list[ChainId]:
        """A layer and those below it, as far as they are there. Not by the image: it may be removed while it is mounted."""
        chain: list[ChainId] = []
        layer = self._snapshots.layer(ChainId(top))
        while layer is not None:
            chain.append(layer.name)
            layer = None if layer.parent is None else self._snapshots.layer(layer.parent)
        return chain

    def _pin(self, point: str, chain: Sequence[ChainId]) -> None:
        with ExitStack() as stack:
            stack.enter_context(self._images.pinned(chain))
            self._pins[point] = stack.pop_all()

    async def mount(self, name: str, target: str) -> None:
        """Show an image at a directory of the host. Raises NotFound, InvalidArgument, Conflict, SystemFailure."""
        self.restore()
        image = self._images.resolve(name)
        if image.chain_id is None:
            raise InvalidArgument(f"cannot mount {name}: the image has no layers")
        if not target.startswith("/"):
            raise InvalidArgument(f"cannot mount {name}: {target!r} is not an absolute path")
        point = os.path.realpath(target)
        if point in self._pins:
            raise Conflict(f"cannot mount {name}: an image is mounted on {point} already")
        with ExitStack() as stack:
            stack.enter_context(self._images.pinned(image.chain))
            layers = stack.enter_context(await self._snapshots.view(image.chain_id))
            try:
                place = os.open(point, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, place)
                source = f"{MARK}:{image.chain_id.removeprefix('sha256:')}:{self._root}"
                safe = mounts.MOUNT_ATTR_RDONLY | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOSUID
                fd = overlay.mount_overlay(layers.lowers, "", "", safe, source=source)
                stack.callback(os.close, fd)
                mounts.move_mount(fd, place, point)
            except OSError as error:
                kind = NotFound if isinstance(error, FileNotFoundError) else SystemFailure
                raise kind(f"cannot mount {name} on {target}: {(error.strerror or str(error)).lower()}") from error
            self._pin(point, image.chain)

    def umount(self, target: str) -> None:
        """Take an image off a directory. Raises NotFound, Conflict when it is in use."""
        self.restore()
        point = os.path.realpath(target)
        if point not in dict(mounted(self._root)):
            raise NotFound(f"no image is mounted on {target}")
        try:
            mounts.umount2(point, mounts.UMOUNT_NOFOLLOW)
        except OSError as error:
            raise Conflict(f"cannot unmount {target}: {os.strerror(error.errno or 0).lower()}") from error
        self.restore()
