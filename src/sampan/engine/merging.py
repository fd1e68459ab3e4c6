"""From a create request and an image's defaults to the documents a container keeps. Pure: nothing is touched."""

from collections.abc import Mapping

import msgspec

from sampan.errors import InvalidArgument, NotImplementedYet
from sampan.spec.docker_api.container import Config, CreateRequest, HealthConfig, HostConfig, LogConfig, RestartPolicy
from sampan.spec.oci_image import ContainerConfig

MIN_MEMORY = 6 * 1024 * 1024
STOP_SIGNAL_DEFAULT = "SIGTERM"
_RESTART_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")


def merge_env(image: list[str], wanted: list[str]) -> list[str]:
    """The image's variables, then the user's; the user's win by name, and a name without `=` removes the variable."""
    names = {entry.partition("=")[0] for entry in wanted}
    return [*(entry for entry in image if entry.partition("=")[0] not in names), *(entry for entry in wanted if "=" in entry)]


def merge_config(request: CreateRequest, image: ContainerConfig, hostname: str) -> Config:
    """The container's Config: the request's fields over the image's. Raises InvalidArgument when there is no command."""
    entrypoint, cmd = request.entrypoint, request.cmd
    if not entrypoint:
        # A user's own command never goes to an entrypoint the user emptied; the image's does only with the image's command or a user's.
        if not cmd:
            cmd = image.cmd
        if entrypoint is None:
            entrypoint = image.entrypoint
    if entrypoint == [""]:
        entrypoint = None
    if not (entrypoint or cmd):
        raise InvalidArgument("no command specified")
    shown = {field: getattr(request, field) for field in Config.__struct_fields__}
    shown.update(
        hostname=request.hostname or hostname,
        user=request.user or image.user,
        env=merge_env(image.env or [], request.env or []),
        entrypoint=entrypoint or None,
        cmd=cmd or None,
        working_dir=request.working_dir or image.working_dir,
        labels={**(image.labels or {}), **(request.labels or {})},
        exposed_ports={**(image.exposed_ports or {}), **(request.exposed_ports or {})} or None,
        volumes={**(image.volumes or {}), **(request.volumes or {})} or None,
        stop_signal=request.stop_signal or image.stop_signal,
        shell=request.shell or image.shell,
        on_build=request.on_build or image.on_build,
    )
    return Config(**shown)


def _refuse_missing(config: Config, host: HostConfig) -> None:
    """What docker has and Sampan does not, yet: said, never ignored."""
    health: HealthConfig | None = config.healthcheck
    missing: Mapping[str, object] = {
        "health checks": health is not None and health.test and health.test != ["NONE"],
        "volumes-from": host.volumes_from,
        "links": host.links,
        "device requests (GPUs)": host.device_requests,
        "user namespaces": host.userns_mode not in ("", "host"),
        "storage options": host.storage_opt,
        "runtimes other than the built-in one": host.runtime not in ("", "runc"),
        "volume drivers": host.volume_driver not in ("", "local"),
        "per-device block-I/O limits": (
            host.blkio_weight_device
            or host.blkio_device_read_bps
            or host.blkio_device_write_bps
            or host.blkio_device_read_iops
            or host.blkio_device_write_iops
        ),
        "real-time CPU limits": host.cpu_realtime_period or host.cpu_realtime_runtime,
        "anonymous volumes": config.volumes,
    }
    for feature, asked in missing.items():
        if asked:
            raise NotImplementedYet(f"{feature}: not implemented by Sampan yet")


def _check_memory(host: HostConfig, cpus: int) -> None:
    if host.memory and host.memory < MIN_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory_reservation and host.memory_reservation < MIN_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if host.memory and host.memory_reservation > host.memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.memory and 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not host.memory and host.memory_swap > 0:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if host.nano_cpus:
        if host.cpu_period:
            raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
        if host.cpu_quota:
            raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
        if not 0 < host.nano_cpus <= cpus * 10**9:
            raise InvalidArgument(f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")


def _check_modes(config: Config, host: HostConfig) -> None:
    """Options that exclude each other (moby runconfig/hostconfig_unix.go)."""
    network = host.network_mode
    if network.startswith("container:"):
        raise NotImplementedYet("container network mode: not implemented by Sampan yet")
    if network not in ("", "default", "bridge", "host", "none"):
        raise NotImplementedYet(f"network {network}: user-defined networks are not implemented by Sampan yet")
    if network == "host" and host.links:
        raise InvalidArgument("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
    for what, mode in (("ipc", host.ipc_mode), ("pid", host.pid_mode)):
        if mode.startswith("container:"):
            raise NotImplementedYet(f"{what} mode {mode}: not implemented by Sampan yet")
    if host.ipc_mode not in ("", "none", "private", "shareable", "host"):
        raise InvalidArgument(f"invalid IPC mode: {host.ipc_mode}")
    if host.pid_mode not in ("", "host"):
        raise InvalidArgument(f"invalid PID mode: {host.pid_mode}")
    if host.uts_mode not in ("", "host"):
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}")
    if host.cgroupns_mode not in ("", "private", "host"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    policy = host.restart_policy
    if policy.name not in _RESTART_POLICIES:
        raise InvalidArgument(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.maximum_retry_count and policy.name in ("", "no", "always", "unless-stopped"):
        raise InvalidArgument("invalid restart policy: maximum retry count can only be used with 'on-failure'")
    if policy.maximum_retry_count < 0:
        raise InvalidArgument("invalid restart policy: maximum retry count cannot be negative")
    if host.auto_remove and policy.name not in ("", "no"):
        raise InvalidArgument("can't create 'AutoRemove' container with restart policy")
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")


def merge_host_config(
    request: CreateRequest, config: Config, *, log_driver: str, log_opts: Mapping[str, str], shm_size: int, cpus: int, init: bool | None
) -> HostConfig:
    """The container's HostConfig with docker's defaults filled in. Raises InvalidArgument, NotImplementedYet."""
    host = request.host_config or HostConfig()
    _check_modes(config, host)
    _check_memory(host, cpus)
    _refuse_missing(config, host)
    log = host.log_config
    if not log.type:
        log = LogConfig(type=log_driver, config=dict(log.config or log_opts))
    else:
        log = LogConfig(type=log.type, config=dict(log.config or {}))
    swap = host.memory_swap
    if host.memory and not swap:
        swap = 2 * host.memory
    return msgspec.structs.replace(
        host,
        log_config=log,
        memory_swap=swap,
        network_mode="bridge" if host.network_mode in ("", "default") else host.network_mode,
        restart_policy=RestartPolicy(name=host.restart_policy.name or "no", maximum_retry_count=host.restart_policy.maximum_retry_count),
        ipc_mode=host.ipc_mode or "private",
        shm_size=host.shm_size or shm_size,
        pids_limit=host.pids_limit if host.pids_limit and host.pids_limit > 0 else None,
        memory_swappiness=None if host.memory_swappiness == -1 else host.memory_swappiness,
        binds=host.binds or None,
        port_bindings=host.port_bindings or {},
        init=init if host.init is None else host.init,
    )
