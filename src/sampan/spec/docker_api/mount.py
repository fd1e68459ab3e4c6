"""Mount requests and mount points (moby api/types/mount/mount.go; API v1.51)."""

from sampan.spec.docker_api.base import Body, Uint, always


class BindOptions(Body, frozen=True, kw_only=True):
    """Options of a bind mount."""

    propagation: str = ""
    non_recursive: bool = False
    create_mountpoint: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False


class DriverConfig(Body, frozen=True, kw_only=True):
    """A volume driver and its options."""

    name: str = ""
    options: dict[str, str] | None = None


class VolumeOptions(Body, frozen=True, kw_only=True):
    """Options of a volume mount."""

    no_copy: bool = False
    labels: dict[str, str] | None = None
    subpath: str = ""
    driver_config: DriverConfig | None = None


class ImageOptions(Body, frozen=True, kw_only=True):
    """Options of an image mount."""

    subpath: str = ""


class TmpfsOptions(Body, frozen=True, kw_only=True):
    """Options of a tmpfs mount; size in bytes, mode as permission bits."""

    size_bytes: int = 0
    mode: Uint = 0
    options: list[list[str]] | None = None


class ClusterOptions(Body, frozen=True, kw_only=True):
    """Options of a cluster volume: none are defined."""


class Mount(Body, frozen=True, kw_only=True):
    """One mount asked for: Type bind, volume, tmpfs, image, npipe or cluster."""

    type: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = False
    consistency: str = ""
    bind_options: BindOptions | None = None
    volume_options: VolumeOptions | None = None
    image_options: ImageOptions | None = None
    tmpfs_options: TmpfsOptions | None = None
    cluster_options: ClusterOptions | None = None


class MountPoint(Body, frozen=True, kw_only=True):
    """One mount as inspect and list show it."""

    type: str = ""
    name: str = ""
    source: str = always("")
    destination: str = always("")
    driver: str = ""
    mode: str = always("")
    rw: bool = always(False)
    propagation: str = always("")
