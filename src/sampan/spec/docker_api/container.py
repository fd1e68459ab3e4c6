"""Bodies that create and change containers (moby api/types/container {config,hostconfig_unix,create_request}.go; API v1.51)."""

from sampan.spec.docker_api.base import Body, EmptySet, GoInt, StrSlice, Uint, Uint16, Uint64, always
from sampan.spec.docker_api.mount import Mount
from sampan.spec.docker_api.network import NetworkingConfig


class HealthConfig(Body, frozen=True, kw_only=True):
    """How health is checked. Durations in nanoseconds; 0 = inherit from the image."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: GoInt = 0


class Config(Body, frozen=True, kw_only=True):
    """What of a container is the same wherever it runs; also part of an image."""

    hostname: str = always("")
    domainname: str = always("")
    user: str = always("")
    attach_stdin: bool = always(False)
    attach_stdout: bool = always(False)
    attach_stderr: bool = always(False)
    exposed_ports: EmptySet | None = None
    tty: bool = always(False)
    open_stdin: bool = always(False)
    stdin_once: bool = always(False)
    env: list[str] | None = always(None)
    cmd: StrSlice | None = always(None)
    healthcheck: HealthConfig | None = None
    args_escaped: bool = False
    image: str = always("")
    volumes: EmptySet | None = always(None)
    working_dir: str = always("")
    entrypoint: StrSlice | None = always(None)
    network_disabled: bool = False
    mac_address: str = ""
    on_build: list[str] | None = always(None)
    labels: dict[str, str] | None = always(None)
    stop_signal: str = ""
    stop_timeout: GoInt | None = None
    """Seconds; None = the engine's 10."""
    shell: StrSlice | None = None


class LogConfig(Body, frozen=True, kw_only=True):
    """Log driver and its options; Type "" = the daemon's default."""

    type: str = always("")
    config: dict[str, str] | None = always(None)


class RestartPolicy(Body, frozen=True, kw_only=True):
    """When a container is started again: "", no, always, unless-stopped, on-failure."""

    name: str = always("")
    maximum_retry_count: GoInt = always(0)


class PortBinding(Body, frozen=True, kw_only=True):
    """Where a port is published; an empty HostPort asks for an ephemeral one."""

    host_ip: str = always("")
    host_port: str = always("")


class WeightDevice(Body, frozen=True, kw_only=True):
    """Block-I/O weight of one device (10 to 1000)."""

    path: str = always("")
    weight: Uint16 = always(0)


class ThrottleDevice(Body, frozen=True, kw_only=True):
    """Block-I/O limit of one device: bytes or operations a second."""

    path: str = always("")
    rate: Uint64 = always(0)


class DeviceMapping(Body, frozen=True, kw_only=True):
    """A host device given to the container."""

    path_on_host: str = always("")
    path_in_container: str = always("")
    cgroup_permissions: str = always("")


class DeviceRequest(Body, frozen=True, kw_only=True):
    """A request to a device driver (GPUs); Count -1 = all."""

    driver: str = always("")
    count: GoInt = always(0)
    device_ids: list[str] | None = always(None)
    capabilities: list[list[str]] | None = always(None)
    options: dict[str, str] | None = always(None)


class Ulimit(Body, frozen=True, kw_only=True):
    """One resource limit; -1 = unlimited."""

    name: str = always("")
    hard: int = always(0)
    soft: int = always(0)


class Resources(Body, frozen=True, kw_only=True):
    """Limits. Sizes in bytes, times of the CPU scheduler in microseconds, NanoCpus in 1e-9 CPUs; 0 = no limit, -1 where it says so."""

    cpu_shares: int = always(0)
    memory: int = always(0)
    nano_cpus: int = always(0)
    cgroup_parent: str = always("")
    blkio_weight: Uint16 = always(0)
    blkio_weight_device: list[WeightDevice] | None = always(None)
    blkio_device_read_bps: list[ThrottleDevice] | None = always(None)
    blkio_device_write_bps: list[ThrottleDevice] | None = always(None)
    blkio_device_read_iops: list[ThrottleDevice] | None = always(None)
    blkio_device_write_iops: list[ThrottleDevice] | None = always(None)
    cpu_period: int = always(0)
    cpu_quota: int = always(0)
    cpu_realtime_period: int = always(0)
    cpu_realtime_runtime: int = always(0)
    cpuset_cpus: str = always("")
    cpuset_mems: str = always("")
    devices: list[DeviceMapping] | None = always(None)
    device_cgroup_rules: list[str] | None = always(None)
    device_requests: list[DeviceRequest] | None = always(None)
    kernel_memory: int = 0
    kernel_memory_tcp: int = 0
    memory_reservation: int = always(0)
    memory_swap: int = always(0)
    """Memory and swap together; -1 = unlimited swap."""
    memory_swappiness: int | None = always(None)
    oom_kill_disable: bool | None = always(None)
    pids_limit: int | None = always(None)
    ulimits: list[Ulimit] | None = always(None)
    cpu_count: int = always(0)
    cpu_percent: int = always(0)
    io_maximum_iops: Uint64 = always(0)
    io_maximum_bandwidth: Uint64 = always(0)


class HostConfig(Resources, frozen=True, kw_only=True):
    """What of a container depends on the host it runs on."""

    binds: list[str] | None = always(None)
    container_id_file: str = always("")
    log_config: LogConfig = always(LogConfig())
    network_mode: str = always("")
    port_bindings: dict[str, list[PortBinding] | None] | None = always(None)
    restart_policy: RestartPolicy = always(RestartPolicy())
    auto_remove: bool = always(False)
    volume_driver: str = always("")
    volumes_from: list[str] | None = always(None)
    console_size: tuple[Uint, Uint] = always((0, 0))
    """Height, width."""
    annotations: dict[str, str] | None = None
    cap_add: StrSlice | None = always(None)
    cap_drop: StrSlice | None = always(None)
    cgroupns_mode: str = always("")
    dns: list[str] | None = always(None)
    dns_options: list[str] | None = always(None)
    dns_search: list[str] | None = always(None)
    extra_hosts: list[str] | None = always(None)
    group_add: list[str] | None = always(None)
    ipc_mode: str = always("")
    cgroup: str = always("")
    links: list[str] | None = always(None)
    oom_score_adj: GoInt = always(0)
    pid_mode: str = always("")
    privileged: bool = always(False)
    publish_all_ports: bool = always(False)
    readonly_rootfs: bool = always(False)
    security_opt: list[str] | None = always(None)
    storage_opt: dict[str, str] | None = None
    tmpfs: dict[str, str] | None = None
    uts_mode: str = always("")
    userns_mode: str = always("")
    shm_size: int = always(0)
    sysctls: dict[str, str] | None = None
    runtime: str = ""
    isolation: str = always("")
    mounts: list[Mount] | None = None
    masked_paths: list[str] | None = always(None)
    readonly_paths: list[str] | None = always(None)
    init: bool | None = None
    timezone: str = ""
    """Sampan's own: `local` is the host's, else a name such as Europe/Berlin; "" = as the image has it."""


class CreateRequest(Config, frozen=True, kw_only=True):
    """POST /containers/create: Go embeds Config, so its fields are at the top level."""

    host_config: HostConfig | None = None
    networking_config: NetworkingConfig | None = None


class CreateResponse(Body, frozen=True, kw_only=True):
    """The answer to create. Warnings is never null."""

    id: str
    warnings: list[str]


class UpdateRequest(Resources, frozen=True, kw_only=True):
    """The body of update: 0, "" and null leave a limit as it is."""

    restart_policy: RestartPolicy = always(RestartPolicy())
    publish_add: dict[str, list[PortBinding] | None] | None = None
    """Sampan's own, as is the next: bindings that it is to have beside those it has."""
    publish_rm: list[str] | None = None
    """Its ports that are to be published no more, as in `80/tcp`."""


class UpdateResponse(Body, frozen=True, kw_only=True):
    """The answer to update."""

    warnings: list[str] | None = always(None)
    port_bindings: dict[str, list[PortBinding] | None] | None = None
    """Sampan's own: what is published then, if ports were asked for. None from a daemon that knows nothing of them."""


class WaitError(Body, frozen=True, kw_only=True):
    """Why a wait ended without an exit code."""

    message: str = always("")


class WaitResponse(Body, frozen=True, kw_only=True):
    """The answer to wait."""

    status_code: int
    error: WaitError | None = None


class TopResponse(Body, frozen=True, kw_only=True):
    """The answer to top: ps' own columns."""

    titles: list[str]
    processes: list[list[str]]


class PruneReport(Body, frozen=True, kw_only=True):
    """POST /containers/prune."""

    containers_deleted: list[str] | None = always(None)
    space_reclaimed: int = always(0)


class ExecCreateRequest(Body, frozen=True, kw_only=True):
    """POST /containers/{id}/exec."""

    user: str = ""
    privileged: bool = False
    tty: bool = False
    console_size: tuple[Uint, Uint] | None = None
    attach_stdin: bool = False
    attach_stderr: bool = False
    attach_stdout: bool = False
    detach: bool = False
    detach_keys: str = ""
    env: list[str] | None = None
    working_dir: str = ""
    cmd: StrSlice | None = None


class ExecCreateResponse(Body, frozen=True, kw_only=True):
    """The new exec's ID."""

    id: str


class ExecStartRequest(Body, frozen=True, kw_only=True):
    """POST /exec/{id}/start."""

    detach: bool = False
    tty: bool = False
    console_size: tuple[Uint, Uint] | None = None


class ExecProcessConfig(Body, frozen=True, kw_only=True, rename="lower"):
    """The command line of an exec, as inspect shows it."""

    tty: bool = always(False)
    entrypoint: str = always("")
    arguments: list[str] = always([])
    privileged: bool | None = None
    user: str = ""


class ExecInspect(
    Body,
    frozen=True,
    kw_only=True,
    rename={
        "id": "ID",
        "running": "Running",
        "exit_code": "ExitCode",
        "process_config": "ProcessConfig",
        "open_stdin": "OpenStdin",
        "open_stderr": "OpenStderr",
        "open_stdout": "OpenStdout",
        "can_remove": "CanRemove",
        "container_id": "ContainerID",
        "detach_keys": "DetachKeys",
        "pid": "Pid",
    },
):
    """GET /exec/{id}/json. exit_code is None while it runs."""

    id: str
    running: bool
    exit_code: int | None
    process_config: ExecProcessConfig
    open_stdin: bool
    open_stderr: bool
    open_stdout: bool
    can_remove: bool
    container_id: str
    detach_keys: str
    """Raw bytes of the keys, base64 on the wire in Go; here already text."""
    pid: int


class PathStat(Body, frozen=True, kw_only=True, rename={"link_target": "linkTarget"}):
    """What X-Docker-Container-Path-Stat holds, base64-encoded."""

    name: str
    size: int
    mode: int
    """Bits of Go's os.FileMode."""
    mtime: str
    link_target: str


class PathChange(Body, frozen=True, kw_only=True):
    """One line of GET /containers/{id}/changes."""

    path: str
    kind: int
    """0 changed, 1 added, 2 deleted."""


class CommitResponse(Body, frozen=True, kw_only=True):
    """POST /commit."""

    id: str


Filters = dict[str, list[str]]
"""Decoded `filters` parameter: key to values, whichever of docker's two JSON forms it came in."""
