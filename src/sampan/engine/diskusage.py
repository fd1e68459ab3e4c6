"""`docker system df`: what images, containers and volumes take. Sizes are measured by workers, one after the other."""

from collections.abc import Collection

from sampan.engine.containers import ContainerService
from sampan.engine.images import ImageService
from sampan.engine.volumes import VolumeService
from sampan.errors import InvalidArgument
from sampan.snapshot.api import Snapshots
from sampan.spec.docker_api.usage import DiskUsage

KINDS = ("container", "image", "volume", "build-cache")


class DiskUsageService:
    """See api/services.py for the contract."""

    def __init__(self, containers: ContainerService, images: ImageService, volumes: VolumeService, snapshots: Snapshots) -> None:
        self._containers = containers
        self._images = images
        self._volumes = volumes
        self._snapshots = snapshots

    async def usage(self, kinds: Collection[str]) -> DiskUsage:
        """Of some kinds of objects, all when none is named. Raises InvalidArgument."""
        for kind in kinds:
            if kind not in KINDS:
                raise InvalidArgument(f"unknown object type: {kind}")
        wanted = kinds or KINDS
        return DiskUsage(
            layers_size=sum(layer.size for layer in self._snapshots.layers()) if "image" in wanted else 0,
            images=list(await self._images.list(all=False, filters={}, shared_size=True)) if "image" in wanted else None,
            containers=(list(await self._containers.list(all=True, limit=0, size=True, filters={})) if "container" in wanted else None),
            volumes=list(await self._volumes.usage()) if "volume" in wanted else None,
            build_cache=[] if "build-cache" in wanted else None,
        )
