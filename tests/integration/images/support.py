"""An image service on a data root of its own, without daemon or containers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sampan.clock import SystemClock
from sampan.engine.image_archives import ImageArchives
from sampan.engine.images import ImageService
from sampan.events.bus import EventBus
from sampan.image.store import ImageStore
from sampan.snapshot.erofs import ErofsLayers
from sampan.snapshot.store import LayeredSnapshots
from sampan.spec.oci_layout import Platform
from sampan.state.database import Database
from tests.support.workers import LentWorkers

if TYPE_CHECKING:
    from sampan.digest import ImageId
    from sampan.engine.image_removal import ImageUser
    from sampan.worker.client import WorkerPool


class Images:
    """The service and what is around it. `users` says which containers use which image. driver: of new layers; both can be read."""

    def __init__(self, root: Path, workers: "WorkerPool", driver: str = "overlay2") -> None:
        self.database = Database(root / "state.db")

        def more(empty: Path) -> list[ErofsLayers]:
            return [ErofsLayers(root / "erofs", empty, workers)]

        self.snapshots = LayeredSnapshots(root, self.database, workers, driver=driver, more=more)
        self.users: dict[ImageId, list[ImageUser]] = {}
        clock = SystemClock()
        self.events = EventBus(clock)
        self.store = ImageStore(self.database)
        self.service = ImageService(self.store, self.snapshots, self.events, clock, in_use=lambda image: self.users.get(image, []))

        self.archives = ImageArchives(self.service, self.store, self.snapshots, workers, root / "tmp")

    async def load_archive(self, archive: bytes, *, quiet: bool = True, platform: Platform | None = None) -> list[str]:
        """docker load; returns what it says, without the newlines (progress lines as they are)."""
        lines = [line async for line in self.archives.load(pieces(archive, 1 << 16), quiet=quiet, platform=platform)]
        return [str(line["stream"]).removesuffix("\n") if "stream" in line else repr(line) for line in lines]

    async def save(self, *names: str, platform: Platform | None = None) -> bytes:
        """docker save."""
        return b"".join([bytes(piece) async for piece in self.archives.save(names, platform)])

    async def load(self, archive: bytes, repo: str = "", tag: str = "", *changes: str) -> str:
        """Import; returns the ID."""
        lines = [
            line async for line in self.service.import_(pieces(archive), repo=repo, tag=tag, message="why", changes=changes, platform="")
        ]
        return str(lines[-1]["status"])


async def pieces(archive: bytes, size: int = 4096) -> AsyncIterator[bytes]:
    """A request body that comes in small parts."""
    for start in range(0, len(archive), size):
        await asyncio.sleep(0)
        yield archive[start : start + size]


def run(root: Path, body: Callable[[Images], Awaitable[None]], driver: str = "overlay2") -> None:
    """Run body with a service on root, as one life of sampand."""

    async def whole() -> None:
        workers = LentWorkers()
        images = Images(root, workers, driver)
        try:
            await asyncio.wait_for(body(images), 60)
            await images.service.settle()
        finally:
            await images.snapshots.close()
            await workers.stop()
            images.database.close()

    asyncio.run(whole())
