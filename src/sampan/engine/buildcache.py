"""The build cache as a whole: what it takes, and how it is kept small.

A step of it is an image, whose files are the image's; what the cache alone keeps are the images of builds that have no name and no child,
and the directories of `RUN --mount=type=cache`. Of these the ones used longest ago go first.
"""

import asyncio
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from sampan.clock import Clock
from sampan.engine.buildmounts import CacheDirectories
from sampan.engine.images import ImageService
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.filters import Filters, check_keys
from sampan.spec.docker_api.image import BuildPruneReport
from sampan.state.buildcache import BuildCacheRepository
from sampan.units import parse_duration
from sampan.worker.client import WorkerPool

STEPS_MAX: Final = 50_000
"""Steps remembered; more are forgotten, those used longest ago first."""
_SHARE: Final = 10
_SHARE_MIN: Final = 2 << 30
"""What the cache alone may take: a tenth of the disk, or 2 GiB."""
MOUNT_PREFIX: Final = "mount-"
_FILTERS = ("until", "unused-for", "id", "type", "description", "inuse", "parent", "shared", "private", "label", "label!")


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
        self._pruning = asyncio.Lock()

    async def prune(self, *, everything: bool, keep: int, filters: Filters) -> BuildPruneReport:
        """Drop what nothing else uses, and (everything) forget every step, so that builds begin anew. keep: so many bytes stay."""
        check_keys(filters, _FILTERS)
        if filters.get("label"):  # `system prune` says so to all kinds; nothing here has one
            return BuildPruneReport()
        if self._pruning.locked():
            raise Conflict("a prune operation is already running")
        async with self._pruning:
            return await self._prune(everything=everything, keep=keep, until=self._until(filters), names=filters.get("id", ()))

    async def _prune(self, *, everything: bool, keep: int, until: int, names: Sequence[str]) -> BuildPruneReport:
        mounts = await self._mounts()
        idle = self._images.idle(step.image_id for step in self._cached.all())
        left = (sum(mounts.values()) + sum(idle.values()) - keep) if keep else 1 << 62
        """Bytes still to go."""
        freed = 0
        gone: list[str] = []
        for path, size in sorted(mounts.items(), key=lambda item: item[0].stat().st_mtime_ns):
            name = MOUNT_PREFIX + path.name
            if left > freed and _chosen(name, names) and path.stat().st_mtime_ns < until:
                await self._remove(path)
                freed += size
                gone.append(name)
        while idle and left > freed:  # the parents of what goes are idle then
            before = len(gone)
            for step in self._cached.all():
                if step.image_id in idle and left > freed and _chosen(step.key, names) and step.last_used < until:
                    with suppress(Conflict, NotFound):
                        await self._images.remove(step.image_id, force=False, prune=False)
                        freed += idle.pop(step.image_id)
                        gone.append(step.key)
            if len(gone) == before:
                break
            idle = self._images.idle(step.image_id for step in self._cached.all())
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

    async def _mounts(self) -> dict[Path, int]:
        """The directories that no step is using, and their bytes."""
        found: dict[Path, int] = {}
        for path in self._caches.prunable():
            with opened(path) as fd:
                found[path] = int((await self._workers.run("usage", {}, [fd]))["size"])
        return found

    async def _remove(self, path: Path) -> None:
        gone = path.with_name(f"gone-{os.urandom(8).hex()}")
        path.rename(gone)  # a step that begins now gets a new one
        with opened(gone) as fd:
            await self._workers.run("empty", {}, [fd])
        gone.rmdir()

    async def bound(self) -> None:
        """After a build: keep the cache as small as it has to be, on its own account."""
        steps = self._cached.all()
        if len(steps) > STEPS_MAX:
            self._cached.delete([step.key for step in steps[: len(steps) - STEPS_MAX]])
        disk = os.statvfs(self._caches.root)
        keep = max(disk.f_blocks * disk.f_frsize // _SHARE, _SHARE_MIN)
        with suppress(Conflict):
            await self.prune(everything=False, keep=keep, filters={})


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """A directory's descriptor."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def _chosen(name: str, names: Sequence[str]) -> bool:
    return not names or any(name.startswith(wanted) for wanted in names)
