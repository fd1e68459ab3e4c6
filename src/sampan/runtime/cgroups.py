"""Where a container's cgroups are, what is written to them, and the daemon's own calls on them (stats, pause, remove).

Layout: <hierarchy>/<parent>/<container id> in every v1 hierarchy (and, on a hybrid host, in the v2 one too), or in the one v2 hierarchy:
docker's cgroupfs driver. The supervisor's child makes and joins them, by a plan made here.
"""

import errno
import os
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Literal

import msgspec

from sampan.linux import cgroupusage, pidfd
from sampan.linux.kernelfile import write


class Layout(msgspec.Struct, frozen=True):
    """The cgroup hierarchies of this host."""

    version: int
    v1: tuple[tuple[str, str], ...] = ()
    """(controllers as mounted, such as "cpu,cpuacct" or "systemd", mount point)"""
    unified: str = ""
    """The v2 mount point, also on a hybrid host."""
    controllers: tuple[str, ...] = ()
    """Controllers to be had (v2: of the root's cgroup.controllers)."""


Throttle = Literal["read_bps", "write_bps", "read_iops", "write_iops"]
_V2_THROTTLES: Mapping[Throttle, str] = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}


class Resources(msgspec.Struct, frozen=True, kw_only=True):
    """Limits in docker's units (bytes, microseconds, shares); 0, "" or None is 'not set'."""

    memory: int = 0
    memory_swap: int = 0
    memory_reservation: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    cpu_shares: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0
    nano_cpus: int = 0
    cpu_rt_period: int = 0
    """Microseconds, of cgroup v1 alone, as is the next."""
    cpu_rt_runtime: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int = 0
    blkio_weight: int = 0
    device_weights: tuple[tuple[str, int], ...] = ()
    """(`major:minor` of a block device, weight)"""
    throttles: tuple[tuple[str, Throttle, int], ...] = ()
    """(`major:minor` of a block device, what is limited, bytes or operations a second)"""

    def cpu(self) -> tuple[int, int]:
        """(quota, period) in microseconds, 0 for what is not set."""
        if self.nano_cpus:
            return self.nano_cpus * 100_000 // 1_000_000_000, 100_000
        return self.cpu_quota, self.cpu_period


def read_layout(mountinfo: str, controllers: str) -> Layout:
    """The layout told by the text of /proc/self/mountinfo and of the v2 root's cgroup.controllers. Pure."""
    v1: dict[str, str] = {}
    unified = ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, super_options = [*right.split(" "), "", "", ""][:3]
        point = left.split(" ")[4]
        if kind == "cgroup2":
            unified = unified or point
        elif kind == "cgroup":
            options = super_options.split(",")
            name = next((word[5:] for word in options if word.startswith("name=")), "")
            known = [word for word in options if word not in ("rw", "ro", "clone_children", "noprefix", "xattr") and "=" not in word]
            v1.setdefault(name or ",".join(known), point)
    if v1:
        names = tuple(word for key in v1 for word in key.split(","))
        return Layout(1, tuple(v1.items()), unified, names)
    return Layout(2, (), unified, tuple(controllers.split()))


@lru_cache(maxsize=1)
def host_layout() -> Layout:
    """This host's layout, read once."""
    with open("/proc/self/mountinfo") as file:
        text = file.read()
    layout = read_layout(text, "")
    if layout.version == 2 and layout.unified:
        with open(f"{layout.unified}/cgroup.controllers") as file:
            layout = read_layout(text, file.read())
    return layout


def v1_path(layout: Layout, controller: str, path: str) -> str | None:
    """The directory of a cgroup in the hierarchy that has the controller."""
    for names, point in layout.v1:
        if controller in names.split(","):
            return f"{point}/{path}"
    return None


def unified_directory(layout: Layout, path: str) -> str:
    """The directory of a cgroup in the v2 hierarchy; "" where there is none."""
    return f"{layout.unified}/{path}" if layout.unified else ""


def directories(layout: Layout, path: str) -> list[str]:
    """Every directory of a cgroup."""
    found = [f"{point}/{path}" for _, point in layout.v1]
    unified = unified_directory(layout, path)
    return [*found, unified] if unified else found


def _v1_writes(resources: Resources) -> list[tuple[str, str, str]]:
    quota, period = resources.cpu()
    writes: list[tuple[str, str, str]] = []
    if resources.memory:
        writes.append(("memory", "memory.limit_in_bytes", str(resources.memory)))
        swap = resources.memory_swap or 2 * resources.memory
        writes.append(("memory", "memory.memsw.limit_in_bytes", str(swap)))
    if resources.memory_reservation:
        writes.append(("memory", "memory.soft_limit_in_bytes", str(resources.memory_reservation)))
    if resources.memory_swappiness is not None and resources.memory_swappiness >= 0:
        writes.append(("memory", "memory.swappiness", str(resources.memory_swappiness)))
    if resources.oom_kill_disable:
        writes.append(("memory", "memory.oom_control", "1"))
    if resources.cpu_shares:
        writes.append(("cpu", "cpu.shares", str(resources.cpu_shares)))
    if period:
        writes.append(("cpu", "cpu.cfs_period_us", str(period)))
    if quota:
        writes.append(("cpu", "cpu.cfs_quota_us", str(quota)))
    if resources.cpu_rt_period:
        writes.append(("cpu", "cpu.rt_period_us", str(resources.cpu_rt_period)))
    if resources.cpu_rt_runtime:
        writes.append(("cpu", "cpu.rt_runtime_us", str(resources.cpu_rt_runtime)))
    if resources.cpuset_cpus:
        writes.append(("cpuset", "cpuset.cpus", resources.cpuset_cpus))
    if resources.cpuset_mems:
        writes.append(("cpuset", "cpuset.mems", resources.cpuset_mems))
    if resources.pids_limit > 0:
        writes.append(("pids", "pids.max", str(resources.pids_limit)))
    if resources.blkio_weight:
        writes.append(("blkio", "blkio.weight", str(resources.blkio_weight)))
    writes += [("blkio", "blkio.weight_device", f"{device} {weight}") for device, weight in resources.device_weights]
    writes += [("blkio", f"blkio.throttle.{what}_device", f"{device} {rate}") for device, what, rate in resources.throttles]
    return writes


def _v2_writes(resources: Resources) -> list[tuple[str, str, str]]:
    quota, period = resources.cpu()
    writes: list[tuple[str, str, str]] = []
    if resources.memory:
        writes.append(("memory", "memory.max", str(resources.memory)))
        swap = "max" if resources.memory_swap == -1 else str((resources.memory_swap or 2 * resources.memory) - resources.memory)
        writes.append(("memory", "memory.swap.max", swap))
    if resources.memory_reservation:
        writes.append(("memory", "memory.low", str(resources.memory_reservation)))
    if resources.cpu_shares:
        writes.append(("cpu", "cpu.weight", str(1 + (max(2, resources.cpu_shares) - 2) * 9999 // 262142)))
    if quota or period:
        writes.append(("cpu", "cpu.max", f"{quota if quota > 0 else 'max'} {period or 100_000}"))
    if resources.cpuset_cpus:
        writes.append(("cpuset", "cpuset.cpus", resources.cpuset_cpus))
    if resources.cpuset_mems:
        writes.append(("cpuset", "cpuset.mems", resources.cpuset_mems))
    if resources.pids_limit > 0:
        writes.append(("pids", "pids.max", str(resources.pids_limit)))
    weights = [*([("default", resources.blkio_weight)] if resources.blkio_weight else []), *resources.device_weights]
    writes += [("io", "io.bfq.weight", f"{device} {weight}") for device, weight in weights]
    writes += [("io", "io.weight", f"{device} {_io_weight(weight)}") for device, weight in weights]
    writes += [("io", "io.max", f"{device} {_V2_THROTTLES[what]}={rate}") for device, what, rate in resources.throttles]
    return writes


def _io_weight(weight: int) -> int:
    """10 to 1000 of v1 as 1 to 10000 of v2."""
    return 1 + (weight - 10) * 9999 // 990


_OPTIONAL = ("memsw", "swap.max", "bfq")


def resource_writes(layout: Layout, path: str, resources: Resources) -> list[tuple[str, str, bool]]:
    """(file, value, required) of every limit. Optional is what some kernels have no file for: swap accounting, the scheduler BFQ.

    Some have weights of BFQ only: who writes asks cgroup2.has_bfq_instead of a required file that is not there.
    """
    result: list[tuple[str, str, bool]] = []
    for controller, file, value in _v1_writes(resources) if layout.version == 1 else _v2_writes(resources):
        directory = v1_path(layout, controller, path) if layout.version == 1 else f"{layout.unified}/{path}"
        if directory is not None:
            result.append((f"{directory}/{file}", value, not any(word in file for word in _OPTIONAL)))
    return result


def parents_real_time(layout: Layout, path: str, period: int, runtime: int) -> list[tuple[str, str, bool]]:
    """(file, value, required) that gives every cgroup above a container's real-time scheduling, the uppermost first.

    0 is not written. A cgroup can have no more than the one above it has; cgroup v2 has none.
    """
    root = v1_path(layout, "cpu", "")
    if root is None:
        return []
    parts = path.strip("/").split("/")[:-1]
    above = [root + "/".join(parts[:depth]) for depth in range(1, len(parts) + 1)]
    files = (("cpu.rt_period_us", period), ("cpu.rt_runtime_us", runtime))
    return [(f"{directory}/{file}", str(value), True) for directory in above for file, value in files if value]


def remove(layout: Layout, path: str, timeout: float = 1.0) -> list[str]:
    """Remove an ended container's cgroups; the directories that would not go (still populated) are returned.

    A cgroup stays busy for a moment after its last process was reaped, hence the retries, timeout in seconds for all.
    """
    deadline = time.monotonic() + timeout
    left = directories(layout, path)
    while left:
        busy = []
        for directory in left:
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno == errno.EBUSY:
                    _remove_children(directory)
                busy.append(directory)
        left = busy
        if not left or time.monotonic() >= deadline:
            break
        time.sleep(0.002)
    return left


def _remove_children(directory: str) -> None:
    """Sub-cgroups a container made itself, deepest first."""
    for folder, _, _ in os.walk(directory, topdown=False):
        if folder != directory:
            try:
                os.rmdir(folder)
            except OSError:
                continue


def freeze(layout: Layout, path: str, frozen: bool, timeout: float = 5.0) -> None:
    """Pause or resume; returns when the kernel says it is done. Raises OSError, TimeoutError."""
    deadline = time.monotonic() + timeout
    if layout.version == 1:
        directory = v1_path(layout, "freezer", path)
        if directory is None:
            raise OSError(errno.ENOTSUP, "no freezer cgroup", path)
        wanted = "FROZEN" if frozen else "THAWED"
        while True:
            write(f"{directory}/freezer.state", wanted)
            if read(f"{directory}/freezer.state").strip() == wanted:
                return
            if time.monotonic() > deadline:
                write(f"{directory}/freezer.state", "THAWED")
                raise TimeoutError("the cgroup does not freeze")
            time.sleep(0.001)
    directory = f"{layout.unified}/{path}"
    write(f"{directory}/cgroup.freeze", str(int(frozen)))
    while f"frozen {int(frozen)}" not in read(f"{directory}/cgroup.events"):
        if time.monotonic() > deadline:
            write(f"{directory}/cgroup.freeze", "0")
            raise TimeoutError("the cgroup does not freeze")
        time.sleep(0.001)


def is_frozen(layout: Layout, path: str) -> bool:
    """Whether a container's processes are paused (or on the way there)."""
    try:
        if layout.version == 1:
            directory = v1_path(layout, "freezer", path)
            return directory is not None and read(f"{directory}/freezer.state").strip() != "THAWED"
        return read(f"{layout.unified}/{path}/cgroup.freeze").strip() == "1"
    except OSError:
        return False


def read(file: str) -> str:
    """The text of a cgroup file. Raises OSError."""
    with open(file) as handle:
        return handle.read()


def usage(layout: Layout, path: str) -> cgroupusage.Usage | None:
    """What a container's cgroup has used; None when it is gone. Blocks."""
    if layout.version == 2:
        return cgroupusage.from_v2(files) if (files := _texts(f"{layout.unified}/{path}", cgroupusage.V2_FILES)) else None
    found: dict[str, str] = {}
    for controller, names in cgroupusage.V1_FILES.items():
        directory = v1_path(layout, controller, path)
        if directory is not None:
            found |= _texts(directory, names)
    return cgroupusage.from_v1(found) if found else None


def _texts(directory: str, names: Sequence[str]) -> dict[str, str]:
    """Those of the files that there are."""
    found: dict[str, str] = {}
    for name in names:
        with suppress(OSError):
            found[name] = read(f"{directory}/{name}")
    return found


def processes(layout: Layout, path: str) -> list[int]:
    """PIDs (host's) in the container's cgroup and below; empty when it is gone."""
    directory = v1_path(layout, "pids", path) or v1_path(layout, "memory", path) if layout.version == 1 else f"{layout.unified}/{path}"
    found: list[int] = []
    for folder, _, _ in os.walk(directory or ""):
        try:
            found.extend(int(line) for line in read(f"{folder}/cgroup.procs").split())
        except OSError:
            continue
    return found


def kill_all(layout: Layout, path: str) -> bool:
    """SIGKILL every process of a container's cgroup, a frozen one included; whether there was one. New ones may be forked meanwhile."""
    handles: dict[int, int] = {}
    try:
        for pid in processes(layout, path):
            with suppress(OSError):
                handles[pid] = os.pidfd_open(pid)
        # A number read twice with the handle taken in between: the handle is that of a process in there.
        for pid in set(processes(layout, path)) & set(handles):
            with suppress(ProcessLookupError):
                pidfd.send_signal(handles[pid], signal.SIGKILL)
    finally:
        for fd in handles.values():
            os.close(fd)
    if handles:
        with suppress(OSError, TimeoutError):
            freeze(layout, path, frozen=False)
    return bool(handles)


def oom_kills(layout: Layout, path: str) -> int:
    """How many processes the OOM killer took in this cgroup; 0 when it is gone or not counted."""
    try:
        if layout.version == 1:
            directory = v1_path(layout, "memory", path)
            text = read(f"{directory}/memory.oom_control")
        else:
            text = read(f"{layout.unified}/{path}/memory.events")
    except OSError:
        return 0
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == "oom_kill":
            return int(value)
    return 0
