"""What a cgroup has used, by the texts of its files; of both versions."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

_TICKS = 100
"""USER_HZ, in which cgroup v1 counts a cgroup's user and system time."""
_UNLIMITED = (1 << 64) - 1

V1_FILES: dict[str, tuple[str, ...]] = {
    "cpu": ("cpu.stat",),
    "cpuacct": ("cpuacct.usage", "cpuacct.usage_percpu", "cpuacct.stat"),
    "memory": (
        "memory.stat", "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.failcnt", "memory.limit_in_bytes",
    ),
    "pids": ("pids.current", "pids.max"),
    "blkio": (
        "blkio.io_service_bytes_recursive", "blkio.io_serviced_recursive", "blkio.io_queued_recursive", "blkio.io_service_time_recursive",
        "blkio.io_wait_time_recursive", "blkio.io_merged_recursive", "blkio.time_recursive", "blkio.sectors_recursive",
        "blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced",
    ),
}  # fmt: skip
"""By controller, what from_v1 looks at."""
V2_FILES = (
    "cpu.stat", "memory.stat", "memory.current", "memory.max", "memory.events", "pids.current", "pids.max", "io.stat",
)  # fmt: skip
"""What from_v2 looks at."""


class Cpu(NamedTuple):
    """Times in nanoseconds."""

    total: int = 0
    kernel: int = 0
    user: int = 0
    each: tuple[int, ...] = ()
    """By processor; v1 only."""
    periods: int = 0
    throttled_periods: int = 0
    throttled: int = 0


class Memory(NamedTuple):
    """Bytes."""

    usage: int = 0
    most: int = 0
    """v1 only."""
    limit: int = 0
    """2^64-1 for none (v2), or a number near 2^63 (v1)."""
    failures: int = 0
    """How often the limit was hit (v1), or nothing could be had (v2)."""
    stat: Mapping[str, int] = MappingProxyType({})
    """memory.stat; its keys differ by the version."""


class Io(NamedTuple):
    """One figure of a block device."""

    major: int
    minor: int
    operation: str
    value: int


class Usage(NamedTuple):
    """All of it."""

    version: int
    cpu: Cpu
    memory: Memory
    pids: int = 0
    pids_limit: int = 0
    """v1: 0 for none; v2: 2^64-1."""
    io: Mapping[str, tuple[Io, ...]] = MappingProxyType({})
    """By the v1 file's name without `blkio.`, `throttle.` and `_recursive`: io_service_bytes, io_serviced, time..."""


def number(text: str, unlimited: int = 0) -> int:
    """A file of one number; 0 for none. unlimited: what `max` is."""
    word = text.strip()
    return unlimited if word == "max" else int(word) if word.isdecimal() else 0


def pairs(text: str) -> dict[str, int]:
    """Lines of a name and a number."""
    words = (line.split() for line in text.splitlines())
    return {found[0]: int(found[1]) for found in words if len(found) == 2 and found[1].isdecimal()}


def _v1_io(text: str) -> tuple[Io, ...]:
    """Lines `MAJOR:MINOR [Operation] VALUE`; that of all devices together has no numbers."""
    found = []
    for words in map(str.split, text.splitlines()):
        major, colon, minor = words[0].partition(":") if words else ("", "", "")
        if colon and len(words) in (2, 3):
            found.append(Io(int(major), int(minor), words[1] if len(words) == 3 else "", int(words[-1])))
    return tuple(found)


def from_v1(files: Mapping[str, str]) -> Usage:
    """Of the texts of V1_FILES; what this kernel has not may be missing."""

    def text(name: str) -> str:
        return files.get(name, "")

    times, throttling = pairs(text("cpuacct.stat")), pairs(text("cpu.stat"))
    names = [name for name in V1_FILES["blkio"] if name.endswith("_recursive")]
    io = {name.removeprefix("blkio.").removesuffix("_recursive"): _v1_io(text(name)) for name in names}
    if not any(io.values()):  # no scheduler that counts: the throttling layer does
        for name in ("io_service_bytes", "io_serviced"):
            io[name] = _v1_io(text(f"blkio.throttle.{name}"))
    return Usage(
        version=1,
        cpu=Cpu(
            total=number(text("cpuacct.usage")),
            kernel=times.get("system", 0) * 1_000_000_000 // _TICKS,
            user=times.get("user", 0) * 1_000_000_000 // _TICKS,
            each=tuple(int(word) for word in text("cpuacct.usage_percpu").split() if word.isdecimal()),
            periods=throttling.get("nr_periods", 0),
            throttled_periods=throttling.get("nr_throttled", 0),
            throttled=throttling.get("throttled_time", 0),
        ),
        memory=Memory(
            usage=number(text("memory.usage_in_bytes")),
            most=number(text("memory.max_usage_in_bytes")),
            limit=number(text("memory.limit_in_bytes")),
            failures=number(text("memory.failcnt")),
            stat=pairs(text("memory.stat")),
        ),
        pids=number(text("pids.current")),
        pids_limit=number(text("pids.max")),
        io=io,
    )


def _v2_io(text: str) -> tuple[Io, ...]:
    """Lines `MAJOR:MINOR rbytes=N wbytes=N ...`; a device that was never used may have nothing behind its numbers."""
    found = []
    for device, *words in map(str.split, filter(str.strip, text.splitlines())):
        major, colon, minor = device.partition(":")
        values = dict(word.partition("=")[::2] for word in words)
        if colon and "rbytes" in values:
            for operation, key in (("read", "rbytes"), ("write", "wbytes")):
                found.append(Io(int(major), int(minor), operation, number(values.get(key, ""))))
    return tuple(found)


def from_v2(files: Mapping[str, str]) -> Usage:
    """Of the texts of V2_FILES; those of controllers that are off may be missing."""

    def text(name: str) -> str:
        return files.get(name, "")

    cpu = pairs(text("cpu.stat"))
    return Usage(
        version=2,
        cpu=Cpu(
            total=cpu.get("usage_usec", 0) * 1000,
            kernel=cpu.get("system_usec", 0) * 1000,
            user=cpu.get("user_usec", 0) * 1000,
            periods=cpu.get("nr_periods", 0),
            throttled_periods=cpu.get("nr_throttled", 0),
            throttled=cpu.get("throttled_usec", 0) * 1000,
        ),
        memory=Memory(
            usage=number(text("memory.current")),
            limit=number(text("memory.max"), _UNLIMITED),
            failures=pairs(text("memory.events")).get("oom", 0),
            stat=pairs(text("memory.stat")),
        ),
        pids=number(text("pids.current")),
        pids_limit=number(text("pids.max"), _UNLIMITED),
        io={"io_service_bytes": _v2_io(text("io.stat"))},
    )
