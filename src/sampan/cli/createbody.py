"""From the options of `run` and `create` to the body of POST /containers/create: field for field what docker's own CLI sends.

Pure but for reading the files that options name. Errors are ValueErrors with docker's texts.
"""

from __future__ import annotations

import os

from sampan.cli.endpointsettings import endpoint_settings
from sampan.cli.flags import quote
from sampan.cli.http import CliError
from sampan.cli.opts import check_mac, read_key_values
from sampan.cli.ports import expose, publish

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from sampan.cli.flags import Parsed

_PROXIES = (
    ("httpProxy", "HTTP_PROXY"),
    ("httpsProxy", "HTTPS_PROXY"),
    ("ftpProxy", "FTP_PROXY"),
    ("noProxy", "NO_PROXY"),
    ("allProxy", "ALL_PROXY"),
)


def create_body(
    args: Parsed, image: str, command: list[str], *, api: tuple[int, ...] = (1, 51), proxies: dict[str, str] | None = None
) -> dict[str, Any]:
    """The create request for the options given, as sent to a daemon of API version `api`. `proxies`: the config file's, for its host."""
    config = _config(args, image, command, proxies or {})
    host = _host_config(args)
    binds, volumes = _volumes(args.list("volume"))
    config["Volumes"], host["Binds"] = volumes, binds
    ports, bindings = publish(args.list("publish"))
    ports.update(expose(args.list("expose")))
    if ports:
        config["ExposedPorts"] = ports
    host["PortBindings"] = bindings
    if args.bool("rm") and host["RestartPolicy"]["Name"] not in ("", "no"):
        raise ValueError("conflicting options: cannot specify both --restart and --rm")
    endpoints = _endpoints(args)
    _fit(config, host, endpoints, args, api)
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": endpoints}}


def _fit(config: dict[str, Any], host: dict[str, Any], endpoints: dict[str, Any], args: Parsed, api: tuple[int, ...]) -> None:
    """What the API version demands: fields that older or newer daemons do not take."""
    if api < (1, 44):
        mac = endpoints.get(host["NetworkMode"], {}).get("MacAddress") or args.str("mac-address")
        if mac:
            config["MacAddress"] = mac
        if any(endpoint["MacAddress"] for endpoint in endpoints.values()):
            raise CliError(
                f'"specify mac-address per network" requires API version 1.44, but the Docker daemon API version is {_dots(api)}'
            )
        if any(mount.get("BindOptions", {}).get("ReadOnlyForceRecursive") for mount in host.get("Mounts", ())):
            raise CliError("bind-recursive=readonly requires API v1.44 or later")
    if api < (1, 25):
        host["AutoRemove"] = False
    if args.int("kernel-memory") and (1, 40) <= api < (1, 42):
        host["KernelMemory"] = args.int("kernel-memory")


def _dots(api: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in api)


def _config(args: Parsed, image: str, command: list[str], proxies: dict[str, str]) -> dict[str, Any]:
    mac = args.str("mac-address")
    if mac and not check_mac(mac):
        raise ValueError(f"{mac} is not a valid mac address")
    swappiness = args.int("memory-swappiness")
    if not -1 <= swappiness <= 100:
        raise ValueError(f"invalid value: {swappiness}. Valid memory swappiness range is 0-100")
    attach = args.list("attach")
    stdin = args.bool("interactive")
    attach_stdin = stdin or "stdin" in attach
    entrypoint = args.str("entrypoint")
    environment = read_key_values(args.list("env-file"), _environment(args.list("env"), proxies), environment=True)
    labels = read_key_values(args.list("label-file"), args.list("label"), environment=False)
    config: dict[str, Any] = {
        "Hostname": args.str("hostname"),
        "Domainname": args.str("domainname"),
        "User": args.str("user"),
        "AttachStdin": attach_stdin,
        "AttachStdout": not attach or "stdout" in attach,
        "AttachStderr": not attach or "stderr" in attach,
        "Tty": args.bool("tty"),
        "OpenStdin": stdin,
        "StdinOnce": stdin and attach_stdin,
        "Env": environment or None,
        "Cmd": command or None,
        "Image": image,
        "Volumes": {},
        "WorkingDir": args.str("workdir"),
        "Entrypoint": [entrypoint] if entrypoint or args.changed("entrypoint") else None,
        "OnBuild": None,
        "Labels": dict(label.partition("=")[::2] for label in labels),
    }
    health = _health(args)
    if health is not None:
        config["Healthcheck"] = health
    if args.str("stop-signal"):
        config["StopSignal"] = args.str("stop-signal")
    if args.changed("stop-timeout"):
        config["StopTimeout"] = args.int("stop-timeout")
    return config


def _environment(given: list[str], proxies: dict[str, str]) -> list[str]:
    """-e values, the last of each name counting, and the proxies of config.json that they do not override."""
    values = {item.partition("=")[0]: item for item in given}
    for name, value in proxy_variables(proxies):
        values.setdefault(name, f"{name}={value}")
    return list(values.values())


def proxy_variables(proxies: dict[str, str]) -> Iterator[tuple[str, str]]:
    """The variables, in both spellings, of config.json's proxies for a host."""
    for key, name in _PROXIES:
        if proxies.get(key):
            yield name, proxies[key]
            yield name.lower(), proxies[key]


def _health(args: Parsed) -> dict[str, Any] | None:
    numbers = {
        "Interval": "health-interval",
        "Timeout": "health-timeout",
        "Retries": "health-retries",
        "StartPeriod": "health-start-period",
        "StartInterval": "health-start-interval",
    }
    command = args.str("health-cmd")
    given = bool(command) or any(args.int(option) for option in numbers.values())
    if args.bool("no-healthcheck"):
        if given:
            raise ValueError("--no-healthcheck conflicts with --health-* options")
        return {"Test": ["NONE"]}
    if not given:
        return None
    health: dict[str, Any] = {"Test": ["CMD-SHELL", command]} if command else {}
    for field, option in numbers.items():
        if args.int(option) < 0:
            raise ValueError(f"--{option} cannot be negative")
        if args.int(option):
            health[field] = args.int(option)
    return health


def _check_namespaces(args: Parsed) -> None:
    pid, uts, userns, cgroupns = (args.str(name) for name in ("pid", "uts", "userns", "cgroupns"))
    if pid not in ("", "host") and not (pid.startswith("container:") and len(pid) > len("container:")):
        raise ValueError("--pid: invalid PID mode")
    for value, name, label, allowed in (
        (uts, "uts", "UTS", ()),
        (userns, "userns", "USER", ()),
        (cgroupns, "cgroupns", "CGROUP", ("private",)),
    ):
        if value not in ("", "host", *allowed):
            raise ValueError(f"--{name}: invalid {label} mode")


def _host_config(args: Parsed) -> dict[str, Any]:
    _check_namespaces(args)
    networks = args.get("net") or args.get("network")
    security, masked, readonly = _security(args.list("security-opt"))
    driver, log_options = args.str("log-driver"), args.list("log-opt")
    host: dict[str, Any] = {
        "ContainerIDFile": args.str("cidfile"),
        "NetworkMode": networks[0]["name"] if networks else "default",
        "RestartPolicy": restart_policy(args.str("restart")),
        "AutoRemove": args.bool("rm"),
        "VolumeDriver": args.str("volume-driver"),
        "VolumesFrom": args.list("volumes-from") or None,
        "ConsoleSize": [0, 0],
        "CapAdd": capabilities(args.list("cap-add")),
        "CapDrop": capabilities(args.list("cap-drop")),
        "CgroupnsMode": args.str("cgroupns"),
        "Dns": args.list("dns") or [],
        "DnsOptions": [*args.list("dns-option"), *args.list("dns-opt")],
        "DnsSearch": args.list("dns-search") or [],
        "ExtraHosts": args.list("add-host") or None,
        "GroupAdd": args.list("group-add") or None,
        "IpcMode": args.str("ipc"),
        "Cgroup": "",
        "Links": args.list("link") or None,
        "OomScoreAdj": args.int("oom-score-adj"),
        "PidMode": args.str("pid"),
        "Privileged": args.bool("privileged"),
        "PublishAllPorts": args.bool("publish-all"),
        "ReadonlyRootfs": args.bool("read-only"),
        "SecurityOpt": security,
        "UTSMode": args.str("uts"),
        "UsernsMode": args.str("userns"),
        "ShmSize": args.int("shm-size"),
        "Isolation": args.str("isolation"),
        "MaskedPaths": masked,
        "ReadonlyPaths": readonly,
        **_resources(args),
    }
    if driver == "none" and log_options:
        raise ValueError(f"invalid logging opts for driver {driver}")
    host["LogConfig"] = {"Type": driver, "Config": dict(option.partition("=")[::2] for option in log_options)}
    return {**host, **_optional(args)}


def _optional(args: Parsed) -> dict[str, Any]:
    """The fields that are left out when they are empty."""
    storage = args.list("storage-opt")
    if any("=" not in option for option in storage):
        raise ValueError("invalid storage option")
    optional: dict[str, Any] = {
        "StorageOpt": dict(option.partition("=")[::2] for option in storage),
        "Tmpfs": dict(item.partition(":")[::2] for item in args.list("tmpfs")),
        "Sysctls": args.get("sysctl"),
        "Annotations": args.get("annotation"),
        "Runtime": args.str("runtime"),
        "Timezone": args.str("tz"),
        "Mounts": list(args.get("mount")),
    }
    given = {key: value for key, value in optional.items() if value}
    if args.changed("init"):
        given["Init"] = args.bool("init")
    return given


def _resources(args: Parsed) -> dict[str, Any]:
    devices, requests = _devices(args.list("device"))
    ulimits: dict[str, Any] = args.get("ulimit")
    return {
        "CpuShares": args.int("cpu-shares"),
        "Memory": args.int("memory"),
        "NanoCpus": args.int("cpus"),
        "CgroupParent": args.str("cgroup-parent"),
        "BlkioWeight": args.int("blkio-weight"),
        "BlkioWeightDevice": list(args.get("blkio-weight-device")),
        "BlkioDeviceReadBps": list(args.get("device-read-bps")),
        "BlkioDeviceWriteBps": list(args.get("device-write-bps")),
        "BlkioDeviceReadIOps": list(args.get("device-read-iops")),
        "BlkioDeviceWriteIOps": list(args.get("device-write-iops")),
        "CpuPeriod": args.int("cpu-period"),
        "CpuQuota": args.int("cpu-quota"),
        "CpuRealtimePeriod": args.int("cpu-rt-period"),
        "CpuRealtimeRuntime": args.int("cpu-rt-runtime"),
        "CpusetCpus": args.str("cpuset-cpus"),
        "CpusetMems": args.str("cpuset-mems"),
        "Devices": devices,
        "DeviceCgroupRules": args.list("device-cgroup-rule") or None,
        "DeviceRequests": [*args.get("gpus"), *requests] or None,
        "MemoryReservation": args.int("memory-reservation"),
        "MemorySwap": args.int("memory-swap"),
        "MemorySwappiness": args.int("memory-swappiness"),
        "OomKillDisable": args.bool("oom-kill-disable"),
        "PidsLimit": args.int("pids-limit"),
        "Ulimits": [ulimits[name] for name in sorted(ulimits)],
        "CpuCount": args.int("cpu-count"),
        "CpuPercent": args.int("cpu-percent"),
        "IOMaximumIOps": args.int("io-maxiops"),
        "IOMaximumBandwidth": args.int("io-maxbandwidth"),
    }


def restart_policy(text: str) -> dict[str, Any]:
    """`on-failure:3` as the API's RestartPolicy. ValueError in docker's words."""
    name, colon, count = text.partition(":")
    if colon and not name:
        raise ValueError("invalid restart policy format: no policy provided before colon")
    digits = count[1:] if count[:1] in ("-", "+") else count
    if count and not (digits.isascii() and digits.isdigit()):
        raise ValueError("invalid restart policy format: maximum retry count must be an integer")
    return {"Name": name, "MaximumRetryCount": int(count or "0")}


def capabilities(given: list[str]) -> list[str] | None:
    """Capability names in normal form: CAP_ in front, sorted, each once."""
    names: set[str] = set()
    for item in given:
        name = item.strip().upper()
        names.add(name if name == "ALL" or name.startswith("CAP_") else f"CAP_{name}")
    return sorted(names) or None


def _security(given: list[str]) -> tuple[list[str] | None, list[str] | None, list[str] | None]:
    """The security options to send (profiles read in), and the masked and read-only paths: [] with systempaths=unconfined, else null."""
    result: list[str] = []
    masked: list[str] | None = None
    for option in given:
        key, sep, value = option.partition("=")
        if not sep and key != "no-new-privileges":
            key, sep, value = option.partition(":")
        if not value and key != "no-new-privileges":
            raise ValueError(f"Invalid --security-opt: {quote(option)}")
        if key == "seccomp" and value not in ("builtin", "unconfined"):
            option = f"seccomp={_profile(value)}"
        if option == "systempaths=unconfined":
            masked = []
        else:
            result.append(option)
    return (result if given else None), masked, masked


def _profile(path: str) -> str:
    import json

    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except OSError as error:
        raise ValueError(f"opening seccomp profile ({path}) failed: open {path}: {(error.strerror or '').lower()}") from None
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        from sampan.cli.gotext import json_error

        raise ValueError(f"compacting json for seccomp profile ({path}) failed: {json_error(text.encode())}") from None


def _volumes(given: list[str]) -> tuple[list[str] | None, dict[str, Any]]:
    """-v values: binds (with a source) in order, and anonymous volumes."""
    binds: list[str] = []
    volumes: dict[str, Any] = {}
    for spec in dict.fromkeys(given):
        source = _volume_source(spec)
        if not source:
            volumes[spec] = {}
        elif source.startswith("."):
            path, _, rest = spec.partition(":")
            binds.append(f"{os.path.abspath(path)}:{rest}")
        else:
            binds.append(spec)
    return binds or None, volumes


def _volume_source(spec: str) -> str:
    """The part before the first colon, once the form is right."""
    if not spec:
        raise ValueError("invalid empty volume spec")
    if len(spec) <= 2:
        return ""
    parts = spec.split(":")
    if len(parts[0]) == 1 and parts[0].isalpha() and len(parts) > 1:  # docker takes a single letter for a Windows drive
        parts[:2] = [":".join(parts[:2])]
    if "" in parts:
        raise ValueError(f"invalid spec: {spec}: empty section between colons")
    if len(parts) > 3:
        raise ValueError(f"invalid spec: {spec}: too many colons")
    return parts[0] if len(parts) > 1 else ""


def _devices(given: list[str]) -> tuple[list[dict[str, str]], list[dict[str, Any]]]:
    """--device values: mappings of host devices, and a request for CDI names (vendor/class=name)."""
    devices: list[dict[str, str]] = []
    cdi: list[str] = []
    for text in given:
        vendor, equals, name = text.partition("=")
        if equals and name and "/" in vendor and not text.startswith("/") and ":" not in vendor:
            cdi.append(text)
            continue
        parts = text.split(":")
        if len(parts) > 3 or not parts[0]:
            raise ValueError(f"bad format for path: {text}")
        source, target, mode = parts[0], parts[0], "rwm"
        if len(parts) == 3:
            target, mode = parts[1], parts[2]
            if not _device_mode(mode):
                raise ValueError(f"bad mode specified: {mode}")
        elif len(parts) == 2:
            if _device_mode(parts[1]):
                mode = parts[1]
                source = target = os.path.normpath(source)
            else:
                target = os.path.normpath(parts[1]) if parts[1] else "."
        else:
            source = target = os.path.normpath(source)
        if not target.startswith("/"):
            raise ValueError(f"{target if len(parts) != 2 else parts[1] or parts[0]} is not an absolute path")
        devices.append({"PathOnHost": source, "PathInContainer": target, "CgroupPermissions": mode})
    requests = [{"Driver": "cdi", "Count": 0, "DeviceIDs": cdi, "Capabilities": None, "Options": None}] if cdi else []
    return devices, requests


def _device_mode(mode: str) -> bool:
    return bool(mode) and all(char in "rwm" for char in mode) and len(set(mode)) == len(mode)


def _endpoints(args: Parsed) -> dict[str, Any]:
    """NetworkingConfig.EndpointsConfig: every --network in its long form; the single options (--ip, --network-alias,
    ...) count for the first."""
    networks: list[dict[str, Any]] = [dict(item) for item in (*args.get("net"), *args.get("network"))]
    endpoints: dict[str, Any] = {}
    single = _single_options(args)
    if not networks:
        return {"default": _endpoint(_merged({"name": "default"}, single))}
    user_defined = {_user_defined(item["name"]) for item in networks}
    for at, item in enumerate(networks):
        name = item["name"]
        endpoint = _endpoint(_merged(item, single) if at == 0 else item)
        if name in endpoints:
            raise ValueError(f"network {quote(name)} is specified multiple times")
        if len(networks) == 1 and endpoint == _endpoint({"name": name}):
            continue
        endpoints[name] = endpoint
    if len(user_defined) > 1:
        raise ValueError("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
    return endpoints


def _single_options(args: Parsed) -> dict[str, Any]:
    return {
        "alias": [*args.list("network-alias"), *args.list("net-alias")],
        "link": args.list("link"),
        "ip": args.str("ip"),
        "ip6": args.str("ip6"),
        "mac-address": args.str("mac-address"),
        "link-local-ip": args.list("link-local-ip"),
    }


def _user_defined(name: str) -> bool:
    return name not in ("default", "bridge", "host", "none") and not name.startswith("container:")


def _merged(network: dict[str, Any], single: dict[str, Any]) -> dict[str, Any]:
    texts = {
        "alias": "--network-alias and per-network alias",
        "ip": "--ip and per-network IPv4 address",
        "ip6": "--ip6 and per-network IPv6 address",
        "mac-address": "--mac-address and per-network MAC address",
        "link-local-ip": "--link-local-ip and per-network link-local IP addresses",
    }
    for key, text in texts.items():
        if network.get(key) and single[key]:
            raise ValueError(f"conflicting options: cannot specify both {text}")
    links = _user_defined(network["name"])  # for the default bridge a link is an old-style one, in HostConfig
    return {**network, **{key: value for key, value in single.items() if value and (key != "link" or links)}}


def _endpoint(network: dict[str, Any]) -> dict[str, Any]:
    name = network["name"]
    if not name.strip():
        raise ValueError("no name set for network")
    if not _user_defined(name):
        if network.get("alias"):
            raise ValueError("network-scoped aliases are only supported for user-defined networks")
        if network.get("link"):
            raise ValueError("links are only supported for user-defined networks")
    addresses = {"IPv4Address": network.get("ip"), "IPv6Address": network.get("ip6"), "LinkLocalIPs": network.get("link-local-ip")}
    ipam = {key: value for key, value in addresses.items() if value}
    mac = network.get("mac-address", "")
    if mac and not check_mac(mac):
        raise ValueError(f"{mac} is not a valid mac address")
    return endpoint_settings(
        IPAMConfig=ipam or None,
        Links=network.get("link") or None,
        Aliases=network.get("alias") or None,
        MacAddress=mac,
        DriverOpts=network.get("driver-opt") or None,
        GwPriority=network.get("gw-priority", 0),
    )
