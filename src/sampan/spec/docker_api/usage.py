"""Disk usage (moby api/types/system/disk_usage.go; API v1.51)."""

from sampan.spec.docker_api.base import Body, always
from sampan.spec.docker_api.image import ImageSummary
from sampan.spec.docker_api.inspect import ContainerSummary
from sampan.spec.docker_api.volume import Volume


class DiskUsage(Body, frozen=True, kw_only=True):
    """GET /system/df. None: not asked for."""

    layers_size: int = always(0)
    images: list[ImageSummary] | None = always(None)
    containers: list[ContainerSummary] | None = always(None)
    volumes: list[Volume] | None = always(None)
    build_cache: list[dict[str, object]] | None = always(None)
    """There is none yet."""
