"""sampand's configuration: flags and daemon.json, merged and checked before anything is touched.

Rules of docker (daemon/config): a key given both as a flag and in the file is refused, so is an unknown key or a wrong type; the
sentences are docker's own, with the place in the file added. A key of a feature Sampan lacks is accepted with its default value,
and refused with any other: a setting that is silently ignored is worse than a daemon that does not start. So each key is read, or in
MISSING, or in ALWAYS_SO.
"""

import hashlib
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from sampan.daemon import daemonjson, flags, networkconfig, runtimes, storageopts
from sampan.daemon.convert import Ulimit, ValueProblem, from_json, from_texts, shown
from sampan.daemon.daemonjson import FILE_PROBLEM, ConfigError
from sampan.daemon.hosts import problem_of_host
from sampan.daemon.jsonfile import JsonError, Parser
from sampan.daemon.options import BY_KEY, DEFAULT_BRIDGE, DEFAULT_CONFIG_FILE, DEFAULT_DATA_ROOT, DEFAULT_EXEC_ROOT, DEFAULT_GROUP, usage
from sampan.engine import timezones
from sampan.engine.limits import HostLimits, host_limits
from sampan.errors import EngineError
from sampan.logs.options import DRIVERS as LOG_DRIVERS
from sampan.logs.options import validate as validate_logs
from sampan.mirrors import problem_of_mirror, problem_of_registry
from sampan.proxies import Proxies
from sampan.runtime.cgroups import Layout, host_layout
from sampan.version import API_VERSION, VERSION

LOG_LEVELS: Final = {
    "trace": logging.DEBUG, "debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "warning": logging.WARNING,
    "error": logging.ERROR, "fatal": logging.CRITICAL, "panic": logging.CRITICAL,
}  # fmt: skip
DOMAIN: Final = re.compile(r"^([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?\.?)+$|^\.$")
CDI_SPEC_DIRS: Final = ("/etc/cdi", "/var/run/cdi")


class DaemonConfig(msgspec.Struct, frozen=True, rename="kebab", kw_only=True):
    """All keys of docker's daemon.json (v28), `mirrors` and `registry`, with Sampan's defaults. Sizes in bytes, times in seconds."""

    allow_direct_routing: bool = False
    authorization_plugins: tuple[str, ...] = ()
    bip: str = ""
    bip6: str = ""
    bridge: str = DEFAULT_BRIDGE
    builder: Mapping[str, Any] = {}
    cdi_spec_dirs: tuple[str, ...] = ()
    """After parse_command_line: docker's own unless told otherwise; none where an empty one is named, or by the feature `cdi`."""
    cgroup_parent: str = ""
    containerd: str = ""
    containerd_namespace: str = "moby"
    containerd_plugin_namespace: str = "plugins.moby"
    cpu_rt_period: int = 0
    cpu_rt_runtime: int = 0
    cri_containerd: bool = False
    data_root: str = DEFAULT_DATA_ROOT
    debug: bool = False
    default_address_pools: tuple[Mapping[str, Any], ...] = ()
    default_cgroupns_mode: str = ""
    """"" = docker's choice: host on cgroup v1, private on v2."""
    default_gateway: str = ""
    default_gateway_v6: str = ""
    default_ipc_mode: str = "private"
    default_network_opts: Mapping[str, Mapping[str, str]] = {}
    default_runtime: str = "runc"
    default_shm_size: int = 64 << 20
    default_timezone: str = ""
    """Sampan's own: --tz of containers that are given none."""
    default_ulimits: Mapping[str, Ulimit] = {}
    dns: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    exec_opts: tuple[str, ...] = ()
    exec_root: str = DEFAULT_EXEC_ROOT
    experimental: bool = False
    features: Mapping[str, bool] = {}
    fixed_cidr: str = ""
    fixed_cidr_v6: str = ""
    group: str = DEFAULT_GROUP
    hosts: tuple[str, ...] = ()
    """Never empty after parse_command_line: unix://<exec-root>/sampan.sock unless told otherwise."""
    host_gateway_ips: tuple[str, ...] = ()
    http_proxy: str = ""
    https_proxy: str = ""
    no_proxy: str = ""
    proxies: Mapping[str, Any] = {}
    icc: bool = True
    init: bool = False
    init_path: str = ""
    insecure_registries: tuple[str, ...] = ()
    ip: str = "0.0.0.0"
    ip_forward: bool = True
    ip_forward_no_drop: bool = False
    ip_masq: bool = True
    ip6tables: bool = True
    iptables: bool = True
    ipv6: bool = False
    labels: tuple[str, ...] = ()
    live_restore: bool = True
    log_driver: str = ""
    """ "" is the engine's own: shown as json-file, kept in segments with a bound."""
    log_format: str = "text"
    log_level: str = "info"
    log_opts: Mapping[str, str] = {}
    max_concurrent_downloads: int = 3
    max_concurrent_uploads: int = 5
    max_download_attempts: int = 5
    metrics_addr: str = ""
    mirrors: Mapping[str, tuple[str, ...]] = {}
    """Sampan's own: mirrors of any registry, by its name."""
    mtu: int = 1500
    network_control_plane_mtu: int = 1500
    no_new_privileges: bool = False
    node_generic_resources: tuple[str, ...] = ()
    pidfile: str = ""
    """Never empty after parse_command_line: <exec-root>/sampand.pid unless told otherwise."""
    raw_logs: bool = False
    registry: Mapping[str, Any] = {}
    """Sampan's own: a registry within sampand, by the settings of `sampan registry serve`. Empty: none."""
    registry_mirrors: tuple[str, ...] = ()
    resolv_conf: str = ""
    rootless: bool = False
    runtimes: Mapping[str, Mapping[str, Any]] = {}
    seccomp_profile: str = "builtin"
    selinux_enabled: bool = False
    shutdown_timeout: int = 15
    storage_driver: str = ""
    storage_opts: tuple[str, ...] = ()
    swarm_default_advertise_addr: str = ""
    tls: bool | None = None
    """None: nothing was said. True also where anything was said of tlsverify."""
    tlscacert: str = ""
    tlscert: str = ""
    tlskey: str = ""
    tlsverify: bool | None = None
    """As tls where nothing was said."""
    userland_proxy: bool = True
    userland_proxy_path: str = ""
    userns_remap: str = ""
    config_file: str = DEFAULT_CONFIG_FILE


MISSING: Final[Mapping[str, str]] = {
    "allow-direct-routing": "direct routing to published ports",
    "authorization-plugins": "authorization plugins",
    "builder": "settings of BuildKit (Sampan builds images itself)",
    "containerd": "containerd (Sampan runs containers itself)",
    "containerd-namespace": "containerd (Sampan runs containers itself)",
    "containerd-plugin-namespace": "containerd (Sampan runs containers itself)",
    "cri-containerd": "containerd (Sampan runs containers itself)",
    "default-gateway": "another gateway than the bridge",
    "default-gateway-v6": "another gateway than the bridge",
    "experimental": "experimental features",
    "init-path": "another init binary",
    "network-control-plane-mtu": "swarm mode",
    "node-generic-resources": "swarm mode",
    "resolv-conf": "another resolv.conf",
    "rootless": "rootless mode",
    "seccomp-profile": "another default seccomp profile (use run --security-opt)",
    "selinux-enabled": "SELinux labels",
    "swarm-default-advertise-addr": "swarm mode",
    "userland-proxy-path": "another proxy binary",
}
"""What daemon.json can ask of docker and not, yet, of Sampan: any value but the default is refused."""

ALWAYS_SO: Final[Mapping[str, str]] = {
    "ip-forward-no-drop": "the policy of the host's FORWARD chain is never changed",
    "ip6tables": "IPv6 has the same rules as IPv4 where there are any: `iptables` is for both",
    "raw-logs": "the daemon's messages have full timestamps and no colours",
}
"""What daemon.json can ask for that Sampan does whatever it says, and why."""


def parse_command_line(argv: Sequence[str]) -> DaemonConfig:
    """sampand's configuration from its arguments (without the program's name) and the file they name.

    Prints and leaves with status 0 for --help, --version and --validate; on a mistake one line on stderr and status 1.
    """
    try:
        given = flags.parse(argv)
        if given.alone("help"):
            print(usage())
            raise SystemExit(0)
        if given.alone("version"):
            print(f"Sampan version {VERSION}, API {API_VERSION}")
            raise SystemExit(0)
        config = merge(given)
    except (ConfigError, flags.FlagError) as exc:
        print(exc, file=sys.stderr)
        raise SystemExit(1) from exc
    if given.alone("validate"):
        print("configuration OK")
        raise SystemExit(0)
    return config


class Known(NamedTuple):
    """What can be known of an engine's configuration."""

    config: DaemonConfig
    problem: str = ""
    """What is wrong with the file, as sampand would say it"""
    places: bool = True
    """Whether the roots are surely those of the engine"""


def known(argv: Sequence[str]) -> Known:
    """The configuration as far as it can be read, for who must end an engine whatever its file says. Leaves with 1 for wrong flags."""
    try:
        given = flags.parse(argv)
    except flags.FlagError as exc:
        print(exc, file=sys.stderr)
        raise SystemExit(1) from exc
    try:
        return Known(merge(given))
    except ConfigError as exc:
        problem = str(exc)
    path = given.config_file or DEFAULT_CONFIG_FILE
    values: dict[str, Any] = {}
    places = {"data-root", "exec-root"} <= given.values.keys()
    try:
        document = Parser(daemonjson.read(path, wanted=False)).document()
        if isinstance(document, dict):
            places = True
            for key in document.keys() & BY_KEY.keys():
                try:
                    values[key] = from_json(BY_KEY[key], document[key])
                except ValueProblem:
                    places = places and key not in ("data-root", "exec-root")
    except (ConfigError, JsonError):
        pass  # no key of it can be told
    values = {key: value for key, value in values.items() if value is not None}
    values |= {key: from_texts(BY_KEY[key], texts) for key, texts in given.values.items()}
    fields = {key.replace("-", "_"): value for key, value in values.items()}
    return Known(complete(DaemonConfig(**fields, config_file=path)), problem, places)


def read_again(argv: Sequence[str]) -> DaemonConfig:
    """The configuration as it would be at a start now. Raises ConfigError."""
    return merge(flags.parse(argv))


def log_level(config: DaemonConfig) -> int:
    """The level of Python's logging."""
    return logging.DEBUG if config.debug else LOG_LEVELS[config.log_level]


def merge(given: flags.Flags) -> DaemonConfig:
    """Flags over file over defaults. Raises ConfigError."""
    path = given.config_file or DEFAULT_CONFIG_FILE
    file = daemonjson.parse(path, daemonjson.read(path, wanted=given.config_file is not None))
    from_flags = {key: from_texts(BY_KEY[key], texts) for key, texts in given.values.items()}
    twice = sorted(key for key in from_flags if key in file.values and key != "runtimes")
    if twice:
        pairs = ", ".join(
            f"{key}: (from flag: {shown(BY_KEY[key], from_flags[key], given.values[key])}, from file: {shown(BY_KEY[key], file.raw[key])})"
            for key in twice
        )
        places = ", ".join(f"{key}: {file.where(key)}" for key in twice)
        text = f"the following directives are specified both as a flag and in the configuration file: {pairs} ({places})"
        raise ConfigError(FILE_PROBLEM.format(path) + text)
    if "runtimes" in from_flags:
        from_flags["runtimes"] |= file.values.get("runtimes", {})
    fields = {key.replace("-", "_"): value for key, value in {**file.values, **from_flags}.items()}
    config = complete(DaemonConfig(**fields, config_file=path))
    for check in (check_values, check_modes, check_missing):
        try:
            check(config)
        except KeyProblem as exc:
            if exc.key in file.values:
                text = f"merged configuration validation from file and command line flags failed: {exc} ({exc.key}: {file.where(exc.key)})"
                raise ConfigError(FILE_PROBLEM.format(path) + text) from exc
            raise ConfigError(f"{exc} (--{BY_KEY[exc.key].flag})") from exc
    return config


def complete(config: DaemonConfig) -> DaemonConfig:
    """Fill in what depends on other keys: a daemon with its own exec-root gets its own socket and pid file."""
    hosts = tuple(host if "://" in host else f"tcp://{host}" for host in config.hosts)
    tls = True if config.tlsverify is not None else config.tls
    named = config.cdi_spec_dirs or CDI_SPEC_DIRS
    return msgspec.structs.replace(
        config,
        cdi_spec_dirs=tuple(filter(None, named)) if config.features.get("cdi", True) else (),
        hosts=hosts or (f"unix://{config.exec_root}/sampan.sock",),
        pidfile=config.pidfile or f"{config.exec_root}/sampand.pid",
        log_level="debug" if config.debug else config.log_level,
        tls=tls,
        tlsverify=tls if config.tlsverify is None else config.tlsverify,
    )


def cgroup_parent(config: DaemonConfig) -> str:
    """The cgroup below which this engine's containers live, without a leading slash.

    The key `cgroup-parent`; else the delegated unit that started us (SAMPAN_CGROUP_PARENT); else `sampan`, with a part that tells
    engines on other data roots apart.
    """
    chosen = config.cgroup_parent or os.environ.get("SAMPAN_CGROUP_PARENT", "")
    if chosen.strip("/"):
        return chosen.strip("/")
    if config.data_root == DEFAULT_DATA_ROOT:
        return "sampan"
    return f"sampan-{hashlib.sha256(os.path.realpath(config.data_root).encode()).hexdigest()[:8]}"


def pool_sizes(config: DaemonConfig) -> tuple[tuple[str, int], ...]:
    """The address pools of networks: (base, prefix length)."""
    return networkconfig.pools_of(config.default_address_pools)


def engine_cgroup(config: DaemonConfig) -> str:
    """The cgroup of keeper and supervisor: beside the containers', or inside the delegated unit, outside of which all is systemd's."""
    parent = cgroup_parent(config)
    return f"{parent}/engine" if "/" in parent else f"{parent}.engine"


class KeyProblem(Exception):
    """The value of `key` cannot be used."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


def check_mirrors(config: DaemonConfig) -> None:
    """Refuse what cannot be a mirror's address, or a registry's name."""
    for mirror in config.registry_mirrors:
        if problem := problem_of_mirror(mirror):
            raise KeyProblem("registry-mirrors", problem)
    for registry, mirrors in config.mirrors.items():
        if problem := problem_of_registry(registry) or next(filter(None, map(problem_of_mirror, mirrors)), ""):
            raise KeyProblem("mirrors", problem)


def check_proxies(config: DaemonConfig) -> None:
    """Refuse what cannot be a proxy; one of the environment is refused to whom it would serve."""
    for key, proxies in (
        ("http-proxy", Proxies(http=config.http_proxy)),
        ("https-proxy", Proxies(https=config.https_proxy)),
        ("proxies", Proxies.of({}, config.proxies)),
    ):
        if problem := proxies.problem():
            raise KeyProblem(key, problem)


def check_registry(config: DaemonConfig) -> None:
    """Refuse what `sampan registry serve` would."""
    if config.registry:
        from sampan.registry.config import embedded  # only where there is one

        try:
            embedded(config.registry, config.data_root)
        except EngineError as error:
            raise KeyProblem("registry", error.message) from None


def check_values(config: DaemonConfig) -> None:
    """Numbers, addresses and labels, in docker's words (config.Validate)."""
    for label in config.labels:
        if "=" not in label.strip("="):
            raise KeyProblem("labels", f"bad attribute format: {label}")
    for domain in config.dns_search:
        if len(domain) > 255 or not DOMAIN.match(domain):
            raise KeyProblem("dns-search", f"{domain} is not a valid domain")
    check_mirrors(config)
    check_proxies(config)
    check_registry(config)
    try:
        runtimes.settings(config.runtimes, config.default_runtime)
    except runtimes.RuntimeProblem as exc:
        raise KeyProblem(exc.key, str(exc)) from exc
    if config.mtu < 0:
        raise KeyProblem("mtu", f"invalid default MTU: {config.mtu}")
    for key, what in (("downloads", "max concurrent downloads"), ("uploads", "max concurrent uploads")):
        number = getattr(config, f"max_concurrent_{key}")
        if number < 0:
            raise KeyProblem(f"max-concurrent-{key}", f"invalid {what}: {number}")
    if config.max_download_attempts <= 0:
        raise KeyProblem("max-download-attempts", f"invalid max download attempts: {config.max_download_attempts}")
    try:
        for key, version in (("bip", 4), ("fixed-cidr", 4), ("bip6", 6), ("fixed-cidr-v6", 6)):
            networkconfig.check_address(key, getattr(config, key.replace("-", "_")), version)
        networkconfig.check_part("fixed-cidr", config.fixed_cidr, config.bip)
        networkconfig.check_part("fixed-cidr-v6", config.fixed_cidr_v6, config.bip6)
        networkconfig.check_host_gateways(config.host_gateway_ips)
        pool_sizes(config)
    except networkconfig.NetworkProblem as exc:
        raise KeyProblem(exc.key, str(exc)) from exc
    for key in ("data-root", "exec-root"):
        if not getattr(config, key.replace("-", "_")).startswith("/"):
            raise KeyProblem(key, f"{key} must be an absolute path: {getattr(config, key.replace('-', '_'))}")
    for host in config.hosts:
        if problem := problem_of_host(host, tls=config.tls):
            raise KeyProblem("hosts", problem)
    if config.metrics_addr and (problem := problem_of_host(f"tcp://{config.metrics_addr}", tls=False)):
        raise KeyProblem("metrics-addr", problem)


def check_modes(config: DaemonConfig) -> None:
    """Words out of a fixed set, in docker's words where docker has them."""
    if config.log_level not in LOG_LEVELS:
        raise KeyProblem("log-level", f"invalid logging level: {config.log_level}")
    if config.log_format not in ("text", "json"):
        raise KeyProblem("log-format", f"invalid log format: {config.log_format}")
    if config.log_driver not in ("", *LOG_DRIVERS):
        raise KeyProblem("log-driver", f"logger: no log driver named '{config.log_driver}' is registered")
    try:
        validate_logs(config.log_driver, config.log_opts)
    except EngineError as error:
        raise KeyProblem("log-opts", error.message) from None
    if config.default_cgroupns_mode not in ("", "host", "private"):
        raise KeyProblem(
            "default-cgroupns-mode", f'invalid default cgroup namespace ({config.default_cgroupns_mode}): use "host" or "private"'
        )
    if config.default_ipc_mode not in ("private", "shareable"):
        raise KeyProblem(
            "default-ipc-mode", f'default IPC mode setting ({config.default_ipc_mode}) is invalid; use "shareable" or "private"'
        )
    try:
        timezones.check(config.default_timezone)
    except EngineError as error:
        raise KeyProblem("default-timezone", error.message) from None
    if config.storage_driver not in ("", "overlay", "overlay2", "erofs"):
        raise KeyProblem("storage-driver", f"driver not supported: {config.storage_driver} (Sampan has erofs and overlay2)")
    try:
        storageopts.default_size(config.storage_opts)
    except ValueError as exc:
        raise KeyProblem("storage-opts", str(exc)) from exc
    check_real_time(config, host_layout(), host_limits())
    for option in config.exec_opts:
        if option not in ("native.cgroupdriver=cgroupfs", "native.cgroupdriver="):
            raise KeyProblem("exec-opts", f"invalid exec-opt: {option}: Sampan has native.cgroupdriver=cgroupfs")


def check_real_time(config: DaemonConfig, layout: Layout, limits: HostLimits) -> None:
    """Refuse what the kernel cannot do, in docker's words."""
    reason = "not implemented for cgroup v2" if layout.version == 2 else "" if limits.real_time else "not supported by the kernel"
    for key in ("cpu-rt-period", "cpu-rt-runtime"):
        if getattr(config, key.replace("-", "_")) and reason:
            raise KeyProblem(key, f"daemon-scoped cpu-rt-period and cpu-rt-runtime are {reason}")


def check_missing(config: DaemonConfig) -> None:
    """Refuse what would be silently ignored otherwise. Names the feature."""
    for key, feature in MISSING.items():
        name = key.replace("-", "_")
        default = getattr(DEFAULTS, name)
        if getattr(config, name) != default:
            raise KeyProblem(key, f"{key}: not supported by Sampan {VERSION}: {feature}")
    for feature, on in config.features.items():
        if on and feature != "cdi":
            raise KeyProblem("features", f"features: not supported by Sampan {VERSION}: {feature}")


DEFAULTS: Final = DaemonConfig()
