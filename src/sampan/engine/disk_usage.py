"""`system df`: what images, containers and volumes take on the disk, as du(1) would count it; layers that several images share, once."""

import asyncio
import os
from collections.abc import Callable, Collection, Sequence

import msgspec

from sampan.archive.trees import measure_tree
from sampan.clock import rfc3339nano
from sampan.digest import ChainId
from sampan.engine.cacheentries import CacheEntries
from sampan.engine.containers import ContainerService
from sampan.engine.images import ImageService
from sampan.engine.paths import Paths
from sampan.engine.volumes import VolumeService
from sampan.errors import EngineError, NotFound
from sampan.snapshot.api import Snapshots
from sampan.spec.docker_api.image import ImageSummary
from sampan.spec.docker_api.inspect import ContainerSummary
from sampan.spec.docker_api.system import CacheRecord, DiskUsage

_AT_ONCE = 8


class DiskUsageService:
    """See api/services.py for the contract."""

    def __init__(
        self,
        images: ImageService,
        containers: ContainerService,
        volumes: VolumeService,
        snapshots: Snapshots,
        paths: Paths,
        cache: CacheEntries,
        more: Sequence[Callable[[], int]],
    ) -> None:
        """more: bytes on disk of what else belongs to images (partial blobs, fetched packages); called in a thread."""
        self._images = images
        self._containers = containers
        self._volumes = volumes
        self._snapshots = snapshots
        self._paths = paths
        self._cache = cache
        self._more = more
        self._busy = asyncio.Lock()

    async def usage(self, kinds: Collection[str]) -> DiskUsage:
        """Bytes on disk of each kind in kinds: image, container, volume, build-cache. One at a time: it reads whole trees."""
        async with self._busy:
            layers = await self._layers() if {"image", "container", "build-cache"} & set(kinds) else {}
            images, total = (await self._of_images(layers)) if "image" in kinds else (None, 0)
            return DiskUsage(
                layers_size=total,
                images=None if images is None else [*images],
                containers=await self._of_containers(layers) if "container" in kinds else None,
                volumes=list(await self._volumes.usage()) if "volume" in kinds else None,
                build_cache=await self._of_cache(layers) if "build-cache" in kinds else None,
            )

    async def _of_cache(self, layers: dict[ChainId, int]) -> list[CacheRecord]:
        """Its entries. Those that are shared are no part of its size: their layers are images' too."""
        entries = [*self._cache.steps(lambda name: layers.get(name, 0)), *await self._cache.mounts()]
        return [
            CacheRecord(
                id=entry.id,
                parents=entry.parents,
                type=entry.type,
                description=entry.description,
                in_use=entry.in_use,
                shared=entry.shared,
                size=entry.size,
                created_at=rfc3339nano(entry.created),
                last_used_at=rfc3339nano(entry.last_used),
                usage_count=entry.uses,
            )
            for entry in sorted(entries, key=lambda entry: entry.last_used, reverse=True)
        ]

    async def _layers(self) -> dict[ChainId, int]:
        """Of each layer, those that only a container needs included."""

        turns = asyncio.Semaphore(_AT_ONCE)  # each holds descriptors

        async def measured(name: ChainId) -> int:
            async with turns:
                try:
                    return await self._snapshots.disk_usage(name)
                except (EngineError, OSError):  # removed meanwhile, or its files are lost
                    return 0

        names = [layer.name for layer in self._snapshots.layers()]
        return dict(zip(names, await asyncio.gather(*map(measured, names)), strict=True))

    async def _of_images(self, layers: dict[ChainId, int]) -> tuple[Sequence[ImageSummary], int]:
        """(Images with sizes on disk, all that is of images: what is on its way in and what is being deleted as well.)

        The layers that only the build cache needs are its own.
        """
        images = await self._images.list(all=False, filters={}, shared_size=True, layer_size=lambda name: layers.get(name, 0))
        more = await asyncio.to_thread(lambda: sum(measure() for measure in self._more))
        own = sum(layers.get(name, 0) for name in self._cache.layers())
        return images, sum(layers.values()) - own + await self._snapshots.rest_disk_usage() + more

    async def _of_containers(self, layers: dict[ChainId, int]) -> list[ContainerSummary]:
        found: list[ContainerSummary] = []
        for summary in await self._containers.list(all=True, limit=0, size=False, filters={}):
            try:
                written = await self._snapshots.tree_disk_usage(summary.id)
                written += await asyncio.to_thread(_on_disk, self._paths.container(summary.id))
            except (NotFound, FileNotFoundError):  # removed meanwhile
                continue
            below = sum(layers.get(name, 0) for name in self._containers.chain(summary.id))
            found.append(msgspec.structs.replace(summary, size_rw=written, size_root_fs=written + below))
        return found


def _on_disk(directory: str) -> int:
    """Bytes of a directory of ours with all below. Raises OSError."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return os.fstat(fd).st_blocks * 512 + measure_tree(fd)[2]
    finally:
        os.close(fd)
