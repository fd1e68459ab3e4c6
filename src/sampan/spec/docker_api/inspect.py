"""What list and inspect of containers answer (moby api/types/container/container.go; API v1.51)."""

from sampan.spec.docker_api.base import Body, always
from sampan.spec.docker_api.container import Config, HostConfig
from sampan.spec.docker_api.mount import MountPoint
from sampan.spec.docker_api.network import NetworkSettings, SummaryNetworkSettings


class HealthcheckResult(Body, frozen=True, kw_only=True):
    """One probe; times in RFC 3339."""

    start: str
    end: str
    exit_code: int
    output: str


class Health(Body, frozen=True, kw_only=True):
    """State of the health check."""

    status: str
    failing_streak: int = always(0)
    log: list[HealthcheckResult] | None = always(None)


class ContainerStateShown(Body, frozen=True, kw_only=True):
    """State of a container; Status created, running, paused, restarting, removing, exited or dead."""

    status: str
    running: bool = always(False)
    paused: bool = always(False)
    restarting: bool = always(False)
    oom_killed: bool = always(False)
    dead: bool = always(False)
    pid: int = always(0)
    exit_code: int = always(0)
    error: str = always("")
    started_at: str = always("0001-01-01T00:00:00Z")
    finished_at: str = always("0001-01-01T00:00:00Z")
    health: Health | None = None


class GraphDriverData(Body, frozen=True, kw_only=True):
    """The storage driver's own words."""

    data: dict[str, str] | None = always(None)
    name: str = always("")


class ContainerInspect(Body, frozen=True, kw_only=True):
    """GET /containers/{id}/json."""

    id: str
    created: str
    path: str
    args: list[str]
    state: ContainerStateShown
    image: str
    resolv_conf_path: str = always("")
    hostname_path: str = always("")
    hosts_path: str = always("")
    log_path: str = always("")
    name: str
    """With a leading slash."""
    restart_count: int = always(0)
    driver: str = always("")
    platform: str = always("linux")
    mount_label: str = always("")
    process_label: str = always("")
    app_armor_profile: str = always("")
    exec_ids: list[str] | None = always(None)
    host_config: HostConfig
    graph_driver: GraphDriverData = always(GraphDriverData())
    size_rw: int | None = None
    size_root_fs: int | None = None
    mounts: list[MountPoint]
    config: Config
    network_settings: NetworkSettings


class Port(Body, frozen=True, kw_only=True):
    """One port of a container in a list."""

    ip: str = ""
    private_port: int
    public_port: int = 0
    type: str


class SummaryHostConfig(Body, frozen=True, kw_only=True):
    """The part of HostConfig a list shows."""

    network_mode: str = ""
    annotations: dict[str, str] | None = None


class ContainerSummary(Body, frozen=True, kw_only=True):
    """One entry of GET /containers/json. created is in Unix seconds; sizes only where asked for."""

    id: str
    names: list[str]
    image: str
    image_id: str
    command: str
    created: int
    ports: list[Port]
    size_rw: int = 0
    size_root_fs: int = 0
    labels: dict[str, str]
    state: str
    status: str
    host_config: SummaryHostConfig = always(SummaryHostConfig())
    network_settings: SummaryNetworkSettings | None = always(None)
    mounts: list[MountPoint]
