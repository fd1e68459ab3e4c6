"""What a container uses (moby api/types/container/stats.go; API v1.51)."""

import msgspec

from sampan.clock import ZERO_TIME
from sampan.spec.docker_api.base import always


class _Part(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Here docker's names are in lower case."""


class ThrottlingData(_Part, frozen=True, kw_only=True):
    """Periods of the CPU quota; the time is in nanoseconds."""

    periods: int = always(0)
    throttled_periods: int = always(0)
    throttled_time: int = always(0)


class CpuUsage(_Part, frozen=True, kw_only=True):
    """Nanoseconds."""

    total_usage: int = always(0)
    percpu_usage: list[int] | None = None
    usage_in_kernelmode: int = always(0)
    usage_in_usermode: int = always(0)


class CpuStats(_Part, frozen=True, kw_only=True):
    """A container's processor time, and the host's at that moment."""

    cpu_usage: CpuUsage = always(CpuUsage())
    system_cpu_usage: int = 0
    online_cpus: int = 0
    throttling_data: ThrottlingData = always(ThrottlingData())


class MemoryStats(_Part, frozen=True, kw_only=True):
    """Bytes; `stats` has other keys by the version of cgroups."""

    usage: int = 0
    max_usage: int = 0
    stats: dict[str, int] | None = None
    failcnt: int = 0
    limit: int = 0


class BlkioEntry(_Part, frozen=True, kw_only=True):
    """One figure of a block device."""

    major: int = always(0)
    minor: int = always(0)
    op: str = always("")
    value: int = always(0)


class BlkioStats(_Part, frozen=True, kw_only=True):
    """null is what was not counted."""

    io_service_bytes_recursive: list[BlkioEntry] | None = always(None)
    io_serviced_recursive: list[BlkioEntry] | None = always(None)
    io_queue_recursive: list[BlkioEntry] | None = always(None)
    io_service_time_recursive: list[BlkioEntry] | None = always(None)
    io_wait_time_recursive: list[BlkioEntry] | None = always(None)
    io_merged_recursive: list[BlkioEntry] | None = always(None)
    io_time_recursive: list[BlkioEntry] | None = always(None)
    sectors_recursive: list[BlkioEntry] | None = always(None)


class PidsStats(_Part, frozen=True, kw_only=True):
    """Tasks, and how many there may be."""

    current: int = 0
    limit: int = 0


class NetworkStats(_Part, frozen=True, kw_only=True):
    """What went through one interface, as the container sees it."""

    rx_bytes: int = always(0)
    rx_packets: int = always(0)
    rx_errors: int = always(0)
    rx_dropped: int = always(0)
    tx_bytes: int = always(0)
    tx_packets: int = always(0)
    tx_errors: int = always(0)
    tx_dropped: int = always(0)


class StorageStats(_Part, frozen=True, kw_only=True):
    """Windows fills it."""


class Stats(_Part, frozen=True, kw_only=True):
    """GET /containers/{id}/stats: what is left at its default is a container's that does not run."""

    name: str = ""
    id: str = ""
    read: str = always(ZERO_TIME)
    preread: str = always(ZERO_TIME)
    pids_stats: PidsStats = always(PidsStats())
    blkio_stats: BlkioStats = always(BlkioStats())
    num_procs: int = always(0)
    storage_stats: StorageStats = always(StorageStats())
    cpu_stats: CpuStats = always(CpuStats())
    precpu_stats: CpuStats = always(CpuStats())
    memory_stats: MemoryStats = always(MemoryStats())
    networks: dict[str, NetworkStats] | None = None
