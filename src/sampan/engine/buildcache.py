"""The build cache as a whole: what it takes, and how it is kept small.

A step of it is an image, whose files are the image's; what the cache alone keeps are the images of builds that have no name and no child,
and the directories of `RUN --mount=type=cache`. Of these the ones used longest ago go first.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from sampan.clock import Clock
from sampan.engine.buildmounts import CacheDirectories
from sampan.engine.images import ImageService
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.filters import Filters
from sampan.spec.docker_api.image import BuildPruneReport
from sampan.state.buildcache import BuildCacheRepository, CachedStep
from sampan.units import parse_duration
from sampan.worker.client import WorkerPool

STEPS_MAX: Final = 50_000
"""Steps remembered; more are forgotten, those used longest ago first."""
MOUNT_PREFIX: Final = "mount-"
_FILTERS = ("until", "unused-for", "id", "type", "description", "inuse", "parent", "shared", "private")


class BuildCachePruning:
    """Measures and prunes it."""

    def __init__(
        self, images: ImageService, cached: BuildCacheRepository, caches: CacheDirectories, workers: WorkerPool, clock: Clock
    ) -> None:
        self._images = images
        self._cached = cached
        self._caches = caches
        self._workers = workers
        self._clock = clock

    def _idle(self) -> list[CachedStep]:
        """Steps whose image nothing but the cache keeps: no name, no child, no container."""
        return [step for step in self._cached.all() if self._images.is_idle(step.image_id)]

    async def prune(self, *, everything: bool, keep: int, filters: Filters) -> BuildPruneReport:
        """Drop what nothing else uses, and (everything) forget every step, so that builds begin anew. keep: so many bytes stay."""
        for key in filters:
            if key not in _FILTERS:
                raise InvalidArgument(f"invalid filter '{key}'")
        until = self._until(filters)
        names = filters.get("id", ())
        freed, gone = 0, []
        budget = await self._size() - keep
        for path in sorted(self._caches.prunable(), key=lambda path: path.stat().st_mtime_ns):
            name = MOUNT_PREFIX + path.name
            if _chosen(name, names) and path.stat().st_mtime_ns < until and (not keep or freed < budget):
                freed += await self._remove(path)
                gone.append(name)
        while idle := [step for step in self._idle() if _chosen(step.key, names) and step.last_used < until]:
            if keep and freed >= budget:
                break
            before = freed
            for step in idle:
                with_size = self._images.idle_size(step.image_id)
                try:
                    await self._images.remove(step.image_id, force=False, prune=True)
                except (Conflict, NotFound):
                    continue
                freed += with_size
                gone.append(step.key)
            if before == freed and not gone:
                break
        if everything:
            forgotten = [step.key for step in self._cached.all() if _chosen(step.key, names) and step.last_used < until]
            self._cached.delete(forgotten)
            gone += forgotten
        return BuildPruneReport(caches_deleted=gone or None, space_reclaimed=freed)

    def _until(self, filters: Filters) -> int:
        """Only what was not used since then, ns."""
        texts = [*filters.get("until", ()), *filters.get("unused-for", ())]
        now = self._clock.now_ns()
        if not texts:
            return now + (1 << 62)
        if len(texts) > 1 or not re.fullmatch(r"(\d+(\.\d+)?(ns|us|µs|ms|s|m|h))+", texts[0]):
            raise InvalidArgument(f"invalid until filter: {texts[0]}")
        return now - parse_duration(texts[0])

    async def _size(self) -> int:
        total = sum(self._images.idle_size(step.image_id) for step in self._idle())
        for path in self._caches.root.iterdir():
            total += await self._measure(path)
        return total

    async def _measure(self, path: Path) -> int:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            return int((await self._workers.run("usage", {}, [fd]))["size"])
        finally:
            os.close(fd)

    async def _remove(self, path: Path) -> int:
        size = await self._measure(path)
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            await self._workers.run("empty", {}, [fd])
        finally:
            os.close(fd)
        path.rmdir()
        return size

    def bound(self) -> None:
        """Forget steps beyond the number that is remembered."""
        steps = self._cached.all()
        if len(steps) > STEPS_MAX:
            self._cached.delete([step.key for step in steps[: len(steps) - STEPS_MAX]])


def _chosen(name: str, names: Sequence[str]) -> bool:
    return not names or any(name.startswith(wanted) for wanted in names)
