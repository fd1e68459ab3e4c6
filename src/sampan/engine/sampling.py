"""Readings of what containers use: once a second, for all of them that somebody watches, however many do."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import NamedTuple

from sampan.clock import Clock
from sampan.engine.containerstore import Container, Containers
from sampan.engine.paths import Paths
from sampan.errors import NotFound
from sampan.linux import procstat
from sampan.linux.cgroupusage import Usage
from sampan.runtime import cgroups

log = logging.getLogger(__name__)

INTERVAL = 1.0
_BEHIND = 4
"""Samples that a slow client may be behind; later ones are dropped for it."""
_NET_DEV_BYTES = 1 << 18
"""A container may fill its netns with interfaces."""


class Sample(NamedTuple):
    """One reading of a running container."""

    time_ns: int
    usage: Usage
    system_cpu: int
    """Nanoseconds of all the host's processors."""
    processors: int
    networks: Mapping[str, procstat.Traffic]
    """By the name of the interface in the container; its networks' only."""


class _Target(NamedTuple):
    """What a reading needs to know of a running container: its thread touches nothing of the engine's."""

    cgroup: str
    interfaces: frozenset[str]
    net_dev: int
    """An open /proc/PID/net/dev, which the reading closes; -1 for none."""


class _End:
    """The container was removed."""


_Queue = asyncio.Queue[Sample | None | _End]


class Sampler:
    """One for an engine. Every method is for the event loop's thread."""

    def __init__(self, containers: Containers, layout: cgroups.Layout, paths: Paths, clock: Clock) -> None:
        self._containers, self._layout, self._paths, self._clock = containers, layout, paths, clock
        self._watchers: dict[Container, set[_Queue]] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nothing is read, as nobody watches."""
        return self._task is None or self._task.done()

    async def close(self) -> None:
        """Read no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def sample(self, container: Container) -> Sample | None:
        """One reading now; None when the container does not run."""
        return (await self._read([container]))[0]

    async def watch(self, container: Container) -> AsyncGenerator[Sample | None, None]:
        """Each reading, None where the container does not run; it ends with the container's removal."""
        queue: _Queue = asyncio.Queue(_BEHIND)
        self._watchers.setdefault(container, set()).add(queue)
        if self.is_idle:
            self._task = asyncio.get_running_loop().create_task(self._run())
        try:
            while True:
                found = await queue.get()
                if isinstance(found, _End):
                    return
                yield found
        finally:
            queues = self._watchers.get(container, set())
            queues.discard(queue)
            if not queues:
                self._watchers.pop(container, None)

    async def _run(self) -> None:
        while self._watchers:
            for container in [one for one in self._watchers if one.removed.is_set()]:
                for queue in self._watchers.pop(container):
                    if queue.full():
                        queue.get_nowait()
                    queue.put_nowait(_End())
            watched = list(self._watchers)
            for container, sample in zip(watched, await self._read(watched), strict=True):
                for queue in self._watchers.get(container, ()):
                    if not queue.full():
                        queue.put_nowait(sample)
            await asyncio.sleep(INTERVAL)

    async def _read(self, containers: Sequence[Container]) -> list[Sample | None]:
        if not containers:
            return []
        targets = [self._target(container) for container in containers]
        return await asyncio.shield(asyncio.to_thread(_read_all, self._layout, targets, self._clock))  # it closes what is open

    def _target(self, container: Container) -> _Target | None:
        if not container.is_running:
            return None
        owner = self._owner(container)
        names = frozenset(state.interface for state in owner.state.endpoints if state.interface) if owner is not None else frozenset[str]()
        if container.config.network_disabled:
            names = frozenset()
        return _Target(
            self._paths.cgroup_of(container),
            names,
            _net_dev(owner) if names and owner is not None else -1,
        )

    def _owner(self, container: Container) -> Container | None:
        """Whose netns it is in; None for one that does not run any more."""
        seen: set[str] = set()
        while container.host_config.network_mode.startswith("container:") and container.id not in seen:
            seen.add(container.id)
            try:
                container = self._containers.find(container.host_config.network_mode.removeprefix("container:"))
            except NotFound:
                return None
        return container if container.is_running else None


def _net_dev(container: Container) -> int:
    """Of the container's netns, whatever kinds of interfaces are in it: macvlan has no other end on the host that counts."""
    try:
        fd = os.open(f"/proc/{container.state.pid}/net/dev", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    live = container.live
    if live is None or live.has_ended:  # then its number may be another's
        os.close(fd)
        return -1
    return fd


def _read_all(layout: cgroups.Layout, targets: Sequence[_Target | None], clock: Clock) -> list[Sample | None]:
    """Blocks. Never raises: what cannot be read is None."""
    return [_read_one(layout, target, clock) if target is not None else None for target in targets]


def _read_one(layout: cgroups.Layout, target: _Target, clock: Clock) -> Sample | None:
    try:
        traffic = procstat.interfaces(_whole(target.net_dev)) if target.net_dev >= 0 else {}
        usage = cgroups.usage(layout, target.cgroup)
        if usage is None:
            return None
        processors = procstat.processors(cgroups.read("/proc/stat"))
        networks = {name: traffic[name] for name in sorted(target.interfaces) if name in traffic}
        return Sample(clock.now_ns(), usage, *processors, networks)
    except (OSError, ValueError) as error:
        log.warning("what the cgroup %s uses cannot be read: %s", target.cgroup, error)
        return None
    finally:
        if target.net_dev >= 0:
            os.close(target.net_dev)


def _whole(fd: int) -> str:
    text = b""
    while (piece := os.read(fd, 1 << 16)) and len(text) < _NET_DEV_BYTES:
        text += piece
    return text.decode("utf-8", "replace")
