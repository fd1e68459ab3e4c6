"""Limits of a create request against what this host has: refused, adapted with a warning, or taken (moby daemon/daemon_unix.go)."""

import os
from functools import lru_cache
from typing import Any

import msgspec

from sampan.errors import InvalidArgument
from sampan.runtime.cgroups import Layout, host_layout, v1_path
from sampan.spec.docker_api.container import HostConfig

MIN_MEMORY = 6 * 1024 * 1024
MAX_NUMBER = 8192
"""Docker takes no CPU or node number above."""


_THROTTLES = (
    ("blkio_device_read_bps", "BPS Block I/O read", "BPS read"),
    ("blkio_device_write_bps", "BPS Block I/O write", "BPS write"),
    ("blkio_device_read_iops", "IOPS Block read", "IOPS read"),
    ("blkio_device_write_iops", "IOPS Block write", "IOPS write"),
)
"""Fields of Resources, and what docker's warnings call them."""


class HostLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What of the host limits depend on. cpus and nodes: lists in the kernel's form, such as `0-3`."""

    cpu_count: int
    cpus: str
    nodes: str
    memory: bool = True
    cpu_shares: bool = True
    cpu_quota: bool = True
    cpuset: bool = True
    pids: bool = True
    swap: bool = True
    swappiness: bool = True
    oom_kill_disable: bool = True
    block_weight: bool = True
    block_weight_device: bool = True
    block_throttle: bool = True
    real_time: bool = True


@lru_cache(maxsize=1)
def host_limits() -> HostLimits:
    """This host's, read once."""
    return limits_of(host_layout())


def limits_of(layout: Layout) -> HostLimits:
    """Those of a host with these hierarchies."""
    effective = _read(layout, "cpuset", "cpuset.effective_cpus", "cpuset.cpus.effective")
    nodes = _read(layout, "cpuset", "cpuset.effective_mems", "cpuset.mems.effective")
    return HostLimits(
        cpu_count=os.cpu_count() or 1,
        cpus=effective or f"0-{(os.cpu_count() or 1) - 1}",
        nodes=nodes or "0",
        memory="memory" in layout.controllers,
        cpu_shares="cpu" in layout.controllers,
        cpu_quota=_has(layout, "cpu", "cpu.cfs_quota_us"),
        cpuset="cpuset" in layout.controllers,
        pids="pids" in layout.controllers,
        swap=_has(layout, "memory", "memory.memsw.limit_in_bytes"),
        swappiness=_exists(layout, "memory", "memory.swappiness"),
        oom_kill_disable=_exists(layout, "memory", "memory.oom_control"),
        block_weight_device=_has(layout, "blkio", "blkio.weight_device"),
        block_throttle=_has(layout, "blkio", "blkio.throttle.read_bps_device"),
        real_time=_exists(layout, "cpu", "cpu.rt_runtime_us"),
        block_weight=_has(layout, "blkio", "blkio.weight"),
    )


def warnings_of(limits: HostLimits, cgroup_version: int) -> list[str]:
    """What this host cannot limit, as `info` warns of it (moby daemon/info_unix.go); not what no host of this version can."""
    is_v2 = cgroup_version == 2
    throttles = (("rbps", "read_bps"), ("wbps", "write_bps"), ("riops", "read_iops"), ("wiops", "write_iops"))
    names = (
        (limits.memory, "memory limit"),
        (limits.swap, "swap limit"),
        (limits.oom_kill_disable or is_v2, "oom kill disable"),
        (limits.cpu_quota, "cpu cfs quota"),
        (limits.cpu_quota, "cpu cfs period"),
        (limits.cpu_shares, "cpu shares"),
        (limits.cpuset, "cpuset"),
        (limits.block_weight or not is_v2, "io.weight"),
        (limits.block_weight_device or not is_v2, "io.weight (per device)"),
        *((limits.block_throttle, f"io.max ({new})" if is_v2 else f"blkio throttle.{old}_device") for new, old in throttles),
    )
    return [f"WARNING: No {name} support" for has, name in names if not has]


def _has(layout: Layout, controller: str, file: str) -> bool:
    """Whether a controller of v1 can limit what that file is of; those of v2 can with any kernel that has them."""
    if layout.version == 2:
        return ("io" if controller == "blkio" else controller) in layout.controllers
    return _exists(layout, controller, file)


def _exists(layout: Layout, controller: str, file: str) -> bool:
    directory = v1_path(layout, controller, "")
    return directory is not None and os.path.exists(directory + file)


def _read(layout: Layout, controller: str, v1: str, v2: str) -> str:
    path = f"{layout.unified}/{v2}" if layout.version == 2 else f"{v1_path(layout, controller, '') or '/nonexistent/'}{v1}"
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""


def parse_list(text: str, maximum: int = MAX_NUMBER) -> set[int]:
    """Numbers of a list such as `0,2-4`. Raises ValueError in docker's words (moby pkg/parsers ParseUintList)."""
    found = 0  # a bit for each: a text may name all of them thousands of times
    for part in text.split(",") if text else ():
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ValueError(f"invalid format: {text}")
        low, high = int(first[:10]), int(last[:10]) if dash else int(first[:10])
        if high < low:
            raise ValueError(f"invalid format: {text}")
        if high > maximum:
            raise ValueError(f"value of out range, maximum is {maximum}")
        found |= (1 << high + 1) - (1 << low)
    return {number for number in range(found.bit_length()) if found >> number & 1}


def _check_set(text: str, available: str, short: str, long: str) -> None:
    if not text:
        return
    try:
        asked = parse_list(text)
    except ValueError as error:
        raise InvalidArgument(f"Invalid value {text} for cpuset {short}: {error}") from None
    if not asked <= parse_list(available):
        raise InvalidArgument(f"Requested {long} are not available - requested {text}, available: {available}")


def _check_memory(host: HostConfig, update: bool) -> None:
    if host.memory and host.memory < MIN_MEMORY:
        raise InvalidArgument("Minimum memory limit allowed is 6MB")
    if host.memory_reservation and host.memory_reservation < MIN_MEMORY:
        raise InvalidArgument("Minimum memory reservation allowed is 6MB")
    if host.memory and host.memory_reservation > host.memory:
        raise InvalidArgument("Minimum memory limit can not be less than memory reservation limit, see usage")
    if host.memory and 0 < host.memory_swap < host.memory:
        raise InvalidArgument("Minimum memoryswap limit should be larger than memory limit, see usage")
    if not host.memory and host.memory_swap > 0 and not update:
        raise InvalidArgument("You should always set the Memory limit when using Memoryswap limit, see usage")
    if host.memory_swappiness is not None and not -1 <= host.memory_swappiness <= 100:
        raise InvalidArgument(f"Invalid value: {host.memory_swappiness}, valid memory swappiness range is 0-100")
    if host.shm_size < 0:
        raise InvalidArgument("SHM size can not be less than 0")
    if not -1000 <= host.oom_score_adj <= 1000:
        raise InvalidArgument(f"Invalid value {host.oom_score_adj}, range for oom score adj is [-1000, 1000]")


def _check_cpu(host: HostConfig, limits: HostLimits) -> None:
    if host.nano_cpus:
        if host.cpu_period:
            raise InvalidArgument("Conflicting options: Nano CPUs and CPU Period cannot both be set")
        if host.cpu_quota:
            raise InvalidArgument("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
        if not 0 < host.nano_cpus <= limits.cpu_count * 10**9:
            cpus = limits.cpu_count
            raise InvalidArgument(f"range of CPUs is from 0.01 to {cpus}.00, as there are only {cpus} CPUs available")
    if host.cpu_shares < 0:
        raise InvalidArgument(f"invalid CPU shares ({host.cpu_shares}): value must be a positive integer")
    if host.cpu_period and not 1000 <= host.cpu_period <= 1_000_000:
        raise InvalidArgument("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
    if 0 < host.cpu_quota < 1000:
        raise InvalidArgument("CPU cfs quota can not be less than 1ms (i.e. 1000)")
    if (host.cpu_realtime_period or host.cpu_realtime_runtime) and not limits.real_time:
        raise InvalidArgument("kernel does not support CPU real-time scheduler")
    if host.cpu_realtime_period and host.cpu_realtime_runtime > host.cpu_realtime_period:
        raise InvalidArgument("cpu real-time runtime cannot be higher than cpu real-time period")
    _check_set(host.cpuset_cpus, limits.cpus, "cpus", "CPUs")
    _check_set(host.cpuset_mems, limits.nodes, "mems", "memory nodes")


def _without_controllers(host: HostConfig, limits: HostLimits) -> tuple[HostConfig, list[str]]:
    """(the limits without those whose whole controller this host lacks, warnings). Raises InvalidArgument."""
    if host.nano_cpus and not limits.cpu_quota:
        raise InvalidArgument("NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler or the cgroup is not mounted")
    memory = "memory {} capabilities or the cgroup is not mounted. Limitation"
    controllers: tuple[tuple[bool, tuple[str, ...], dict[str, Any], str], ...] = (
        (limits.memory, ("memory",), {"memory": 0, "memory_swap": -1}, memory.format("limit")),
        (limits.memory, ("memory_reservation",), {"memory_reservation": 0}, memory.format("soft limit")),
        (limits.pids, ("pids_limit",), {"pids_limit": None}, "PIDs limit capabilities or the cgroup is not mounted. PIDs limit"),
        (limits.cpu_shares, ("cpu_shares",), {"cpu_shares": 0}, "CPU shares or the cgroup is not mounted. Shares"),
        (limits.cpu_quota, ("cpu_period", "cpu_quota"), {"cpu_period": 0, "cpu_quota": 0}, "CPU CFS scheduler. CPU period/quota"),
        (
            limits.cpuset,
            ("cpuset_cpus", "cpuset_mems"),
            {"cpuset_cpus": "", "cpuset_mems": ""},
            "cpuset or the cgroup is not mounted. Cpuset",
        ),
    )
    changes: dict[str, Any] = {}
    warnings: list[str] = []
    for has, fields, instead, words in controllers:
        if not has and any(getattr(host, field) for field in fields):
            changes |= instead
            warnings.append(f"Your kernel does not support {words} discarded.")
    return msgspec.structs.replace(host, **changes), warnings


def check_limits(host: HostConfig, limits: HostLimits, *, update: bool = False) -> tuple[HostConfig, list[str]]:
    """(the limits as this host can hold them, warnings of what was left out). Raises InvalidArgument in docker's words.

    update: they are changes of limits that are there.
    """
    _check_memory(host, update)
    _check_cpu(host, limits)
    host, warnings = _without_controllers(host, limits)
    changes: dict[str, Any] = {}
    if host.cpu_percent > 0:
        changes["cpu_percent"] = 0
        warnings.append("linux does not support CPU percent. Percent discarded.")
    if host.memory and host.memory_swap != -1 and not limits.swap:
        changes["memory_swap"] = -1
        warnings.append("Your kernel does not support swap limit capabilities or the cgroup is not mounted. Memory limited without swap.")
    if host.memory_swappiness is not None and host.memory_swappiness != -1 and not limits.swappiness:
        changes["memory_swappiness"] = None
        warnings.append(
            "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted. Memory swappiness discarded."
        )
    if host.oom_kill_disable and not limits.oom_kill_disable:
        changes["oom_kill_disable"] = None
        warnings.append("Your kernel does not support OomKillDisable. OomKillDisable discarded.")
    elif host.oom_kill_disable and not host.memory:
        warnings.append(
            "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources."
        )
    if host.blkio_weight and not limits.block_weight:
        changes["blkio_weight"] = 0
        warnings.append("Your kernel does not support Block I/O weight or the cgroup is not mounted. Weight discarded.")
    elif host.blkio_weight and not 10 <= host.blkio_weight <= 1000:
        raise InvalidArgument("Range of blkio weight is from 10 to 1000")
    for asked, words in ((host.io_maximum_bandwidth, "bandwidth"), (host.io_maximum_iops, "IOPs")):
        if asked:
            raise InvalidArgument(f"invalid option: QoS maximum {words} configuration is not supported on linux")
    if host.blkio_weight_device and not limits.block_weight_device:
        changes["blkio_weight_device"] = []
        warnings.append("Your kernel does not support Block I/O weight_device or the cgroup is not mounted. Weight-device discarded.")
    for field, words, short in _THROTTLES:
        if getattr(host, field) and not limits.block_throttle:
            changes[field] = []
            warnings.append(f"Your kernel does not support {words} limit or the cgroup is not mounted. Block I/O {short} limit discarded.")
    return msgspec.structs.replace(host, **changes), warnings
