"""Volumes (moby api/types/volume; API v1.51)."""

from sampan.spec.docker_api.base import Body, always


class Volume(Body, frozen=True, kw_only=True):
    """One volume."""

    created_at: str = ""
    driver: str = always("local")
    labels: dict[str, str] | None = always(None)
    mountpoint: str = always("")
    name: str = always("")
    options: dict[str, str] | None = always(None)
    scope: str = always("local")


class VolumeListResponse(Body, frozen=True, kw_only=True):
    """GET /volumes."""

    volumes: list[Volume] = always([])
    warnings: list[str] | None = always(None)
