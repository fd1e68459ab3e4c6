"""`system check`: whether what is on the disk, in the database, in the kernel and in memory fits together; and its repair.

Everything goes on meanwhile: each part is looked at in one instant of the event loop, against what is known there to be in use or on its
way. What is found is believed when it is found again after a moment.
"""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

from sampan.engine.containerstore import Containers
from sampan.engine.images import ImageService
from sampan.errors import EngineError, NotFound, SystemFailure
from sampan.findings import Finding
from sampan.image.store import ImageStore
from sampan.snapshot.api import Snapshots
from sampan.spec.docker_api.system import CheckFinding, CheckReport
from sampan.state.database import Database
from sampan.worker.client import Damaged

log = logging.getLogger(__name__)

Look = Callable[[], Awaitable[list[Finding]]]

_AGAIN_SECONDS = 0.5
"""What is still so after it is not somebody's work under way."""
_ROUNDS = 3
"""One repair may bring to light what another has to mend: a layer, once the image is gone that never could be read."""
_NAMES_MAX = 5


class CheckService:
    """See api/services.py for the contract."""

    def __init__(self, looks: Sequence[Look], layers: "LayerCheck", again_seconds: float = _AGAIN_SECONDS) -> None:
        """looks: what each part of the engine finds wrong with its own."""
        self._looks = looks
        self._layers = layers
        self._again_seconds = again_seconds
        self._busy = asyncio.Lock()

    async def check(self, *, repair: bool, deep: bool) -> CheckReport:
        """Look at everything; deep: read every layer and image document as well. repair: mend what is certain."""
        async with self._busy:
            count, unread = await self._layers.read() if deep else (0, [])
            looks = [*self._looks, self._layers.documents] if deep else self._looks
            found = await self._found(looks)
            repaired: list[Finding] = []
            for _ in range(_ROUNDS if repair else 0):
                mended = [finding for finding in found if finding.mend is not None]
                if not mended:
                    break
                for finding in mended:
                    await _mend(finding)
                found = await self._found(looks)
                left = {finding.identity for finding in found}
                repaired += [finding for finding in mended if finding.identity not in left]
        left_over = [_shown(finding, repaired=False) for finding in (*found, *unread)]
        return CheckReport(findings=[*(_shown(finding, repaired=True) for finding in repaired), *left_over], layers_read=count)

    async def _found(self, looks: Sequence[Look]) -> list[Finding]:
        """What two looks agree on."""
        first = {finding.identity for finding in await _looked(looks)}
        if not first:
            return []
        await asyncio.sleep(self._again_seconds)
        return [finding for finding in await _looked(looks) if finding.identity in first]


async def _looked(looks: Sequence[Look]) -> list[Finding]:
    """What all of them find. One that fails is a finding itself, and keeps no other from being heard."""
    found: list[Finding] = []
    for look in looks:
        try:
            found += await look()
        except (EngineError, OSError, sqlite3.Error) as error:
            found.append(Finding("check", "in part", f"cannot be done: {error}", "put that right, and check again"))
    return found


async def _mend(finding: Finding) -> None:
    """What fails stays, and is found again."""
    if finding.mend is not None:
        try:
            waiting = finding.mend()
            if waiting is not None:
                await waiting
        except (EngineError, OSError, sqlite3.Error) as error:
            log.warning("cannot repair: %s: %s", finding.text, error)


def _shown(finding: Finding, *, repaired: bool) -> CheckFinding:
    return CheckFinding(
        kind=finding.kind,
        subject=finding.subject,
        problem=finding.problem,
        remedy=finding.remedy,
        repairable=finding.mend is not None,
        repaired=repaired,
    )


class LayerCheck:
    """Whether layers, images and writable trees fit together, and are what their digests say."""

    def __init__(self, images: ImageService, store: ImageStore, snapshots: Snapshots, containers: Containers) -> None:
        self._images = images
        self._store = store
        self._snapshots = snapshots
        self._containers = containers

    async def look(self) -> list[Finding]:
        """What does not fit; where the way out is to have an image again, it is named."""
        files = await asyncio.to_thread(self._snapshots.files)
        found = self._snapshots.look(files, [container.id for container in self._containers])
        found = [finding for finding in found if not self._is_under_way(finding)]
        await asyncio.sleep(0)  # others have their turn
        return [self._named(finding) for finding in (*found, *self._images.look())]

    def _is_under_way(self, finding: Finding) -> bool:
        """A container that is being removed has no files already."""
        container = self._containers.get(finding.subject) if finding.kind == "container" else None
        return container is not None and (container.removing or container.state.status == "removing")

    def _named(self, finding: Finding) -> Finding:
        if finding.mend is not None or finding.kind not in ("layer", "image"):
            return finding
        images = [image for image in self._store.all() if finding.subject == image.id or finding.subject in image.chain]
        names = [name.familiar for image in images for name in self._store.references(image.id) if name.digest is None]
        return finding._replace(remedy=f"{finding.remedy}: {' '.join(names[:_NAMES_MAX])}") if names else finding

    async def documents(self) -> list[Finding]:
        """Images whose documents are not stored as they are in use. Reads all of them."""
        spoilt = [key for key in await asyncio.to_thread(self._store.spoilt) if self._store.get(key) is not None]  # of others look() tells
        problem = "is stored otherwise than its ID says"
        return [Finding("image", key, problem, "store it again", partial(self._store.store_document, key)) for key in spoilt]

    async def read(self) -> tuple[int, list[Finding]]:
        """Read every layer: (how many, what hindered it). One that is not what it was is distrusted from now on, of which look() tells."""
        found: list[Finding] = []
        count = 0
        sink = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            for layer in self._snapshots.layers():
                with self._images.pinned([layer.name]), suppress(NotFound):  # removed meanwhile
                    try:
                        await self._snapshots.archive(layer.name, sink)
                        count += 1
                    except Damaged:
                        self._snapshots.distrust(layer.name)
                        count += 1
                    except SystemFailure as error:
                        if self._snapshots.is_whole(layer.name):  # else look() has told
                            found.append(Finding("layer", layer.name, f"cannot be read: {error.message}", "check again"))
        finally:
            os.close(sink)
        return count, found


def database_look(database: Database) -> Look:
    """What SQLite says of its file."""

    async def look() -> list[Finding]:
        try:
            lines = await asyncio.to_thread(database.damage)
        except sqlite3.DatabaseError as error:
            lines = [str(error)]
        way_out = "stop sampand, and restore it from a copy or with sqlite3's .recover"
        return [Finding("database", "state.db", f"is damaged: {line}", way_out) for line in lines]

    return look


def plain_look(look: Callable[[], list[Finding]]) -> Look:
    """One that does not wait."""

    async def looked() -> list[Finding]:
        return look()

    return looked
