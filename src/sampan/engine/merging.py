"""From a create request and an image's defaults to the documents a container keeps. Pure: nothing is touched."""

import re
from collections.abc import Mapping, Sequence

import msgspec

from sampan.engine import health, networkspec
from sampan.engine.limits import HostLimits, check_limits
from sampan.errors import InvalidArgument, NotImplementedYet, SystemFailure
from sampan.logs.options import DEFAULT_DRIVER
from sampan.network.ipam import parse_address
from sampan.network.ports import port_requests
from sampan.spec.docker_api.container import Config, CreateRequest, HostConfig, LogConfig, RestartPolicy, Ulimit
from sampan.spec.docker_api.network import NetworkingConfig
from sampan.spec.oci_image import ContainerConfig
from sampan.units import parse_size

PORTS_DISCARDED = "Published ports are discarded when using host network mode"
_JOINED = re.compile("container:.+", re.DOTALL)
_RESTART_POLICIES = ("", "no", "always", "unless-stopped", "on-failure")


class ContainerDefaults(msgspec.Struct, frozen=True):
    """What daemon.json says of containers."""

    log_driver: str = ""
    """ "" is the engine's own default."""
    log_opts: Mapping[str, str] = {}
    shm_size: int = 64 << 20
    ipc_mode: str = "private"
    cgroupns_mode: str = "host"
    privileged_cgroupns_mode: str = "host"
    """Of privileged containers."""
    ulimits: Sequence[Ulimit] = ()
    init: bool = False
    no_new_privileges: bool = False
    timezone: str = ""
    storage_size: int = 0
    """Bytes that one may write into its tree; 0: any."""


def merge_env(image: list[str], wanted: list[str]) -> list[str]:
    """The user's variables, then those of the image that the user did not name (moby daemon/commit.go merge)."""
    names = {entry.partition("=")[0] for entry in wanted}
    return [*wanted, *(entry for entry in image if entry.partition("=")[0] not in names)]


def _without_zone(env: list[str], host: HostConfig | None) -> list[str]:
    """An image's variables: without TZ, which would win over the time zone asked for."""
    return env if host is None or not host.timezone else [entry for entry in env if not entry.startswith("TZ=")]


def merge_config(request: CreateRequest, image: ContainerConfig, hostname: str) -> Config:
    """The container's Config: the request's fields over the image's. Raises InvalidArgument: no command, or a bad health check."""
    health.validate(request.healthcheck)
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
        env=merge_env(_without_zone(image.env or [], request.host_config), request.env or []),
        entrypoint=entrypoint or None,
        cmd=cmd or None,
        working_dir=request.working_dir or image.working_dir,
        labels={**(image.labels or {}), **(request.labels or {})},
        exposed_ports={**(image.exposed_ports or {}), **(request.exposed_ports or {})} or None,
        volumes={**(image.volumes or {}), **(request.volumes or {})} or None,
        stop_signal=request.stop_signal or image.stop_signal,
        shell=request.shell or image.shell,
        on_build=request.on_build or image.on_build,
        healthcheck=health.inherited(request.healthcheck, image.healthcheck),
    )
    return Config(**shown)


def _refuse_missing(config: Config, host: HostConfig, networking: NetworkingConfig | None) -> None:
    """What docker has and Sampan does not, yet: said, never ignored."""
    networkspec.check_mac(config.mac_address)
    _check_endpoints(host, networking)
    storage_size(host.storage_opt or {})
    missing: Mapping[str, object] = {
        "user namespace modes other than host": host.userns_mode not in ("", "host"),
    }
    for feature, asked in missing.items():
        if asked:
            raise NotImplementedYet(f"{feature}: not implemented by Sampan yet")


def storage_size(options: Mapping[str, str]) -> int | None:
    """What a container may write into its tree, in bytes; None where nothing is said of it. Raises SystemFailure, as docker does."""
    size = None
    for key, text in options.items():
        if key.lower() != "size":
            raise SystemFailure(f"Unknown option {key.lower()}")
        try:
            size = parse_size(text)
        except ValueError as error:
            raise SystemFailure(str(error)) from None
        if size < 0:  # more than there can be
            raise SystemFailure(f"invalid size: '{text}'")
    return size


def _check_endpoints(host: HostConfig, networking: NetworkingConfig | None) -> None:
    """Addresses may be asked for on networks of the user's own only (moby libnetwork, daemon/container_operations.go)."""
    for name, endpoint in ((networking.endpoints_config if networking else None) or {}).items():
        try:
            networkspec.check_mac(endpoint.mac_address if endpoint is not None else "")
        except InvalidArgument as error:
            shown = "bridge" if name in ("", "default") else name
            raise InvalidArgument(f"invalid config for network {shown}: {error.message}") from None
        wanted = endpoint.ipam_config if endpoint else None
        if wanted is not None and (wanted.ipv4_address or wanted.ipv6_address) and name in ("", "default", "bridge", "host", "none"):
            raise InvalidArgument(
                f"invalid config for network {'bridge' if name in ('', 'default') else name}: invalid endpoint settings:\n"
                "* user specified IP address is supported on user defined networks only\n"
                "* user specified IP address is supported only when connecting to networks with user configured subnets"
            )


def merge_networking(networking: NetworkingConfig | None) -> NetworkingConfig:
    """What is asked for on networks; nothing of any is that of the network mode."""
    return networking if networking is not None and networking.endpoints_config else NetworkingConfig()


def _check_modes(config: Config, host: HostConfig) -> None:
    """Options that exclude each other (moby runconfig/hostconfig_unix.go)."""
    network = host.network_mode
    if network.startswith("container:"):
        _check_shared_network(config, host)
    if network == "host" and host.links:
        raise InvalidArgument("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
    if host.ipc_mode not in ("", "none", "private", "shareable", "host") and not _JOINED.fullmatch(host.ipc_mode):
        raise InvalidArgument(f"invalid IPC mode: {host.ipc_mode}")
    if host.pid_mode not in ("", "host") and not _JOINED.fullmatch(host.pid_mode):
        raise InvalidArgument(f"invalid PID mode: {host.pid_mode}")
    if host.uts_mode not in ("", "host"):
        raise InvalidArgument(f"invalid UTS mode: {host.uts_mode}")
    if host.uts_mode == "host" and config.hostname:
        raise InvalidArgument("conflicting options: hostname and the UTS mode")
    if host.isolation not in ("", "default"):
        raise InvalidArgument(f"invalid isolation ({host.isolation}): linux only supports 'default'")
    if host.cgroupns_mode not in ("", "private", "host"):
        raise InvalidArgument(f"invalid cgroup namespace mode: {host.cgroupns_mode}")
    if "" in (host.annotations or {}):
        raise InvalidArgument("invalid Annotations: the empty string is not permitted as an annotation key")
    check_restart_policy(host)
    for item in host.extra_hosts or ():
        _check_extra_host(item)
    if config.working_dir and not config.working_dir.startswith("/"):
        raise InvalidArgument(f"the working directory '{config.working_dir}' is invalid, it needs to be an absolute path")


def check_restart_policy(host: HostConfig) -> None:
    """Raise InvalidArgument in docker's words for a policy that is none (moby api/types/container ValidateRestartPolicy)."""
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


def _check_extra_host(item: str) -> None:
    """`name:address`, or host-gateway for the address."""
    name, separator, address = item.partition(":")
    if not (name and separator):
        raise InvalidArgument(f'bad format for add-host: "{item}"')
    try:
        is_valid = address == "host-gateway" or bool(parse_address(address))
    except ValueError:
        is_valid = False
    if not is_valid:
        raise InvalidArgument(f'invalid IP address in add-host: "{address}"')


def check_host(host: HostConfig, limits: HostLimits) -> list[str]:
    """Warnings of what a container of any config would have left out of it. Raises InvalidArgument, NotImplementedYet."""
    _check_modes(Config(), host)
    _refuse_missing(Config(), host, None)
    return check_limits(host, limits)[1]


def _check_shared_network(config: Config, host: HostConfig) -> None:
    """What a container in another's netns cannot have of its own (moby runconfig/hostconfig_unix.go validateNetMode)."""
    if not host.network_mode.partition(":")[2]:
        raise InvalidArgument("invalid container format container:<name|id>")
    taken = {
        "hostname and the network mode": config.hostname,
        "link can't be used with container network mode": host.links,
        "dns and the network mode": host.dns,
        "custom host-to-IP mapping and the network mode": host.extra_hosts,
        "mac-address and the network mode": config.mac_address,
        "port publishing and the container type network mode": host.port_bindings or host.publish_all_ports,
        "port exposing and the container type network mode": config.exposed_ports,
    }
    for words, asked in taken.items():
        if asked:
            raise InvalidArgument(f"conflicting options: {words}")


def merge_host_config(
    request: CreateRequest,
    config: Config,
    *,
    defaults: ContainerDefaults,
    limits: HostLimits,
) -> tuple[HostConfig, list[str]]:
    """The container's HostConfig with docker's defaults filled in, and warnings. Raises InvalidArgument, NotImplementedYet."""
    host = request.host_config or HostConfig()
    _check_modes(request, host)
    host, warnings = check_limits(host, limits)
    _refuse_missing(config, host, request.networking_config)
    port_requests((), host.port_bindings, False)  # refuses what start could only fail at
    driver = host.log_config.type or defaults.log_driver
    is_daemons = (driver or DEFAULT_DRIVER) == (defaults.log_driver or DEFAULT_DRIVER)
    inherited = defaults.log_opts if is_daemons else {}
    log = LogConfig(type=driver, config={**inherited, **(host.log_config.config or {})})
    swap = host.memory_swap
    if host.memory and not swap:
        swap = 2 * host.memory
    if host.network_mode == "host" and host.port_bindings:
        warnings.append(PORTS_DISCARDED)
    security = host.security_opt
    if host.privileged and "label=disable" not in (security or ()):
        security = [*(security or ()), "label=disable"]
    if defaults.no_new_privileges and not any(option.startswith("no-new-privileges") for option in security or ()):
        security = [*(security or ()), "no-new-privileges"]
    own_limits = {limit.name for limit in host.ulimits or ()}
    merged = msgspec.structs.replace(
        host,
        log_config=log,
        memory_swap=swap,
        network_mode="bridge" if host.network_mode in ("", "default") else host.network_mode,
        restart_policy=RestartPolicy(name=host.restart_policy.name or "no", maximum_retry_count=host.restart_policy.maximum_retry_count),
        ipc_mode=host.ipc_mode or defaults.ipc_mode,
        cgroupns_mode=host.cgroupns_mode or (defaults.privileged_cgroupns_mode if host.privileged else defaults.cgroupns_mode),
        ulimits=[*(host.ulimits or ()), *(limit for limit in defaults.ulimits if limit.name not in own_limits)] or host.ulimits,
        shm_size=host.shm_size or defaults.shm_size,
        pids_limit=host.pids_limit if host.pids_limit and host.pids_limit > 0 else None,
        memory_swappiness=None if host.memory_swappiness == -1 else host.memory_swappiness,
        binds=host.binds or None,
        port_bindings=host.port_bindings or {},
        init=(defaults.init or None) if host.init is None else host.init,
        security_opt=security,
        timezone=host.timezone or defaults.timezone,
    )
    return merged, warnings
