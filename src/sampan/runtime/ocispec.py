"""From a LaunchSpec or an ExecSpec to what supervisor/oci.py does: a plan with an OCI `config.json` for another runtime.

Pure, and made of the plan that our own child would get: mounts are decided in one place. What only the helper knows is left open: where
it has put the sources of bind mounts and namespaces (numbers and names stand for them), who the user is, and which devices there are.
Source: opencontainers/runtime-spec config.md and config-linux.md; which values docker gives, moby daemon/oci_linux.go.
"""

from typing import Any

import msgspec

from sampan.linux import capabilities, seccomp_bpf
from sampan.runtime import cgroups, defaults, ops
from sampan.runtime.cgroups import Resources, Throttle
from sampan.runtime.plan import ExecSpec, HostFacts, LaunchSpec, Process, exec_plan, host_facts, launch_plan

VERSION = "1.0.2"
"""What of the specification is used here: runc 1.0 knows it."""
UNLIMITED = 2**64 - 1
_THROTTLES: dict[Throttle, str] = {
    "read_bps": "throttleReadBpsDevice", "write_bps": "throttleWriteBpsDevice",
    "read_iops": "throttleReadIOPSDevice", "write_iops": "throttleWriteIOPSDevice",
}  # fmt: skip


class Runtime(msgspec.Struct, frozen=True):
    """How one container is to be started: the runtime's program with its own arguments, and where it may keep what it knows of it."""

    command: tuple[str, ...]
    root: str


def launch(spec: LaunchSpec, runtime: Runtime, host: HostFacts | None = None) -> dict[str, Any]:
    """The plan that starts a container by an OCI runtime. Raises InvalidArgument."""
    host = host or host_facts()
    made = launch_plan(spec, host)
    above = cgroups.parents_real_time(host.layout, spec.cgroup, *spec.parents_real_time)
    made["oci"] = {**_oci(spec.id, runtime, made, host, _config(spec, made, host)), "parents": [list(item) for item in above]}
    return {
        name: made[name] for name in ("kind", "id", "cgroup", "rootfs", "binds", "devices", "host_devices", "thermal", "process", "oci")
    }


def execute(spec: ExecSpec, container: str, runtime: Runtime, host: HostFacts | None = None) -> dict[str, Any]:
    """The plan that runs a further process in a container of an OCI runtime's. Raises InvalidArgument."""
    host = host or host_facts()
    made = exec_plan(spec, host)
    made["oci"] = _oci(container, runtime, made, host, _process(spec, made["process"], host))
    return made


def _oci(container: str, runtime: Runtime, made: dict[str, Any], host: HostFacts, config: dict[str, Any]) -> dict[str, Any]:
    hybrid = host.layout.version == 1 and host.layout.unified
    return {
        "command": list(runtime.command), "root": runtime.root, "container": container, "config": config,
        "hybrid": [host.layout.unified, made["cgroup"]["unified"]] if hybrid else [],
    }  # fmt: skip


def _process(spec: Process, planned: dict[str, Any], host: HostFacts) -> dict[str, Any]:
    """Without `user`, which the helper finds."""
    names = capabilities.names_of(planned["capabilities"])
    found = {
        "terminal": spec.tty,
        "args": planned["args"],
        "env": planned["env"],
        "cwd": planned["cwd"],
        "capabilities": {kind: names for kind in ("bounding", "effective", "permitted")},
        "rlimits": [
            {"type": f"RLIMIT_{name.upper()}", "soft": _limit(soft), "hard": _limit(hard)}
            for name, soft, hard, required in planned["rlimits"]
            if required
        ],
        "noNewPrivileges": spec.no_new_privileges,
        "oomScoreAdj": spec.oom_score_adj or 0,
        **({"apparmorProfile": planned["apparmor"]} if "apparmor" in planned else {}),
    }
    if spec.tty and spec.console_size:
        found["consoleSize"] = {"height": spec.console_size[0], "width": spec.console_size[1]}
    return found


def _limit(value: int) -> int:
    return UNLIMITED if value < 0 else value


def _config(spec: LaunchSpec, made: dict[str, Any], host: HostFacts) -> dict[str, Any]:
    uts = spec.namespaces.uts == "private"
    sysctls = {key: value for key, value, _ in made["sysctls"]}
    if uts and spec.domainname:
        sysctls["kernel.domainname"] = spec.domainname
    denied = [] if spec.privileged else [{"allow": False, "access": "rwm"}]
    linux: dict[str, Any] = {
        "namespaces": _namespaces(made["namespaces"]),
        "cgroupsPath": f"/{spec.cgroup}",
        "resources": {
            "devices": [*denied, *(device_rule(*rule) for rule in made["cgroup"]["rules"])],
            **resources(spec.resources),
        },
        "sysctl": sysctls,
        "maskedPaths": made["masked"],
        "readonlyPaths": made["readonly"],
        "devices": [],
    }
    if made["rootfs"]["propagation"] != "private":
        linux["rootfsPropagation"] = made["rootfs"]["propagation"]
    if profile := _seccomp(spec, host):
        linux["seccomp"] = profile
    return {
        "ociVersion": VERSION,
        "process": _process(spec, made["process"], host),
        "root": {"path": "rootfs", "readonly": spec.rootfs.readonly},
        **({"hostname": spec.hostname} if uts and spec.hostname else {}),
        "mounts": [entry for op in made["mounts"] if (entry := _mount(op, made["binds"])) is not None],
        "linux": linux,
        **({"hooks": {"createContainer": made["hooks"]}} if "hooks" in made else {}),
    }


def _namespaces(planned: dict[str, str]) -> list[dict[str, str]]:
    """Those that are its own or another's; the path of one that is another's is where the helper binds it."""
    names = {"pid": "pid", "net": "network", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}
    found = [{"type": "mount"}]
    for name, kind in names.items():
        if planned[name] == "private":
            found.append({"type": kind})
        elif planned[name] == "fd":
            found.append({"type": kind, "path": f"{name}ns"})
    return found


def _mount(op: dict[str, Any], binds: list[dict[str, Any]]) -> dict[str, Any] | None:
    """A launch plan's operation; None for what a runtime makes of itself: device nodes, links (config-linux.md, Default Devices)."""
    kind, destination = op["op"], op.get("destination")
    if kind == ops.OP_MOUNT:
        options = [*op["attributes"], *op["options"]]
        return {"destination": destination, "type": op["type"], "source": op.get("source") or op["type"], "options": options}
    if kind == ops.OP_BIND:
        bind = binds[op["bind"]]
        options = ["rbind" if bind["recursive"] else "bind", bind["propagation"], *bind.get("attributes", ())]
        if bind["readonly"]:
            options.append("ro")
        return {"destination": bind["destination"], "type": "bind", "source": op["bind"], "options": options}
    if kind in (ops.OP_CGROUP_V1, ops.OP_CGROUP_V2):
        options = ["nosuid", "noexec", "nodev", "ro" if op["readonly"] else "rw"]
        return {"destination": destination, "type": "cgroup", "source": "cgroup", "options": options}
    return None


def device_rule(kind: str, major: int, minor: int, access: str) -> dict[str, Any]:
    """What the device cgroup is to allow; -1: any."""
    numbers = {name: number for name, number in (("major", major), ("minor", minor)) if number >= 0}
    return {"allow": True, **({"type": kind} if kind != "a" else {}), **numbers, "access": access}


def resources(limits: Resources) -> dict[str, Any]:
    """The limits, but for devices: what is not set is left out."""
    swap = limits.memory_swap or 2 * limits.memory
    memory = {
        "limit": limits.memory, "swap": swap if limits.memory else 0, "reservation": limits.memory_reservation,
        "disableOOMKiller": limits.oom_kill_disable,
    }  # fmt: skip
    kept = {name: value for name, value in memory.items() if value}
    if limits.memory_swappiness is not None and limits.memory_swappiness >= 0:
        kept["swappiness"] = limits.memory_swappiness
    quota, period = limits.cpu()
    cpu = {
        "shares": limits.cpu_shares, "quota": quota, "period": period, "realtimeRuntime": limits.cpu_rt_runtime,
        "realtimePeriod": limits.cpu_rt_period, "cpus": limits.cpuset_cpus, "mems": limits.cpuset_mems,
    }  # fmt: skip
    found = {"memory": kept, "cpu": {name: value for name, value in cpu.items() if value}, "blockIO": _block_io(limits)}
    if limits.pids_limit > 0:
        found["pids"] = {"limit": limits.pids_limit}
    return {name: value for name, value in found.items() if value}


def _block_io(limits: Resources) -> dict[str, Any]:
    found: dict[str, Any] = {"weight": limits.blkio_weight} if limits.blkio_weight else {}
    for device, weight in limits.device_weights:
        found.setdefault("weightDevice", []).append({**_numbers(device), "weight": weight})
    for device, what, rate in limits.throttles:
        found.setdefault(_THROTTLES[what], []).append({**_numbers(device), "rate": rate})
    return found


def _numbers(device: str) -> dict[str, int]:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor)}


def _seccomp(spec: LaunchSpec, host: HostFacts) -> dict[str, Any] | None:
    """The launch plan has refused a profile that is none."""
    if spec.seccomp == "unconfined" or (spec.privileged and spec.seccomp is None):
        return None
    profile = seccomp_bpf.default_profile() if spec.seccomp is None else spec.seccomp
    return seccomp_bpf.resolved(profile, spec.capabilities or defaults.CAPABILITIES, host.machine, host.kernel)
