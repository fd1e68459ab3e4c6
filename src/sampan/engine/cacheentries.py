"""What the build cache has: an entry for each step that was built, and one for each directory of `RUN --mount=type=cache`.

A step's image may be a user's as well: with a name, below a container, or what such a one was built from. Its entry is shared then, and its
bytes are the image's; the others' are the cache's.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from sampan.digest import ChainId, ImageId
from sampan.engine.buildmounts import CacheDirectories
from sampan.engine.buildspool import opened
from sampan.errors import EngineError
from sampan.image.store import Image, ImageStore
from sampan.state.buildcache import BuildCacheRepository, CachedStep
from sampan.worker.client import WorkerPool

LayerSize = Callable[[ChainId], int]
REGULAR, CACHE_MOUNT = "regular", "exec.cachemount"


class Entry(NamedTuple):
    """One of the cache. Times in ns since the epoch, size in bytes."""

    id: str
    type: str
    description: str
    in_use: bool
    """By a container, or by a build that is running."""
    shared: bool
    size: int
    """Of what no other entry counts."""
    created: int
    last_used: int
    uses: int
    parents: tuple[str, ...] = ()
    image: ImageId | None = None
    """Of a step."""
    directory: Path | None = None
    """Of a cache mount."""


class CacheEntries:
    """Finds them, and knows what builds are standing on."""

    def __init__(
        self,
        store: ImageStore,
        used: Callable[[], Set[str]],
        cached: BuildCacheRepository,
        directories: CacheDirectories,
        workers: WorkerPool,
    ) -> None:
        """used: the images that containers are made of."""
        self._store = store
        self._used = used
        self._cached = cached
        self._directories = directories
        self._workers = workers
        self._standing: Counter[str] = Counter()

    @contextmanager
    def building(self) -> Iterator[Callable[[Image], None]]:
        """For one build: what it stands on is in use from then on until it ends."""
        images: set[str] = set()

        def stand_on(image: Image) -> None:
            if image.id not in images:
                images.add(image.id)
                self._standing[image.id] += 1

        try:
            yield stand_on
        finally:
            for image_id in images:
                self._standing[image_id] -= 1
                if not self._standing[image_id]:
                    del self._standing[image_id]

    def in_use(self) -> Set[str]:
        """The images that must stay: containers and builds are at work with them."""
        return self._used() | self._standing.keys()

    def idle(self, image_id: str) -> Image | None:
        """An image that nobody has come to name or to work with."""
        image = self._store.get(ImageId(image_id))
        return None if image is None or image_id in self.in_use() or self._store.references(image.id) else image

    def steps(self, size_of: LayerSize) -> list[Entry]:
        """Those used longest ago first."""
        steps = self._cached.all()
        kept, in_use = self._kept(steps), self.in_use()
        counted = self._layers(kept)
        keys = {step.image_id: step.key for step in steps}
        images = {step.image_id: self._store.get(step.image_id) for step in steps}
        told: set[ChainId] = set()
        found: list[Entry] = []
        for step in sorted(steps, key=lambda step: step.created):
            image = images[step.image_id]
            if image is None:  # its rows are just going with it
                continue
            shared = image.id in kept
            own = [name for name in self._own(image) if name not in told and (shared or name not in counted)]
            told.update(own)
            found.append(
                Entry(
                    id=step.key,
                    type=REGULAR,
                    description=step.description,
                    in_use=image.id in in_use,
                    shared=shared,
                    size=sum(map(size_of, own)),
                    created=step.created,
                    last_used=step.last_used,
                    uses=step.uses,
                    parents=(keys[ImageId(image.parent)],) if image.parent in keys else (),
                    image=image.id,
                )
            )
        return sorted(found, key=lambda entry: entry.last_used)

    async def mounts(self) -> list[Entry]:
        """The directories of cache mounts, their sizes as they are on the disk."""
        found: list[Entry] = []
        for directory in self._directories.all():
            with suppress(EngineError, OSError):  # it is going
                with opened(directory.path) as fd:
                    size = int((await self._workers.run("usage", {}, [fd]))["disk"])
                found.append(
                    Entry(
                        id=directory.path.name,
                        type=CACHE_MOUNT,
                        description=f"cached mount {directory.id}".rstrip(),
                        in_use=directory.busy,
                        shared=False,
                        size=size,
                        created=directory.created,
                        last_used=directory.last_used,
                        uses=directory.uses,
                        directory=directory.path,
                    )
                )
        return found

    def layers(self) -> set[ChainId]:
        """The layers that only the cache needs."""
        steps = self._cached.all()
        kept = self._kept(steps)
        return self._layers({step.image_id for step in steps} - kept) - self._layers(kept)

    def _kept(self, steps: Iterable[CachedStep]) -> set[str]:
        """The images that are there for more than the cache, and all that they were built from."""
        cached, named, used = {step.image_id for step in steps}, self._store.named_ids(), self._used()
        kept: set[str] = set()
        for image in self._store.all():
            if image.id in named or image.id in used or image.id not in cached:
                for one in self._store.lineage(image):
                    if one.id in kept:
                        break
                    kept.add(one.id)
        return kept

    def _layers(self, images: Iterable[str]) -> set[ChainId]:
        found = (self._store.get(ImageId(image_id)) for image_id in images)
        return {name for image in found if image is not None for name in image.chain}

    def _own(self, image: Image) -> tuple[ChainId, ...]:
        """The layers that a step has added."""
        parent = self._store.get(ImageId(image.parent)) if image.parent else None
        return image.chain if parent is None else image.chain[len(parent.chain) :]
