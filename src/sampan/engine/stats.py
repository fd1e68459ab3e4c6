"""docker stats: samples as docker's documents."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

from sampan.clock import ZERO_TIME, rfc3339nano
from sampan.engine.containerstore import Container, Containers
from sampan.engine.sampling import Sample, Sampler
from sampan.errors import InvalidArgument
from sampan.linux import cgroupusage
from sampan.spec.docker_api import stats as api

_V1_MEMORY = (
    "cache", "rss", "rss_huge", "mapped_file", "dirty", "writeback", "pgpgin", "pgpgout", "pgfault", "pgmajfault", "inactive_anon",
    "active_anon", "inactive_file", "active_file", "unevictable",
)  # fmt: skip
_V2_MEMORY = (
    "anon", "file", "kernel_stack", "slab", "sock", "shmem", "file_mapped", "file_dirty", "file_writeback", "anon_thp", "inactive_anon",
    "active_anon", "inactive_file", "active_file", "unevictable", "slab_reclaimable", "slab_unreclaimable", "pgfault", "pgmajfault",
    "workingset_refault", "workingset_activate", "workingset_nodereclaim", "pgrefill", "pgscan", "pgsteal", "pgactivate", "pgdeactivate",
    "pglazyfree", "pglazyfreed", "thp_fault_alloc", "thp_collapse_alloc",
)  # fmt: skip
MEMORY_KEYS: Mapping[int, tuple[str, ...]] = {
    1: tuple(sorted((*_V1_MEMORY, *(f"total_{key}" for key in _V1_MEMORY), "hierarchical_memory_limit", "hierarchical_memsw_limit"))),
    2: tuple(sorted(_V2_MEMORY)),
}
"""What docker shows of memory.stat, by the version of cgroups; 0 where this kernel has no such line."""


class StatsService:
    """See api/services.py for the contract of each method."""

    def __init__(self, containers: Containers, sampler: Sampler) -> None:
        self._containers, self._sampler = containers, sampler
        self._host_memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

    async def once(self, ref: str, *, one_shot: bool) -> api.Stats | None:
        """One document; None when the container is removed meanwhile."""
        container = self._containers.find(ref)
        if not container.is_running:
            return _named(container)
        if one_shot:
            sample = await self._sampler.sample(container)
            # Docker names the container in this one only when it has nothing else to say.
            return document(sample, self._host_memory) if sample is not None else _named(container)
        documents = self._documents(container)
        try:
            await anext(documents, None)
            return await anext(documents, None)
        finally:
            await documents.aclose()

    def stream(self, ref: str, *, one_shot: bool) -> AsyncIterator[api.Stats]:
        """A document a second."""
        container = self._containers.find(ref)
        if one_shot:
            raise InvalidArgument("cannot have stream=true and one-shot=true")
        return self._documents(container)

    async def _documents(self, container: Container) -> AsyncGenerator[api.Stats, None]:
        before = api.Stats()
        watched = self._sampler.watch(container)
        try:
            async for sample in watched:
                made = document(sample, self._host_memory, before, container)
                yield made
                before = made
        finally:
            await watched.aclose()


def _named(container: Container) -> api.Stats:
    return api.Stats(name=f"/{container.name}", id=container.id)


def document(sample: Sample | None, host_memory: int, before: api.Stats | None = None, container: Container | None = None) -> api.Stats:
    """A sample as docker shows it. before: the last document of the same stream; container: None leaves its name out. Pure."""
    name, key = (f"/{container.name}", str(container.id)) if container is not None else ("", "")
    preread, precpu = (before.read, before.cpu_stats) if before is not None else (ZERO_TIME, api.CpuStats())
    if sample is None:
        return api.Stats(name=name, id=key, preread=preread, precpu_stats=precpu)
    usage = sample.usage
    return api.Stats(
        name=name,
        id=key,
        read=rfc3339nano(sample.time_ns),
        preread=preread,
        pids_stats=api.PidsStats(current=usage.pids, limit=usage.pids_limit),
        blkio_stats=_blkio(usage),
        cpu_stats=_cpu(sample),
        precpu_stats=precpu,
        memory_stats=_memory(usage, host_memory),
        networks={interface: api.NetworkStats(**traffic._asdict()) for interface, traffic in sample.networks.items()} or None,
    )


def _cpu(sample: Sample) -> api.CpuStats:
    cpu = sample.usage.cpu
    return api.CpuStats(
        cpu_usage=api.CpuUsage(
            total_usage=cpu.total, percpu_usage=list(cpu.each) or None, usage_in_kernelmode=cpu.kernel, usage_in_usermode=cpu.user
        ),
        system_cpu_usage=sample.system_cpu,
        online_cpus=sample.processors,
        throttling_data=api.ThrottlingData(
            periods=cpu.periods, throttled_periods=cpu.throttled_periods, throttled_time=cpu.throttled
        ),
    )  # fmt: skip


def _memory(usage: cgroupusage.Usage, host_memory: int) -> api.MemoryStats:
    memory = usage.memory
    return api.MemoryStats(
        usage=memory.usage,
        max_usage=memory.most,
        stats={key: memory.stat.get(key, 0) for key in MEMORY_KEYS[usage.version]},
        failcnt=memory.failures,
        limit=min(memory.limit, host_memory),
    )


def _blkio(usage: cgroupusage.Usage) -> api.BlkioStats:
    def entries(name: str) -> list[api.BlkioEntry] | None:
        found = usage.io.get(name, () if usage.version == 1 else None)
        if found is None or (usage.version == 2 and not found):
            return None
        return [api.BlkioEntry(major=one.major, minor=one.minor, op=one.operation, value=one.value) for one in found]

    return api.BlkioStats(
        io_service_bytes_recursive=entries("io_service_bytes"),
        io_serviced_recursive=entries("io_serviced"),
        io_queue_recursive=entries("io_queued"),
        io_service_time_recursive=entries("io_service_time"),
        io_wait_time_recursive=entries("io_wait_time"),
        io_merged_recursive=entries("io_merged"),
        io_time_recursive=entries("time"),
        sectors_recursive=entries("sectors"),
    )
