"""The build cache as a whole: how it is pruned, and kept small.

Steps' images that nobody names and directories of `RUN --mount=type=cache` go by one order: those used longest ago first. What a build or a
container is at work with stays, and so does what an image with a name was built from.
"""

import asyncio
import heapq
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import count
from typing import Final, NamedTuple

from sampan.clock import Clock
from sampan.digest import ChainId
from sampan.engine.buildmounts import CacheDirectories
from sampan.engine.buildoptions import CacheLimits
from sampan.engine.buildspool import remove_tree
from sampan.engine.cacheentries import CacheEntries, Entry
from sampan.engine.images import ImageService
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.filters import Filters, check_keys, moment_ns
from sampan.image.store import Image, ImageStore
from sampan.snapshot.api import Snapshots
from sampan.spec.docker_api.image import BuildPruneReport
from sampan.state.buildcache import BuildCacheRepository
from sampan.worker.client import WorkerPool

STEPS_MAX: Final = 50_000
"""Steps remembered; more are forgotten, those used longest ago first."""
_SHARE: Final = 10
_SHARE_MIN: Final = 2 << 30
"""What the cache alone may take: a tenth of the disk, but 2 GiB at least."""
_FIELDS: Final = ("id", "parent", "type", "description", "inuse", "shared", "private")
_FILTERS: Final = (*_FIELDS, "until", "unused-for", "label", "label!")
_YES: Final = ("", "1", "true")
_NO: Final = ("0", "false")


class _Wanted(NamedTuple):
    """What filters choose."""

    until: int | None
    """Only what was not used since then, ns."""
    fields: Mapping[str, str]

    def takes(self, entries: Sequence[Entry]) -> bool:
        """Whether they choose something that goes as one: an image may be several steps'."""
        if self.until is not None and any(entry.last_used > self.until for entry in entries):
            return False
        return any(all(_matches(entry, field, text) for field, text in self.fields.items()) for entry in entries)


def _matches(entry: Entry, field: str, text: str) -> bool:
    match field:
        case "id":
            return text in entry.id
        case "parent":
            return any(parent.startswith(text) for parent in entry.parents)
        case "type":
            return text == entry.type
        case "description":
            return text == entry.description
    holds = {"inuse": entry.in_use, "shared": entry.shared, "private": not entry.shared}[field]
    return text in (_YES if holds else _NO)


class _Turns:
    """What may go, used longest ago first: what is built upon only once that has gone."""

    def __init__(self, entries: Iterable[Entry], images: Iterable[Image]) -> None:
        images = list(images)
        self._steps: dict[str, list[Entry]] = {}
        self._children = Counter(image.parent for image in images)
        self._parents: dict[str, str] = {image.id: image.parent for image in images}
        self._layers = Counter(name for image in images for name in image.chain)
        self._number = count()
        self._heap: list[tuple[int, int, list[Entry]]] = []
        for entry in entries:
            if entry.shared or entry.in_use:
                continue
            if entry.image is None:
                self._push([entry])
            else:
                self._steps.setdefault(entry.image, []).append(entry)
        for image_id, steps in self._steps.items():
            if not self._children[image_id]:
                self._push(steps)

    def _push(self, entries: list[Entry]) -> None:
        heapq.heappush(self._heap, (max(entry.last_used for entry in entries), next(self._number), entries))

    def __iter__(self) -> Iterator[Sequence[Entry]]:
        while self._heap:
            yield heapq.heappop(self._heap)[2]

    def went(self, image: Image) -> list[ChainId]:
        """An image has gone: the layers that no other has."""
        self._layers.subtract(image.chain)
        self._children[image.parent] -= 1
        if not self._children[image.parent] and image.parent in self._steps:
            self._push(self._steps[image.parent])
        return [name for name in image.chain if not self._layers[name]]


class BuildCachePruning:
    """Prunes it."""

    def __init__(
        self,
        images: ImageService,
        store: ImageStore,
        snapshots: Snapshots,
        cached: BuildCacheRepository,
        directories: CacheDirectories,
        entries: CacheEntries,
        workers: WorkerPool,
        clock: Clock,
    ) -> None:
        self._images = images
        self._store = store
        self._snapshots = snapshots
        self._cached = cached
        self._directories = directories
        self._entries = entries
        self._workers = workers
        self._clock = clock
        self._pruning = asyncio.Lock()

    async def prune(self, *, everything: bool, limits: CacheLimits, filters: Filters) -> BuildPruneReport:
        """Drop what nothing else uses, as far as limits say, and (everything, without limits) forget every step: builds begin anew."""
        try:
            wanted = self._wanted(filters)
        except InvalidArgument as error:
            raise InvalidArgument(f"failed to prune build cache: {error.message}") from None
        if filters.get("label") or filters.get("label!"):  # `system prune` says so to all kinds; nothing here has one
            return BuildPruneReport()
        if self._pruning.locked():
            raise Conflict("a prune operation is already running")
        async with self._pruning:
            return await self._prune(everything, limits, wanted)

    async def _prune(self, everything: bool, limits: CacheLimits, wanted: _Wanted) -> BuildPruneReport:
        for path in self._directories.left():
            await remove_tree(self._workers, path)
        sizes = {layer.name: layer.size for layer in self._snapshots.layers()}
        entries = [*self._entries.steps(lambda name: sizes.get(name, 0)), *await self._entries.mounts()]
        total = sum(entry.size for entry in entries if not entry.shared)
        keep = self._keep(limits, total)
        freed = 0
        gone: list[str] = []
        turns = _Turns(entries, self._store.all())
        for going in turns:
            if keep is not None and total - freed <= keep:
                break
            if wanted.takes(going):
                size = await self._take_out(going[0], turns, sizes)
                if size is not None:
                    freed += size
                    gone += [entry.id for entry in going]
        if everything and keep is None:
            forgotten = [entry.id for entry in self._entries.steps(lambda _: 0) if wanted.takes([entry])]
            self._cached.delete(forgotten)
            gone += forgotten
        return BuildPruneReport(caches_deleted=gone or None, space_reclaimed=freed)

    def _wanted(self, filters: Filters) -> _Wanted:
        """Raises InvalidArgument in docker's words (moby daemon/internal/builder-next/builder.go)."""
        check_keys(filters, _FILTERS)
        if filters.get("until") and filters.get("unused-for"):
            raise InvalidArgument('conflicting filters: "until" and "unused-for"')
        if any(len(filters.get(key, ())) > 1 for key in (*_FIELDS, "until", "unused-for")):
            raise InvalidArgument("filters expect only one value")
        until: int | None = None
        for key in ("until", "unused-for"):
            for text in filters.get(key, ()):
                try:
                    until = moment_ns(text, self._clock.now_ns())
                except InvalidArgument as error:
                    raise InvalidArgument(f"\"{key}\" filter expects a duration (e.g., '24h') or a timestamp: {error.message}") from None
        return _Wanted(until, {key: next(iter(filters[key]), "") for key in _FIELDS if key in filters})

    def _keep(self, limits: CacheLimits, total: int) -> int | None:
        """How many bytes stay; None: no limit says anything (buildkit cache/manager.go)."""
        if limits == CacheLimits():
            return None
        keep = limits.max_used or total
        if limits.reserved and not limits.max_used and not limits.min_free:
            keep = 0
        if limits.min_free:
            disk = os.statvfs(self._directories.root)
            keep = min(keep, total - max(limits.min_free - disk.f_bavail * disk.f_frsize, 0))
        return max(keep, limits.reserved, 0)

    async def _take_out(self, entry: Entry, turns: _Turns, sizes: Mapping[ChainId, int]) -> int | None:
        """Remove what an entry stands for, unless it has come to be of use. The bytes that are free now, or None."""
        if entry.directory is not None:
            gone = self._directories.take_out(entry.directory)
            if gone is None:
                return None
            await remove_tree(self._workers, gone)
            return entry.size
        await asyncio.sleep(0)  # there may be thousands
        image = self._entries.idle(entry.image or "")
        if image is None:
            return None
        with suppress(Conflict, NotFound):
            await self._images.remove(image.id, force=False, prune=False)
            return sum(sizes.get(name, 0) for name in turns.went(image))
        return None

    async def bound(self) -> None:
        """After a build: keep the cache as small as it has to be, on its own account."""
        steps = self._cached.all()
        if len(steps) > STEPS_MAX:
            self._cached.delete([step.key for step in steps[: len(steps) - STEPS_MAX]])
        disk = os.statvfs(self._directories.root)
        keep = max(disk.f_blocks * disk.f_frsize // _SHARE, _SHARE_MIN)
        with suppress(Conflict):
            await self.prune(everything=False, limits=CacheLimits(reserved=keep), filters={})
