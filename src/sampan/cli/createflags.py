"""The options that `run` and `create` share, as data. Windows-only ones are parsed and sent, but not shown."""

from __future__ import annotations

import os

from sampan.cli.flags import Flag

_CGROUPNS = """Cgroup namespace to use (host|private)
'host':    Run the container in the Docker host's cgroup namespace
'private': Run the container in its own private cgroup namespace
'':        Use the cgroup namespace as configured by the
           default-cgroupns-mode option on the daemon (default)"""
_START_PERIOD = "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)"
_START_INTERVAL = "Time between running the check during the start period (ms|s|m|h) (default 0s)"

LIMITS = {
    "blkio-weight": "BlkioWeight",
    "cpu-period": "CpuPeriod",
    "cpu-quota": "CpuQuota",
    "cpu-rt-period": "CpuRealtimePeriod",
    "cpu-rt-runtime": "CpuRealtimeRuntime",
    "cpu-shares": "CpuShares",
    "cpus": "NanoCpus",
    "memory": "Memory",
    "memory-reservation": "MemoryReservation",
    "memory-swap": "MemorySwap",
    "pids-limit": "PidsLimit",
}
"""The numbers that `update` can change, by their options: the API's names."""
CPUSETS = {"cpuset-cpus": "CpusetCpus", "cpuset-mems": "CpusetMems"}
"""Texts likewise."""
CREATE_FLAGS: tuple[Flag, ...] = (
    Flag("add-host", "", "list:extra-host", (), "Add a custom host-to-IP mapping (host:ip)"),
    Flag("annotation", "", "map", {}, "Add an annotation to the container (passed through to the OCI runtime)", api="1.43", shown="map[]"),
    Flag("attach", "a", "list:attach", (), "Attach to STDIN, STDOUT or STDERR", complete="stdin stdout stderr"),
    Flag("blkio-weight", "", "uint16", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)"),
    Flag("blkio-weight-device", "", "weight-device", (), "Block IO weight (relative device weight)", shown="[]"),
    Flag("cap-add", "", "list", (), "Add Linux capabilities", complete="capabilities"),
    Flag("cap-drop", "", "list", (), "Drop Linux capabilities", complete="capabilities"),
    Flag("cgroup-parent", "", "string", "", "Optional parent cgroup for the container"),
    Flag("cgroupns", "", "string", "", _CGROUPNS, api="1.41", complete="host private"),
    Flag("cidfile", "", "string", "", "Write the container ID to the file", complete="files"),
    Flag("cpu-count", "", "int", 0, "CPU count (Windows only)", hidden=True, api="windows"),
    Flag("cpu-percent", "", "int", 0, "CPU percent (Windows only)", hidden=True, api="windows"),
    Flag("cpu-period", "", "int", 0, "Limit CPU CFS (Completely Fair Scheduler) period"),
    Flag("cpu-quota", "", "int", 0, "Limit CPU CFS (Completely Fair Scheduler) quota"),
    Flag("cpu-rt-period", "", "int", 0, "Limit CPU real-time period in microseconds", api="1.25"),
    Flag("cpu-rt-runtime", "", "int", 0, "Limit CPU real-time runtime in microseconds", api="1.25"),
    Flag("cpu-shares", "c", "int", 0, "CPU shares (relative weight)"),
    Flag("cpus", "", "decimal", 0, "Number of CPUs", api="1.25"),
    Flag("cpuset-cpus", "", "string", "", "CPUs in which to allow execution (0-3, 0,1)"),
    Flag("cpuset-mems", "", "string", "", "MEMs in which to allow execution (0-3, 0,1)"),
    Flag("device", "", "list", (), "Add a host device to the container", complete="files"),
    Flag("device-cgroup-rule", "", "list:cgroup-rule", (), "Add a rule to the cgroup allowed devices list"),
    Flag("device-read-bps", "", "bps-device", (), "Limit read rate (bytes per second) from a device", shown="[]"),
    Flag("device-read-iops", "", "iops-device", (), "Limit read rate (IO per second) from a device", shown="[]"),
    Flag("device-write-bps", "", "bps-device", (), "Limit write rate (bytes per second) to a device", shown="[]"),
    Flag("device-write-iops", "", "iops-device", (), "Limit write rate (IO per second) to a device", shown="[]"),
    Flag("disable-content-trust", "", "bool", True, "Skip image verification"),
    Flag("dns", "", "list:ip", (), "Set custom DNS servers"),
    Flag("dns-opt", "", "list", (), "Set DNS options", hidden=True),
    Flag("dns-option", "", "list", (), "Set DNS options"),
    Flag("dns-search", "", "list:dns-search", (), "Set custom DNS search domains"),
    Flag("domainname", "", "string", "", "Container NIS domain name"),
    Flag("entrypoint", "", "string", "", "Overwrite the default ENTRYPOINT of the image"),
    Flag("env", "e", "list:env", (), "Set environment variables", complete="environment"),
    Flag("env-file", "", "list", (), "Read in a file of environment variables", complete="files"),
    Flag("expose", "", "list", (), "Expose a port or a range of ports"),
    Flag("gpus", "", "gpu-request", (), "GPU devices to add to the container ('all' to pass all GPUs)", api="1.40"),
    Flag("group-add", "", "list", (), "Add additional groups to join"),
    Flag("health-cmd", "", "string", "", "Command to run to check health"),
    Flag("health-interval", "", "duration", 0, "Time between running the check (ms|s|m|h) (default 0s)"),
    Flag("health-retries", "", "int", 0, "Consecutive failures needed to report unhealthy"),
    Flag("health-start-interval", "", "duration", 0, _START_INTERVAL, api="1.44"),
    Flag("health-start-period", "", "duration", 0, _START_PERIOD, api="1.29"),
    Flag("health-timeout", "", "duration", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)"),
    Flag("help", "", "bool", False, "Print usage"),
    Flag("hostname", "h", "string", "", "Container host name"),
    Flag("init", "", "bool", False, "Run an init inside the container that forwards signals and reaps processes", api="1.25"),
    Flag("interactive", "i", "bool", False, "Keep STDIN open even if not attached"),
    Flag("io-maxbandwidth", "", "bytes", 0, "Maximum IO bandwidth limit for the system drive (Windows only)", hidden=True, api="windows"),
    Flag("io-maxiops", "", "uint64", 0, "Maximum IOps limit for the system drive (Windows only)", hidden=True, api="windows"),
    Flag("ip", "", "string", "", "IPv4 address (e.g., 172.30.100.104)"),
    Flag("ip6", "", "string", "", "IPv6 address (e.g., 2001:db8::33)"),
    Flag("ipc", "", "string", "", "IPC mode to use", complete="container: host none private shareable"),
    Flag("isolation", "", "string", "", "Container isolation technology"),
    Flag("kernel-memory", "", "bytes", 0, "Kernel memory limit"),
    Flag("label", "l", "list:label", (), "Set meta data on a container"),
    Flag("label-file", "", "list", (), "Read in a line delimited file of labels", complete="files"),
    Flag("link", "", "list:link", (), "Add link to another container"),
    Flag("link-local-ip", "", "list", (), "Container IPv4/IPv6 link-local addresses"),
    Flag("log-driver", "", "string", "", "Logging driver for the container", complete="local json-file none"),
    Flag("log-opt", "", "list", (), "Log driver options", complete="max-size= max-file= mode= max-buffer-size="),
    Flag("mac-address", "", "string", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)"),
    Flag("memory", "m", "bytes", 0, "Memory limit"),
    Flag("memory-reservation", "", "bytes", 0, "Memory soft limit"),
    Flag("memory-swap", "", "swap-bytes", 0, "Swap limit equal to memory plus swap: '-1' to enable unlimited swap"),
    Flag("memory-swappiness", "", "int", -1, "Tune container memory swappiness (0 to 100)"),
    Flag("mount", "", "mount", (), "Attach a filesystem mount to the container"),
    Flag("name", "", "string", "", "Assign a name to the container"),
    Flag("net", "", "network", (), "Connect a container to a network", hidden=True),
    Flag("net-alias", "", "list", (), "Add network-scoped alias for the container", hidden=True),
    Flag("network", "", "network", (), "Connect a container to a network", complete="networks"),
    Flag("network-alias", "", "list", (), "Add network-scoped alias for the container"),
    Flag("no-healthcheck", "", "bool", False, "Disable any container-specified HEALTHCHECK"),
    Flag("oom-kill-disable", "", "bool", False, "Disable OOM Killer"),
    Flag("oom-score-adj", "", "int", 0, "Tune host's OOM preferences (-1000 to 1000)"),
    Flag("pid", "", "string", "", "PID namespace to use", complete="container: host"),
    Flag("pids-limit", "", "int", 0, "Tune container pids limit (set -1 for unlimited)"),
    Flag(
        "platform",
        "",
        "string",
        os.environ.get("DOCKER_DEFAULT_PLATFORM", ""),
        "Set platform if server is multi-platform capable",
        api="1.32",
    ),
    Flag("privileged", "", "bool", False, "Give extended privileges to this container"),
    Flag("publish", "p", "list", (), "Publish a container's port(s) to the host"),
    Flag("publish-all", "P", "bool", False, "Publish all exposed ports to random ports"),
    Flag("pull", "", "string", "missing", 'Pull image before running ("always", "missing", "never")', complete="always missing never"),
    Flag("quiet", "q", "bool", False, "Suppress the pull output"),
    Flag("read-only", "", "bool", False, "Mount the container's root filesystem as read only"),
    Flag("restart", "", "string", "no", "Restart policy to apply when a container exits", complete="always no on-failure unless-stopped"),
    Flag("rm", "", "bool", False, "Automatically remove the container and its associated anonymous volumes when it exits"),
    Flag("runtime", "", "string", "", "Runtime to use for this container"),
    Flag("security-opt", "", "list", (), "Security Options", complete="no-new-privileges seccomp= systempaths=unconfined"),
    Flag("shm-size", "", "bytes", 0, "Size of /dev/shm"),
    Flag("stop-signal", "", "string", "", "Signal to stop the container", complete="signals"),
    Flag("stop-timeout", "", "int", 0, "Timeout (in seconds) to stop a container", api="1.25"),
    Flag("storage-opt", "", "list", (), "Storage driver options for the container"),
    Flag("sysctl", "", "sysctl", {}, "Sysctl options", shown="map[]"),
    Flag("tmpfs", "", "list", (), "Mount a tmpfs directory"),
    Flag("tty", "t", "bool", False, "Allocate a pseudo-TTY"),
    Flag(
        "tz",
        "",
        "string",
        "",
        "Time zone of the container: the host's (local) or a name, as in Europe/Berlin (not of docker)",
        complete="local",
    ),
    Flag("ulimit", "", "ulimit", {}, "Ulimit options", shown="[]"),
    Flag("use-api-socket", "", "bool", False, "Bind mount Docker API socket and required auth"),
    Flag("user", "u", "string", "", "Username or UID (format: <name|uid>[:<group|gid>])"),
    Flag("userns", "", "string", "", "User namespace to use", complete="host"),
    Flag("uts", "", "string", "", "UTS namespace to use", complete="host"),
    Flag("volume", "v", "list", (), "Bind mount a volume"),
    Flag("volume-driver", "", "string", "", "Optional volume driver for the container"),
    Flag("volumes-from", "", "list", (), "Mount volumes from the specified container(s)", complete="containers:all"),
    Flag("workdir", "w", "string", "", "Working directory inside the container"),
)

RUN_FLAGS: tuple[Flag, ...] = (
    *CREATE_FLAGS,
    Flag("detach", "d", "bool", False, "Run container in background and print container ID"),
    Flag("detach-keys", "", "string", "", "Override the key sequence for detaching a container"),
    Flag("sig-proxy", "", "bool", True, "Proxy received signals to the process"),
)

_PULL_CREATE = 'Pull image before creating ("always", "|missing", "never")'  # the bar is docker's

CREATE_ONLY_FLAGS: tuple[Flag, ...] = tuple(
    flag if flag.name != "pull" else Flag("pull", "", "string", "missing", _PULL_CREATE, complete=flag.complete) for flag in CREATE_FLAGS
)
