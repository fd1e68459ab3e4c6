"""What of the mirrored registries is kept: content by digest, the least used goes when there is more than the limit."""

import contextlib
import time
from collections import OrderedDict

from sampan.registry import paths
from sampan.registry.storage import Missing, Storage

TOUCH_SECONDS = 3600.0
"""How exact the order of use is after a restart."""


class Cache:
    """Over the mirror's storage. limit: bytes; 0: everything is kept."""

    def __init__(self, storage: Storage, limit: int) -> None:
        self._storage = storage
        self._limit = limit
        self._sizes: OrderedDict[str, int] = OrderedDict()
        """Digest → size, least recently used first."""
        self._touched: dict[str, float] = {}
        self.total = 0
        self.evicted = 0

    async def load(self) -> None:
        """Find out what is there."""
        for digest, stat in sorted(await self._storage.blobs(), key=lambda item: item[1].modified):
            self._sizes[digest] = stat.size
            self.total += stat.size
        await self._make_room("")

    async def used(self, digest: str) -> None:
        """It was given out."""
        if digest not in self._sizes:
            return
        self._sizes.move_to_end(digest)
        if time.monotonic() - self._touched.get(digest, float("-inf")) > TOUCH_SECONDS:
            self._touched[digest] = time.monotonic()
            with contextlib.suppress(Missing):
                await self._storage.touch(paths.blob(digest))

    async def added(self, digest: str, size: int) -> None:
        """It is there now; others may go for it."""
        if digest not in self._sizes:
            self._sizes[digest] = size
            self.total += size
        self._sizes.move_to_end(digest)
        await self._make_room(digest)

    async def _make_room(self, kept: str) -> None:
        while self._limit and self.total > self._limit and self._sizes:
            digest, size = next(iter(self._sizes.items()))
            if digest == kept:  # alone it is larger than the limit
                return
            del self._sizes[digest]
            self._touched.pop(digest, None)
            self.total -= size
            self.evicted += 1
            await self._storage.remove(paths.blob(digest))
