"""sampand's options as one table: the flag, the key of daemon.json, the type, and what docker calls it.

The table follows dockerd 28 (its --help and its daemon/config.Config). `key` is the name in daemon.json, `flag` the long flag:
docker names them differently where a flag is given several times (`--dns`, key `dns`; `--label`, key `labels`).
The keys `default-timezone`, `mirrors` and `registry` are Sampan's own.
"""

from typing import Final, Literal, NamedTuple, TypeAlias

DEFAULT_CONFIG_FILE: Final = "/etc/sampan/daemon.json"
DEFAULT_DATA_ROOT: Final = "/var/lib/sampan"
DEFAULT_EXEC_ROOT: Final = "/run/sampan"
DEFAULT_BRIDGE: Final = "sampan0"
DEFAULT_GROUP: Final = "docker"
Kind: TypeAlias = Literal[
    "bool", "int", "string", "list", "ip", "ips", "bytes", "bools", "map", "lists", "mapmap", "ulimits", "runtimes", "pools", "json"
]
"""How a value is written and read (daemon/convert.py)."""


class Option(NamedTuple):
    """One option. `flag` "" = file only."""

    key: str
    flag: str
    kind: Kind
    help: str = ""
    short: str = ""
    default: str = ""
    """As --help shows it; the value itself is DaemonConfig's field default."""


OPTIONS: Final = (
    Option("runtimes", "add-runtime", "runtimes", "Register an additional OCI compatible runtime", default="[]"),
    Option("allow-direct-routing", "allow-direct-routing", "bool", "Allow remote access to published ports on container IP addresses"),
    Option("authorization-plugins", "authorization-plugin", "list", "Authorization plugins to load"),
    Option("bip", "bip", "string", "IPv4 address for the default bridge"),
    Option("bip6", "bip6", "string", "IPv6 address for the default bridge"),
    Option("bridge", "bridge", "string", "Attach containers to a network bridge", "b", '"sampan0"'),
    Option("builder", "", "json"),
    Option("cdi-spec-dirs", "cdi-spec-dir", "list", "CDI specification directories to use"),
    Option("cgroup-parent", "cgroup-parent", "string", "Set parent cgroup for all containers"),
    Option("containerd", "containerd", "string", "containerd grpc address"),
    Option("containerd-namespace", "containerd-namespace", "string", "Containerd namespace to use", default='"moby"'),
    Option(
        "containerd-plugin-namespace",
        "containerd-plugins-namespace",
        "string",
        "Containerd namespace for plugins",
        default='"plugins.moby"',
    ),
    Option("cpu-rt-period", "cpu-rt-period", "int", "Limit the CPU real-time period in microseconds for the parent cgroup"),
    Option("cpu-rt-runtime", "cpu-rt-runtime", "int", "Limit the CPU real-time runtime in microseconds for the parent cgroup"),
    Option("cri-containerd", "cri-containerd", "bool", "start containerd with cri"),
    Option("data-root", "data-root", "string", "Root directory of persistent state", default='"/var/lib/sampan"'),
    Option("debug", "debug", "bool", "Enable debug mode", "D"),
    Option("default-address-pools", "default-address-pool", "pools", "Default address pools for node specific local networks"),
    Option("default-cgroupns-mode", "default-cgroupns-mode", "string", 'Default mode for containers cgroup namespace ("host" | "private")'),
    Option("default-gateway", "default-gateway", "ip", "Default gateway IPv4 address for the default bridge network"),
    Option("default-gateway-v6", "default-gateway-v6", "ip", "Default gateway IPv6 address for the default bridge network"),
    Option(
        "default-ipc-mode", "default-ipc-mode", "string", 'Default mode for containers ipc ("shareable" | "private")', default='"private"'
    ),
    Option("default-network-opts", "default-network-opt", "mapmap", "Default network options", default="map[]"),
    Option("default-runtime", "default-runtime", "string", "Default OCI runtime for containers", default='"runc"'),
    Option("default-shm-size", "default-shm-size", "bytes", "Default shm size for containers", default="64MiB"),
    Option("default-timezone", "default-timezone", "string", 'Default time zone of containers: a name, or "local" for the host\'s'),
    Option("default-ulimits", "default-ulimit", "ulimits", "Default ulimits for containers", default="[]"),
    Option("dns", "dns", "ips", "DNS server to use", default="[]"),
    Option("dns-opts", "dns-opt", "list", "DNS options to use"),
    Option("dns-search", "dns-search", "list", "DNS search domains to use"),
    Option("exec-opts", "exec-opt", "list", "Runtime execution options"),
    Option("exec-root", "exec-root", "string", "Root directory for execution state files", default='"/run/sampan"'),
    Option("experimental", "experimental", "bool", "Enable experimental features"),
    Option("features", "feature", "bools", "Enable feature in the daemon", default="map[]"),
    Option("fixed-cidr", "fixed-cidr", "string", "IPv4 subnet for the default bridge network"),
    Option("fixed-cidr-v6", "fixed-cidr-v6", "string", "IPv6 subnet for the default bridge network"),
    Option("group", "group", "string", "Group for the unix socket", "G", '"docker"'),
    Option("hosts", "host", "list", "Daemon socket(s) to connect to", "H"),
    Option("host-gateway-ips", "host-gateway-ip", "ips", "IP addresses that the special 'host-gateway' string in --add-host resolves to"),
    Option("http-proxy", "http-proxy", "string", "HTTP proxy URL to use for outgoing traffic"),
    Option("https-proxy", "https-proxy", "string", "HTTPS proxy URL to use for outgoing traffic"),
    Option("no-proxy", "no-proxy", "string", "Comma-separated list of hosts or IP addresses for which the proxy is skipped"),
    Option("proxies", "", "json"),
    Option("icc", "icc", "bool", "Enable inter-container communication for the default bridge network", default="true"),
    Option("init", "init", "bool", "Run an init in the container to forward signals and reap processes"),
    Option("init-path", "init-path", "string", "Path to the docker-init binary"),
    Option("insecure-registries", "insecure-registry", "list", "Enable insecure registry communication"),
    Option("ip", "ip", "ip", "Host IP for port publishing from the default bridge network", default="0.0.0.0"),
    Option("ip-forward", "ip-forward", "bool", "Enable IP forwarding in system configuration", default="true"),
    Option("ip-forward-no-drop", "ip-forward-no-drop", "bool", "Do not set the filter-FORWARD policy to DROP (Sampan never does)"),
    Option("ip-masq", "ip-masq", "bool", "Enable IP masquerading for the default bridge network", default="true"),
    Option("ip6tables", "ip6tables", "bool", "Enable addition of ip6tables rules (Sampan adds none)", default="true"),
    Option("iptables", "iptables", "bool", "Enable addition of firewall rules", default="true"),
    Option("ipv6", "ipv6", "bool", "Enable IPv6 networking for the default bridge network"),
    Option("labels", "label", "list", "Set key=value labels to the daemon"),
    Option("live-restore", "live-restore", "bool", "Leave containers running while the daemon is away", default="true"),
    Option("log-driver", "log-driver", "string", "Default driver for container logs", default='"json-file"'),
    Option("log-format", "log-format", "string", 'Set the logging format ("text"|"json")', default='"text"'),
    Option("log-level", "log-level", "string", 'Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")', "l", '"info"'),
    Option("log-opts", "log-opt", "map", "Default log driver options for containers", default="map[]"),
    Option("max-concurrent-downloads", "max-concurrent-downloads", "int", "Set the max concurrent downloads", default="3"),
    Option("max-concurrent-uploads", "max-concurrent-uploads", "int", "Set the max concurrent uploads", default="5"),
    Option("max-download-attempts", "max-download-attempts", "int", "Set the max download attempts for each pull", default="5"),
    Option("metrics-addr", "metrics-addr", "string", "Set default address and port to serve the metrics api on"),
    Option("mirrors", "", "lists"),
    Option("mtu", "mtu", "int", 'Set the MTU for the default "bridge" network', default="1500"),
    Option("network-control-plane-mtu", "network-control-plane-mtu", "int", "Network Control plane MTU", default="1500"),
    Option("no-new-privileges", "no-new-privileges", "bool", "Set no-new-privileges by default for new containers"),
    Option("node-generic-resources", "node-generic-resource", "list", "Advertise user-defined resource"),
    Option("pidfile", "pidfile", "string", "Path to use for daemon PID file", "p", '"/run/sampan/sampand.pid"'),
    Option("raw-logs", "raw-logs", "bool", "Full timestamps without ANSI coloring (always so)"),
    Option("registry", "", "json"),
    Option("registry-mirrors", "registry-mirror", "list", "Preferred Docker registry mirror"),
    Option("resolv-conf", "", "string"),
    Option("rootless", "rootless", "bool", "Enable rootless mode; typically used with RootlessKit"),
    Option("seccomp-profile", "seccomp-profile", "string", 'Path to seccomp profile, "unconfined" or "builtin"', default='"builtin"'),
    Option("selinux-enabled", "selinux-enabled", "bool", "Enable selinux support"),
    Option("shutdown-timeout", "shutdown-timeout", "int", "Set the default shutdown timeout", default="15"),
    Option("storage-driver", "storage-driver", "string", "Storage driver to use", "s"),
    Option("storage-opts", "storage-opt", "list", "Storage driver options"),
    Option("swarm-default-advertise-addr", "swarm-default-advertise-addr", "string", "Set default address for swarm advertised address"),
    Option("tls", "tls", "bool", "Use TLS; implied by --tlsverify"),
    Option("tlscacert", "tlscacert", "string", "Trust certs signed only by this CA"),
    Option("tlscert", "tlscert", "string", "Path to TLS certificate file"),
    Option("tlskey", "tlskey", "string", "Path to TLS key file"),
    Option("tlsverify", "tlsverify", "bool", "Use TLS and verify the remote"),
    Option("userland-proxy", "userland-proxy", "bool", "Pass on to containers what arrives at published IPv6 ports", default="true"),
    Option("userland-proxy-path", "userland-proxy-path", "string", "Path to the userland proxy binary"),
    Option("userns-remap", "userns-remap", "string", "User/Group setting for user namespaces"),
)
BY_KEY: Final = {option.key: option for option in OPTIONS}
BY_FLAG: Final = {option.flag: option for option in OPTIONS if option.flag}
BY_SHORT: Final = {option.short: option for option in OPTIONS if option.short}

COMMAND_LINE_ONLY: Final = (
    Option("", "config-file", "string", "Daemon configuration file", default=f'"{DEFAULT_CONFIG_FILE}"'),
    Option("", "help", "bool", "Print usage"),
    Option("", "validate", "bool", "Validate daemon configuration and exit"),
    Option("", "version", "bool", "Print version information and quit", "v"),
)

SHOWN_TYPE: Final = {
    "bool": "", "int": " int", "string": " string", "list": " list", "ip": " ip", "ips": " ipSlice", "bytes": " bytes", "map": " map",
    "bools": " map", "mapmap": " mapmap", "ulimits": " ulimit", "runtimes": " runtime", "pools": " pool-options",
}  # fmt: skip


def usage() -> str:
    """The text of `sampand --help`, laid out as docker's."""
    rows = []
    for option in sorted((o for o in OPTIONS + COMMAND_LINE_ONLY if o.flag), key=lambda o: o.flag):
        left = f"  -{option.short}, " if option.short else "      "
        default = f" (default {option.default})" if option.default else ""
        rows.append((f"{left}--{option.flag}{SHOWN_TYPE[option.kind]}", option.help + default))
    width = max(len(left) for left, _ in rows) + 3
    lines = "\n".join(f"{left:{width}}{right}" for left, right in rows)
    return f"\nUsage:  sampand [OPTIONS]\n\nA self-sufficient runtime for containers.\n\nOptions:\n{lines}"
