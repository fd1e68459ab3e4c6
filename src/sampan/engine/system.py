"""SystemService: version, info, events."""

import asyncio
import ipaddress
import os
import platform
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from sampan.clock import rfc3339nano
from sampan.engine import cdi
from sampan.engine.containerstore import Containers
from sampan.engine.images import ImageService
from sampan.engine.limits import HostLimits, host_limits, warnings_of
from sampan.engine.registrysettings import RegistrySettings
from sampan.errors import InvalidArgument
from sampan.events.bus import Event, EventBus
from sampan.filters import Filters
from sampan.ids import new_id
from sampan.linux import apparmor
from sampan.logs.options import DEFAULT_DRIVER
from sampan.logs.options import DRIVERS as LOG_DRIVERS
from sampan.mirrors import normalised
from sampan.reference import DEFAULT_DOMAIN
from sampan.registryhosts import is_insecure, without_scheme
from sampan.runtime.cgroups import host_layout
from sampan.snapshot.api import Snapshots
from sampan.spec.docker_api.system import (
    ComponentVersion,
    DeviceInfo,
    EventActor,
    EventMessage,
    FirewallInfo,
    IndexInfo,
    PingInfo,
    PlatformName,
    PluginsInfo,
    RegistryConfig,
    Runtime,
    SystemInfo,
    SystemVersion,
)
from sampan.state.containers import MetaRepository
from sampan.version import API_VERSION, ENGINE_VERSION, MIN_API_VERSION, VERSION

_EVENT_FILTERS = (
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


class SystemFacts(msgspec.Struct, frozen=True):
    """What daemon.json says of the engine as a whole."""

    data_root: str
    log_driver: str = ""
    labels: tuple[str, ...] = ()
    cdi_spec_dirs: tuple[str, ...] = ()
    registries: RegistrySettings = RegistrySettings()
    debug: bool = False
    live_restore: bool = True
    runtimes: Mapping[str, Runtime] = {}
    default_runtime: str = "runc"
    userns_remap: bool = False
    filtered: bool = True
    """Whether networks have firewall rules."""


def _release() -> dict[str, str]:
    """os-release(5), of either place."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        with suppress(OSError):
            pairs = (line.partition("=") for line in Path(path).read_text(errors="replace").splitlines())
            return {name: value.strip("\"'") for name, equals, value in pairs if equals}
    return {}


def registry_config(registries: RegistrySettings) -> RegistryConfig:
    """What a pull goes by, as docker shows it: networks and names of insecure registries apart, mirrors with a slash.

    Source: moby registry/config.go.
    """
    insecure_registries = registries.insecure_registries
    shown = [normalised(mirror) for mirror in registries.mirrors_of(DEFAULT_DOMAIN)]
    networks = ["::1/128", "127.0.0.0/8"]
    indexes = {"docker.io": IndexInfo(name="docker.io", mirrors=shown, official=True)}
    for name in map(without_scheme, insecure_registries):
        try:
            network = str(ipaddress.ip_network(name, strict=False)) if "/" in name else ""
        except ValueError:
            network = ""
        if not network:
            indexes[name] = IndexInfo(name=name, mirrors=[*map(normalised, registries.mirrors_of(name))], secure=False)
        elif network not in networks:
            networks.append(network)
    for name in registries.mirrors_by_registry:
        if name not in indexes:
            indexes[name] = IndexInfo(
                name=name, mirrors=[*map(normalised, registries.mirrors_of(name))], secure=not is_insecure(name, insecure_registries)
            )
    return RegistryConfig(insecure_registry_cidrs=networks, index_configs=indexes, mirrors=shown or None)


def message_of(event: Event) -> EventMessage:
    """An event as the API writes it; status, id and from are the old form of container and image events."""
    old = event.type in ("container", "image")
    return EventMessage(
        status=event.action if old else "",
        id=event.actor_id if old else "",
        from_=event.attributes.get("image", "") if event.type == "container" else "",
        type=event.type,
        action=event.action,
        actor=EventActor(id=event.actor_id, attributes=dict(event.attributes)),
        time=event.time_ns // 1_000_000_000,
        time_nano=event.time_ns,
    )


class SystemService:
    """See api/services.py for the contract."""

    def __init__(
        self,
        containers: Containers,
        images: ImageService,
        snapshots: Snapshots,
        events: EventBus,
        meta: MetaRepository,
        facts: SystemFacts,
        warnings: Callable[[], list[str]] = list,
        sysfs: str = "/sys",
    ) -> None:
        self._containers = containers
        self._images = images
        self._snapshots = snapshots
        self._events = events
        self.facts = facts
        """Replaced when daemon.json is read again."""
        self._warnings = warnings
        self._sysfs = sysfs
        self._ping = PingInfo()
        self._id = meta.get("engine-id") or new_id()
        meta.put("engine-id", self._id)

    def ping(self) -> PingInfo:
        """State for ping's headers."""
        return self._ping

    async def version(self) -> SystemVersion:
        """Versions of the parts."""
        machine = platform.machine()
        architecture = _ARCHITECTURES.get(machine, machine)
        details = {
            "ApiVersion": API_VERSION,
            "MinAPIVersion": MIN_API_VERSION,
            "Os": "linux",
            "Arch": architecture,
            "KernelVersion": platform.release(),
            "Experimental": "false",
            "GitCommit": VERSION,
            "GoVersion": "none",
            "BuildTime": "",
        }
        return SystemVersion(
            platform=PlatformName(name=f"Sampan {VERSION}"),
            components=[
                ComponentVersion(name="Engine", version=ENGINE_VERSION, details=details),
                ComponentVersion(name="sampan", version=VERSION, details={"Python": platform.python_version()}),
            ],
            version=ENGINE_VERSION,
            api_version=API_VERSION,
            min_api_version=MIN_API_VERSION,
            git_commit=VERSION,
            go_version="none",
            arch=architecture,
            kernel_version=platform.release(),
        )

    def _shown_warnings(self, limits: HostLimits, cgroup_version: int, cdi_problems: Sequence[str]) -> list[str]:
        found = [*warnings_of(limits, cgroup_version), *self._warnings()]
        if apparmor.enabled(self._sysfs):  # docker would confine containers by it
            found.append("WARNING: AppArmor is enabled, but no profile is applied to containers: not implemented by Sampan yet")
        return [*found, *(f"WARNING: CDI: {problem}" for problem in cdi_problems)]

    def _namespaces(self, cgroup_version: int) -> list[str]:
        """What docker counts among the security options."""
        return [*(["name=userns"] if self.facts.userns_remap else []), *(["name=cgroupns"] if cgroup_version == 2 else [])]

    def publish_reload(self, attributes: Mapping[str, str]) -> None:
        """Docker's event of a daemon that has read its configuration again."""
        self._events.publish("daemon", "reload", self._id, {"name": os.uname().nodename, **attributes})

    async def info(self) -> SystemInfo:
        """Counts, limits, drivers."""
        statuses = [container.state.status for container in self._containers]
        layout, limits = host_layout(), host_limits()
        registries = self.facts.registries
        release = _release()
        http_proxy, https_proxy, no_proxy = registries.proxies.shown()
        found = await asyncio.to_thread(cdi.look, self.facts.cdi_spec_dirs)
        return SystemInfo(
            id=self._id,
            containers=len(statuses),
            containers_running=statuses.count("running"),
            containers_paused=statuses.count("paused"),
            containers_stopped=sum(status not in ("running", "paused") for status in statuses),
            images=self._images.count,
            driver=self._snapshots.driver,
            driver_status=[*self._snapshots.status, ("Mount Options", ",".join(self._snapshots.mount_options))],
            plugins=PluginsInfo(
                volume=["local"],
                network=["bridge", "host", "ipvlan", "macvlan", "null"],
                log=[name for name in LOG_DRIVERS if name != "none"],
            ),
            memory_limit=limits.memory,
            swap_limit=limits.swap,
            cpu_cfs_period=limits.cpu_quota,
            cpu_cfs_quota=limits.cpu_quota,
            cpu_shares=limits.cpu_shares,
            cpu_set=limits.cpuset,
            pids_limit=limits.pids,
            oom_kill_disable=limits.oom_kill_disable,
            ipv4_forwarding=Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1",
            debug=self.facts.debug,
            n_goroutines=len(asyncio.all_tasks()),
            nfd=len(os.listdir("/proc/self/fd")),
            system_time=rfc3339nano(time.time_ns()),
            logging_driver=self.facts.log_driver or DEFAULT_DRIVER,
            cgroup_version=str(layout.version),
            n_events_listener=self._events.listeners,
            kernel_version=platform.release(),
            operating_system=release.get("PRETTY_NAME", "Linux"),
            os_version=release.get("VERSION_ID", ""),
            architecture=platform.machine(),
            registry_config=registry_config(registries),
            http_proxy=http_proxy,
            https_proxy=https_proxy,
            no_proxy=no_proxy,
            ncpu=limits.cpu_count,
            mem_total=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            docker_root_dir=self.facts.data_root,
            name=os.uname().nodename,
            labels=list(self.facts.labels),
            cdi_spec_dirs=list(self.facts.cdi_spec_dirs),
            discovered_devices=tuple(DeviceInfo(source="cdi", id=name) for name in sorted(found.devices)),
            server_version=ENGINE_VERSION,
            runtimes={"runc": Runtime(path="built-in"), **self.facts.runtimes},
            default_runtime=self.facts.default_runtime,
            live_restore_enabled=self.facts.live_restore,
            firewall_backend=FirewallInfo(driver="nftables") if self.facts.filtered else None,
            security_options=["name=seccomp,profile=builtin", *self._namespaces(layout.version)],
            warnings=self._shown_warnings(limits, layout.version, found.problems) or None,
        )

    def events(self, *, since: int, until: int, filters: Filters) -> AsyncIterator[EventMessage]:
        """Past events from since on, then live ones up to until. Raises InvalidArgument."""
        for key in filters:
            if key not in _EVENT_FILTERS:
                raise InvalidArgument(f"invalid filter '{key}'")
        return self._messages(since, until, filters)

    async def _messages(self, since: int, until: int, filters: Filters) -> AsyncIterator[EventMessage]:
        async for event in self._events.subscribe(filters, since or None, until or None):
            yield message_of(event)
