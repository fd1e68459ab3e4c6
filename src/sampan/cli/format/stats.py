"""The fields of `sampan stats`, computed from the daemon's documents as docker's client does. Methods have the fields' names."""

from __future__ import annotations

from sampan.cli.format.containers import short_id
from sampan.cli.format.values import Methods
from sampan.units import bytes_size, human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

HEADER = {
    "Container": "CONTAINER",
    "Name": "NAME",
    "ID": "CONTAINER ID",
    "CPUPerc": "CPU %",
    "MemUsage": "MEM USAGE / LIMIT",
    "MemPerc": "MEM %",
    "NetIO": "NET I/O",
    "BlockIO": "BLOCK I/O",
    "PIDs": "PIDS",
}
TABLE = (
    "table {{.ID}}\t{{.Name}}\t{{.CPUPerc}}\t{{.MemUsage}}\t{{.MemPerc}}\t{{.NetIO}}\t{{.BlockIO}}\t{{.PIDs}}"
)  # fmt: skip
_UNKNOWN = "--"


def cpu_percent(stats: dict[str, Any]) -> float:
    """The share of one processor between the document's two readings: 200 for two that are busy all the time."""
    now, before = stats.get("cpu_stats") or {}, stats.get("precpu_stats") or {}
    usage = now.get("cpu_usage") or {}
    used = float(usage.get("total_usage") or 0) - float((before.get("cpu_usage") or {}).get("total_usage") or 0)
    had = float(now.get("system_cpu_usage") or 0) - float(before.get("system_cpu_usage") or 0)
    processors = float(now.get("online_cpus") or len(usage.get("percpu_usage") or ()))
    return used / had * processors * 100.0 if used > 0 and had > 0 else 0.0


def memory_used(memory: dict[str, Any]) -> int:
    """Without the cache that can be dropped at once: of cgroup v1 its total_inactive_file, of v2 its inactive_file."""
    usage: int = memory.get("usage") or 0
    figures = memory.get("stats") or {}
    for key in ("total_inactive_file", "inactive_file"):
        cache = figures.get(key)
        if cache is not None and cache < usage:
            return usage - int(cache)
    return usage


def block_io(stats: dict[str, Any]) -> tuple[int, int]:
    """Bytes read from disks and written."""
    totals = {"r": 0, "w": 0}
    for entry in (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or ():
        kind = (entry.get("op") or "")[:1].lower()
        if kind in totals:
            totals[kind] += entry.get("value") or 0
    return totals["r"], totals["w"]


class Entry(Methods):
    """One row. container: as the user named it; known: whether there are figures."""

    go_type = "*container.statsContext"
    METHODS = tuple(HEADER)

    def __init__(self, container: str, stats: dict[str, Any], *, known: bool, trunc: bool) -> None:
        self.container, self.s, self.known, self.trunc = container, stats, known, trunc

    def Container(self) -> str:
        return self.container

    def Name(self) -> str:
        name: str = self.s.get("name") or ""
        return name[1:] if len(name) > 1 else _UNKNOWN

    def ID(self) -> str:
        full: str = self.s.get("id") or ""
        return short_id(full) if self.trunc else full

    def CPUPerc(self) -> str:
        return f"{cpu_percent(self.s):.2f}%" if self.known else _UNKNOWN

    def _memory(self) -> tuple[int, int]:
        memory = self.s.get("memory_stats") or {}
        return memory_used(memory), memory.get("limit") or 0

    def MemUsage(self) -> str:
        used, limit = self._memory()
        return f"{bytes_size(used)} / {bytes_size(limit)}" if self.known else "-- / --"

    def MemPerc(self) -> str:
        used, limit = self._memory()
        return f"{used / limit * 100.0 if limit else 0.0:.2f}%" if self.known else _UNKNOWN

    def NetIO(self) -> str:
        networks = (self.s.get("networks") or {}).values()
        received, sent = (sum(one.get(key) or 0 for one in networks) for key in ("rx_bytes", "tx_bytes"))
        return f"{human_size(received, 3)} / {human_size(sent, 3)}" if self.known else _UNKNOWN

    def BlockIO(self) -> str:
        read, written = block_io(self.s)
        return f"{human_size(read, 3)} / {human_size(written, 3)}" if self.known else _UNKNOWN

    def PIDs(self) -> str:
        return str((self.s.get("pids_stats") or {}).get("current") or 0) if self.known else _UNKNOWN
