"""From a container's documents to what the supervisor is asked, and from its errors to docker's words."""

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import msgspec

from sampan.engine.cdi import Edits
from sampan.engine.launch_failures import RUNTIME_CREATE, STARTING, StartFailure
from sampan.errors import InvalidArgument
from sampan.linux import rlimits
from sampan.linux.capabilities import NUMBERS
from sampan.runtime import cgroups, plan
from sampan.runtime.cgroups import Layout, Resources, Throttle
from sampan.spec import gojson
from sampan.spec.docker_api.container import Config, HostConfig, ThrottleDevice, Ulimit
from sampan.spec.seccomp import Profile
from sampan.units import FALSE, TRUE


class LaunchSettings(msgspec.Struct, frozen=True):
    """What daemon.json says of every launch. Microseconds; 0 = as the cgroup above has it."""

    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    cdi_spec_dirs: tuple[str, ...] = ()


NO_EDITS = Edits()
PROFILE_MAX = 512 << 10
"""Of a seccomp profile: docker's own has 13,000 characters, and a filter that the kernel takes has 4096 instructions."""
PROFILE_KEPT_MAX = 64 << 10
"""Of one that is kept as it was read, when it may have eighty times the size."""
DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def command_of(config: Config) -> list[str]:
    """Entrypoint and command, as one argument list."""
    return [*(config.entrypoint or ()), *(config.cmd or ())]


def environment_of(config: Config) -> list[str]:
    """PATH, HOSTNAME and (with a tty) TERM, then the container's own, which win (moby oci defaults, container/env.go)."""
    base = [DEFAULT_PATH, f"HOSTNAME={config.hostname}", *(["TERM=xterm"] if config.tty else [])]
    return override(base, config.env or [])


def override(base: list[str], own: list[str]) -> list[str]:
    """base with the values of own in place, then own's further variables; a name without `=` takes its variable away
    (moby container/env.go ReplaceOrAppendEnvValues)."""
    found = {entry.partition("=")[0]: entry for entry in base}
    for entry in own:
        name, equals, _ = entry.partition("=")
        if equals:
            found[name] = entry
        else:
            found.pop(name, None)
    return list(found.values())


class SecurityOptions:
    """What `--security-opt` says. Raises InvalidArgument in docker's words."""

    def __init__(self, options: list[str]) -> None:
        self.seccomp: dict[str, Any] | Literal["unconfined"] | None = None
        self.no_new_privileges = False
        self.writable_cgroups: bool | None = None
        self.apparmor = ""
        self._label = ""
        for option in options:
            key, separator, value = option.partition("=") if "=" in option else option.partition(":")
            if key == "no-new-privileges":
                self.no_new_privileges = _flag(option, separator, value)
            elif key == "writable-cgroups":
                self.writable_cgroups = _flag(option, separator, value)
            elif option == "disable":
                continue
            elif not separator:
                raise InvalidArgument(f'invalid --security-opt 1: "{option}"')
            elif key == "seccomp":
                self._take_seccomp(value)
            elif key == "apparmor":
                self.apparmor = value
            elif key == "label":
                self._label = self._label if value == "disable" else value
            else:
                raise InvalidArgument(f'invalid --security-opt 2: "{option}"')

    def ignored(self, *, has_apparmor: bool) -> list[str]:
        """Warnings of what this host cannot do: docker ignores it, too, and says nothing."""
        warnings = []
        if self.apparmor not in ("", "unconfined") and not has_apparmor:
            warnings.append(f"The host has no AppArmor: the profile {self.apparmor} is not applied.")
        if self._label:
            warnings.append(f"SELinux is not supported: the label {self._label} is not applied.")
        return warnings

    def _take_seccomp(self, value: str) -> None:
        if value == "unconfined":
            self.seccomp = "unconfined"
        elif value not in ("", "builtin"):
            read = _kept_seccomp_profile if len(value) <= PROFILE_KEPT_MAX else _seccomp_profile
            self.seccomp = read(value)


def _seccomp_profile(text: str) -> dict[str, Any] | Literal["unconfined"]:
    """A profile that says nothing confines nothing (moby profiles/seccomp setupSeccomp). Raises InvalidArgument."""
    if len(text) > PROFILE_MAX:
        raise InvalidArgument(f"Decoding seccomp profile failed: longer than {PROFILE_MAX} characters")
    try:
        profile = gojson.decode(text.encode(errors="replace"), Profile)
    except gojson.GoJsonError as error:
        raise InvalidArgument(f"Decoding seccomp profile failed: {error}") from None
    if not profile.default_action and not profile.syscalls:
        return "unconfined"
    if profile.architectures and profile.arch_map:
        raise _both("architectures", "archMap")
    if any(call.name and call.names for call in profile.syscalls or ()):
        raise _both("name", "names")
    found: dict[str, Any] = msgspec.to_builtins(profile)
    return found


_kept_seccomp_profile = lru_cache(maxsize=8)(_seccomp_profile)  # every exec asks anew


def _both(one: str, other: str) -> InvalidArgument:
    return InvalidArgument(f"both '{one}' and '{other}' are specified in the seccomp profile, use either '{one}' or '{other}'")


def _flag(option: str, separator: str, value: str) -> bool:
    """A security option that is on by its name alone, else as Go's strconv.ParseBool reads its value."""
    if separator and value not in TRUE + FALSE:
        raise InvalidArgument(f'invalid --security-opt 2: "{option}"')
    return not separator or value in TRUE


def capability_names(host: HostConfig) -> tuple[str, ...]:
    """The capabilities a container is to have. Raises InvalidArgument."""
    return plan.resolve_capabilities(host.cap_add or [], host.cap_drop or [], host.privileged)


def _number_of(path: str) -> str:
    """`major:minor` of a block device. Raises StartFailure."""
    try:
        found = os.stat(path)
    except OSError as error:
        raise StartFailure(f"stat {path}: {(error.strerror or '').lower()}", 128) from None
    return f"{os.major(found.st_rdev)}:{os.minor(found.st_rdev)}"


def _throttles_of(host: HostConfig) -> Iterator[tuple[str, Throttle, int]]:
    limits: Mapping[Throttle, list[ThrottleDevice] | None] = {
        "read_bps": host.blkio_device_read_bps,
        "write_bps": host.blkio_device_write_bps,
        "read_iops": host.blkio_device_read_iops,
        "write_iops": host.blkio_device_write_iops,
    }
    return ((_number_of(device.path), what, device.rate) for what, devices in limits.items() for device in devices or ())


def resources_of(host: HostConfig) -> Resources:
    """The limits, in the cgroup layer's form. Raises StartFailure: a block device is not there."""
    return Resources(
        memory=host.memory,
        memory_swap=host.memory_swap,
        memory_reservation=host.memory_reservation,
        memory_swappiness=host.memory_swappiness,
        oom_kill_disable=bool(host.oom_kill_disable),
        cpu_shares=host.cpu_shares,
        cpu_quota=host.cpu_quota,
        cpu_period=host.cpu_period,
        nano_cpus=host.nano_cpus,
        cpu_rt_period=host.cpu_realtime_period,
        cpu_rt_runtime=host.cpu_realtime_runtime,
        cpuset_cpus=host.cpuset_cpus,
        cpuset_mems=host.cpuset_mems,
        pids_limit=host.pids_limit or 0,
        blkio_weight=host.blkio_weight,
        device_weights=tuple((_number_of(device.path), device.weight) for device in host.blkio_weight_device or ()),
        throttles=tuple(_throttles_of(host)),
    )


def _devices(host: HostConfig, edits: Edits) -> tuple[plan.Device, ...]:
    """Those by path, and those by name, which win. A privileged container has those of the host, if they are there at all."""
    found = {}
    for device in host.devices or ():
        path = device.path_in_container or device.path_on_host
        if host.privileged and path == device.path_on_host:
            continue
        found[path] = plan.Device(host_path=device.path_on_host, container_path=path, permissions=device.cgroup_permissions or "rwm")
    return tuple((found | {device.container_path: device for device in edits.devices}).values())


def _share(mode: str) -> plan.Share:
    return "host" if mode == "host" else "fd" if mode.startswith("container:") else "private"


def namespaces_of(host: HostConfig, *, netns: bool) -> plan.Namespaces:
    """Which namespaces are its own. netns: a descriptor of a ready network namespace comes with the launch."""
    return plan.Namespaces(
        net="host" if host.network_mode == "host" else "fd" if netns else "private",
        joins_net=host.network_mode.startswith("container:"),
        pid=_share(host.pid_mode),
        ipc=_share(host.ipc_mode),
        uts="host" if host.uts_mode == "host" else "private",
        cgroup=None if not host.cgroupns_mode else "host" if host.cgroupns_mode == "host" else "private",
    )


def launch_spec(
    container_id: str,
    config: Config,
    host: HostConfig,
    rootfs: plan.Rootfs,
    mounts: list[plan.Mount],
    *,
    cgroup: str,
    netns: bool,
    settings: LaunchSettings,
    edits: Edits = NO_EDITS,
    bundle: str = "",
    userns: plan.UserMaps | None = None,
) -> plan.LaunchSpec:
    """Everything the plan of a container's init process is made of. Raises InvalidArgument, StartFailure."""
    security = SecurityOptions(host.security_opt or [])
    if refused := shares_refused(host.cpu_shares, cgroups.host_layout()):
        raise StartFailure(f"{STARTING}error setting cgroup config for procHooks process: {refused}", 128)
    _check_ulimits(host.ulimits or ())
    size = (host.console_size[0], host.console_size[1])
    edited = {mount.destination for mount in edits.mounts}
    return plan.LaunchSpec(
        id=container_id,
        args=tuple(command_of(config)),
        env=tuple(override(environment_of(config), list(edits.env))),
        cwd=config.working_dir or "/",
        user=config.user,
        groups_add=(*(host.group_add or ()), *map(str, edits.groups)),
        tty=config.tty,
        console_size=size if all(size) else None,
        capabilities=capability_names(host),
        seccomp=security.seccomp,
        no_new_privileges=security.no_new_privileges,
        apparmor=apparmor_profile(security, host),
        rlimits=rlimits_of(host),
        oom_score_adj=host.oom_score_adj,
        rootfs=rootfs,
        cgroup=cgroup,
        parents_real_time=(settings.cpu_rt_period, settings.cpu_rt_runtime),
        hostname=config.hostname,
        domainname=config.domainname,
        mounts=(*(mount for mount in mounts if mount.destination not in edited), *edits.mounts),
        shm_size=host.shm_size,
        shm=host.ipc_mode != "none",
        masked_paths=None if host.masked_paths is None else tuple(host.masked_paths),
        readonly_paths=None if host.readonly_paths is None else tuple(host.readonly_paths),
        devices=_devices(host, edits),
        device_rules=tuple(host.device_cgroup_rules or ()),
        namespaces=namespaces_of(host, netns=netns),
        resources=resources_of(host),
        sysctls=namespaced_sysctls(host),
        init=bool(host.init),
        privileged=host.privileged,
        userns=userns,
        writable_cgroups=security.writable_cgroups,
        hooks=edits.hooks,
        bundle=bundle,
    )


def rlimits_of(host: HostConfig) -> tuple[plan.Rlimit, ...]:
    """Of every process that is started in a container, execs included."""
    return tuple(plan.Rlimit(name=limit.name.lower(), soft=limit.soft, hard=limit.hard) for limit in host.ulimits or ())


def apparmor_profile(security: SecurityOptions, host: HostConfig) -> str:
    """The AppArmor profile of a container's processes: there is none of Sampan's own."""
    return security.apparmor or ("unconfined" if host.privileged else "")


_IPC_SYSCTLS = frozenset(
    f"kernel.{name}" for name in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni", "shm_rmid_forced")
)


def namespaced_sysctls(host: HostConfig) -> dict[str, str]:
    """The sysctls by their dotted names. Raises StartFailure for one that is not the container's own: it would change the host
    (runc libcontainer/configs/validate)."""
    found: dict[str, str] = {}
    for key, value in (host.sysctls or {}).items():
        slash, dot = key.find("/"), key.find(".")
        name = key.translate({ord("."): "/", ord("/"): "."}) if slash >= 0 and (dot < 0 or slash < dot) else key
        problem = f'sysctl "{name}" is not in a separate kernel namespace'
        if any(part in ("", "..") for part in name.split(".")) or ".." in name.replace("/", "."):
            problem = f'sysctl "{name}" is no name of a kernel parameter'
        elif name in _IPC_SYSCTLS or name.startswith("fs.mqueue."):
            problem = "" if host.ipc_mode != "host" else f'sysctl "{name}" is not allowed in the hosts ipc namespace'
        elif name.startswith("net."):
            problem = "" if host.network_mode != "host" else f'sysctl "{name}" not allowed in host network namespace'
        elif name == "kernel.domainname" and host.uts_mode != "host":
            problem = ""
        elif name == "kernel.hostname" and host.uts_mode != "host":
            problem = f'sysctl "{name}" is not allowed as it conflicts with the OCI "hostname" field'
        if problem:
            raise StartFailure(RUNTIME_CREATE + problem, 128)
        found[name] = value
    return found


def shares_refused(shares: int, layout: Layout) -> str:
    """Why runc refuses these CPU shares, "" if it does not: the kernel of cgroup v1 rounds what it does not take."""
    if layout.version == 2 or shares == 0 or 2 <= shares <= 262144:
        return ""
    return "the minimum allowed cpu-shares is 2" if shares < 2 else "the maximum allowed cpu-shares is 262144"


def _check_ulimits(ulimits: Sequence[Ulimit]) -> None:
    """Raises StartFailure."""
    for limit in ulimits:
        if limit.name.lower() not in rlimits.NUMBERS:
            raise StartFailure(f"{RUNTIME_CREATE}wrong rlimit value: RLIMIT_{limit.name.upper()}", 128)


def check_capabilities(host: HostConfig, available: int) -> None:
    """Refuse what the host itself lacks, where the user asked for it by name. Raises InvalidArgument."""
    for name in host.cap_add or ():
        word = name.upper()
        word = word if word.startswith("CAP_") else f"CAP_{word}"
        if word in NUMBERS and not available >> NUMBERS[word] & 1:
            raise InvalidArgument(
                f'invalid CapAdd: capability not supported by your kernel or not available in the current environment: "{word}"'
            )
