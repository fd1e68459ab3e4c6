"""Volumes (moby api/types/volume; API v1.51)."""

from sampan.spec.docker_api.base import Body, always


class UsageData(Body, frozen=True, kw_only=True):
    """What a volume takes: bytes (-1: unknown), and the containers it is of."""

    ref_count: int = always(-1)
    size: int = always(-1)


class Volume(Body, frozen=True, kw_only=True):
    """One volume."""

    created_at: str = ""
    driver: str = always("local")
    labels: dict[str, str] | None = always(None)
    mountpoint: str = always("")
    name: str = always("")
    options: dict[str, str] | None = always(None)
    scope: str = always("local")
    usage_data: UsageData | None = None
    """In disk usage only."""


class VolumeListResponse(Body, frozen=True, kw_only=True):
    """GET /volumes."""

    volumes: list[Volume] = always([])
    warnings: list[str] | None = always(None)


class VolumeCreateRequest(Body, frozen=True, kw_only=True):
    """POST /volumes/create."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None
    cluster_volume_spec: dict[str, object] | None = None


class VolumesPruneReport(Body, frozen=True, kw_only=True):
    """POST /volumes/prune."""

    volumes_deleted: list[str] | None = always(None)
    space_reclaimed: int = always(0)
