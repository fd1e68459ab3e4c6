"""Version, info and events (moby api/types {types,system,events}; API v1.51)."""

from typing import Any

import msgspec

from sampan.spec.docker_api.base import Body, always
from sampan.spec.docker_api.image import ImageSummary
from sampan.spec.docker_api.inspect import ContainerSummary


class PlatformName(Body, frozen=True, kw_only=True):
    """The product's name."""

    name: str = always("")


class ComponentVersion(Body, frozen=True, kw_only=True):
    """One part of the engine."""

    name: str
    version: str
    details: dict[str, str] | None = None


class SystemVersion(
    Body,
    frozen=True,
    kw_only=True,
    rename={
        "platform": "Platform",
        "components": "Components",
        "version": "Version",
        "api_version": "ApiVersion",
        "min_api_version": "MinAPIVersion",
        "git_commit": "GitCommit",
        "go_version": "GoVersion",
        "os": "Os",
        "arch": "Arch",
        "kernel_version": "KernelVersion",
        "experimental": "Experimental",
        "build_time": "BuildTime",
    },
):
    """GET /version."""

    platform: PlatformName
    components: list[ComponentVersion]
    version: str
    api_version: str
    min_api_version: str
    git_commit: str = always("")
    go_version: str = always("")
    os: str = always("linux")
    arch: str = always("amd64")
    kernel_version: str = ""
    experimental: bool = False
    build_time: str = ""


class PluginsInfo(Body, frozen=True, kw_only=True):
    """Names of the drivers of each kind."""

    volume: list[str]
    network: list[str]
    authorization: list[str] | None = always(None)
    log: list[str]


class Runtime(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """An OCI runtime."""

    path: str = ""
    runtime_args: list[str] | None = None
    runtime_type: str = ""
    options: dict[str, Any] | None = None


class Commit(msgspec.Struct, frozen=True, rename={"id": "ID"}):
    """The commit of a helper program."""

    id: str = ""


class SwarmInfo(
    Body,
    frozen=True,
    kw_only=True,
    rename={
        "node_id": "NodeID",
        "node_addr": "NodeAddr",
        "local_node_state": "LocalNodeState",
        "control_available": "ControlAvailable",
        "error": "Error",
        "remote_managers": "RemoteManagers",
    },
):
    """State of swarm mode."""

    node_id: str = always("")
    node_addr: str = always("")
    local_node_state: str = always("inactive")
    control_available: bool = always(False)
    error: str = always("")
    remote_managers: list[Any] | None = always(None)


class FirewallInfo(Body, frozen=True, kw_only=True):
    """What sets the firewall rules."""

    driver: str = always("")


class IndexInfo(Body, frozen=True, kw_only=True):
    """One registry that daemon.json says something about, or docker.io."""

    name: str
    mirrors: list[str]
    secure: bool = always(True)
    official: bool = always(False)


class RegistryConfig(Body, frozen=True, kw_only=True, rename={"insecure_registry_cidrs": "InsecureRegistryCIDRs",
                                                              "index_configs": "IndexConfigs", "mirrors": "Mirrors"}):  # fmt: skip
    """How registries are spoken to. insecure_registry_cidrs: networks without (valid) certificates."""

    insecure_registry_cidrs: list[str]
    index_configs: dict[str, IndexInfo]
    mirrors: list[str] | None = always(None)
    """Of docker.io."""


_INFO_NAMES = {
    "id": "ID",
    "cpu_cfs_period": "CpuCfsPeriod",
    "cpu_cfs_quota": "CpuCfsQuota",
    "cpu_shares": "CPUShares",
    "cpu_set": "CPUSet",
    "ipv4_forwarding": "IPv4Forwarding",
    "nfd": "NFd",
    "n_goroutines": "NGoroutines",
    "n_events_listener": "NEventsListener",
    "os_version": "OSVersion",
    "os_type": "OSType",
    "ncpu": "NCPU",
    "cdi_spec_dirs": "CDISpecDirs",
    "kernel_memory_tcp": "KernelMemoryTCP",
}


def _info_name(field: str) -> str:
    return _INFO_NAMES.get(field) or "".join(word.capitalize() for word in field.split("_"))


class DeviceInfo(Body, frozen=True, kw_only=True, rename={"source": "Source", "id": "ID"}):
    """A device that can be asked for by name, and the driver that knows it."""

    source: str
    id: str


class SystemInfo(Body, frozen=True, kw_only=True, rename=_info_name):
    """GET /info. mem_total in bytes."""

    id: str
    containers: int = always(0)
    containers_running: int = always(0)
    containers_paused: int = always(0)
    containers_stopped: int = always(0)
    images: int = always(0)
    driver: str
    driver_status: list[tuple[str, str]]
    plugins: PluginsInfo
    memory_limit: bool = always(False)
    swap_limit: bool = always(False)
    kernel_memory_tcp: bool = False
    cpu_cfs_period: bool = always(False)
    cpu_cfs_quota: bool = always(False)
    cpu_shares: bool = always(False)
    cpu_set: bool = always(False)
    pids_limit: bool = always(False)
    ipv4_forwarding: bool = always(False)
    debug: bool = always(False)
    nfd: int = always(0)
    oom_kill_disable: bool = always(False)
    n_goroutines: int = always(0)
    system_time: str
    logging_driver: str
    cgroup_driver: str = always("cgroupfs")
    cgroup_version: str = always("1")
    n_events_listener: int = always(0)
    kernel_version: str
    operating_system: str
    os_version: str = always("")
    os_type: str = always("linux")
    architecture: str = always("x86_64")
    index_server_address: str = always("https://index.docker.io/v1/")
    registry_config: RegistryConfig | None = always(None)
    ncpu: int
    mem_total: int
    generic_resources: list[Any] | None = always(None)
    docker_root_dir: str
    http_proxy: str = always("")
    https_proxy: str = always("")
    no_proxy: str = always("")
    name: str
    labels: list[str] = msgspec.field(default_factory=lambda: [])
    experimental_build: bool = always(False)
    server_version: str
    runtimes: dict[str, Runtime]
    default_runtime: str = always("runc")
    swarm: SwarmInfo = always(SwarmInfo())
    live_restore_enabled: bool = always(True)
    isolation: str = always("")
    init_binary: str = always("docker-init")
    containerd_commit: Commit = always(Commit())
    runc_commit: Commit = always(Commit())
    init_commit: Commit = always(Commit())
    security_options: list[str]
    firewall_backend: FirewallInfo | None = None
    cdi_spec_dirs: list[str] = msgspec.field(default_factory=lambda: [])
    discovered_devices: tuple[DeviceInfo, ...] = ()
    warnings: list[str] | None = always(None)


class EventActor(Body, frozen=True, kw_only=True, rename={"id": "ID", "attributes": "Attributes"}):
    """What an event is about."""

    id: str
    attributes: dict[str, str]


class EventMessage(
    msgspec.Struct,
    frozen=True,
    omit_defaults=True,
    kw_only=True,
    rename={
        "from_": "from",
        "type": "Type",
        "action": "Action",
        "actor": "Actor",
        "time_nano": "timeNano",
    },
):
    """One line of GET /events; status, id and from are the old form, only given for containers and images."""

    status: str = ""
    id: str = ""
    from_: str = ""
    type: str
    action: str
    actor: EventActor
    scope: str = always("local")
    time: int
    """Seconds since the epoch."""
    time_nano: int


class PingInfo(msgspec.Struct, frozen=True):
    """What the headers of /_ping say."""

    swarm: str = "inactive"
    builder_version: str = "1"


class CheckFinding(Body, frozen=True, kw_only=True):
    """One thing that is wrong; Sampan's own."""

    kind: str
    subject: str
    problem: str
    remedy: str
    repairable: bool = always(False)
    repaired: bool = always(False)


class CheckReport(Body, frozen=True, kw_only=True):
    """GET and POST /system/check, which are Sampan's own."""

    findings: list[CheckFinding] = msgspec.field(default_factory=lambda: [])
    layers_read: int = always(0)
    """With deep."""


class CacheRecord(Body, frozen=True, kw_only=True):
    """An entry of the build cache (moby api/types/build/cache.go)."""

    id: str = msgspec.field(name="ID")
    parents: tuple[str, ...] = msgspec.field(default=(), name=" Parents")
    """Docker's slip of the pen: its clients read it so."""
    type: str
    description: str
    in_use: bool
    shared: bool
    size: int
    created_at: str
    last_used_at: str
    usage_count: int


class DiskUsage(Body, frozen=True, kw_only=True):
    """GET /system/df; None: not asked for. Bytes on the disk."""

    layers_size: int = always(0)
    images: list[ImageSummary] | None = always(None)
    containers: list[ContainerSummary] | None = always(None)
    volumes: list[Any] | None = always(None)
    build_cache: list[CacheRecord] | None = always(None)
