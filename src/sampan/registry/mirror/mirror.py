"""Pulling through: what is asked for is fetched once, kept, and given out while it comes. What cannot be asked again is given out stale."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress
from typing import NamedTuple, TypeVar

from sampan.content.partial import PartialBlob, PartialBlobs
from sampan.digest import Digest
from sampan.distribution.fetch import fetch
from sampan.errors import EngineError
from sampan.registry import documents, paths
from sampan.registry.documents import Referrer
from sampan.registry.errors import RegistryError
from sampan.registry.mirror.cache import Cache
from sampan.registry.mirror.upstream import Outage, Place, Unknown
from sampan.registry.names import is_digest
from sampan.registry.storage import Missing, Storage, Stored
from sampan.registry.store import Blobs, Manifest, Manifests

log = logging.getLogger("sampan.registry")
ATTEMPTS = 3
PIECE = 256 * 1024
STALE = {"Warning": '110 - "response is stale"'}
T = TypeVar("T")


class Counts:
    """For metrics."""

    def __init__(self) -> None:
        self.hits = self.misses = self.stale = self.fetched_bytes = 0


class Arriving:
    """A blob under way. begun: its file, once there is one. names: repositories that are known to have it."""

    def __init__(self, name: str) -> None:
        self.names = {name}
        self.begun: asyncio.Future[PartialBlob] = asyncio.get_running_loop().create_future()


class Following:
    """What one client reads of a blob under way. See storage.Stored."""

    def __init__(self, blob: PartialBlob) -> None:
        self._blob = blob
        self._fd = os.dup(blob.fd)
        self.size = blob.length
        self._spoilt = blob.spoilt

    def file(self) -> int | None:
        """See storage.Stored: the file is not whole yet."""
        return None

    def close(self) -> None:
        """See storage.Stored."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    async def pieces(self, start: int, length: int) -> AsyncIterator[bytes]:
        """The bytes as they come; the last one only when all are known to be the blob. Raises ConnectionError when they are not."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(4)
        given, end, spoilt = start, start + length, self._spoilt

        async def give(offset: int, count: int) -> int:
            skipped = max(0, start - offset)
            if skipped >= count or offset >= end:
                return count if skipped >= count else 0
            taken = min(count - skipped, PIECE, end - offset - skipped)
            if offset + skipped + taken == self.size and not self._blob.complete:
                if taken > 1:
                    taken -= 1
                elif not await self._blob.judged(spoilt):
                    return 0
            await queue.put(await asyncio.to_thread(os.pread, self._fd, taken, offset + skipped))
            return skipped + taken

        async def follow() -> None:
            try:
                if self._blob.spoilt == spoilt:  # else no more comes, and nobody would tell
                    await self._blob.follow(give)
            finally:
                await queue.put(None)

        following = asyncio.create_task(follow())
        try:
            while given < end and (piece := await queue.get()):
                given += len(piece)
                yield piece
            if given < end:
                raise ConnectionResetError("the upstream broke off")
        finally:
            following.cancel()
            await asyncio.wait([following])


class MirroredManifest(NamedTuple):
    """A manifest; stale: it could not be asked for again."""

    manifest: Manifest
    stale: bool


class Mirror:
    """All mirrored registries: one store of their own, in which a repository is below its upstream's name."""

    def __init__(self, storage: Storage, blobs: Blobs, manifests: Manifests, partials: PartialBlobs, cache: Cache) -> None:
        self._storage = storage
        self._blobs = blobs
        self._manifests = manifests
        self._partials = partials
        self.cache = cache
        self.counts = Counts()
        self._arriving: dict[str, Arriving] = {}
        self._asking: dict[tuple[str, str], asyncio.Task[MirroredManifest]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # manifests

    async def manifest(self, place: Place, reference: str) -> MirroredManifest:
        """Raises RegistryError."""
        known = await self._known(place.name, reference)
        if known is not None and (is_digest(reference) or await self._age(place.name, reference) < place.upstream.fresh_seconds):
            self.counts.hits += 1
            return MirroredManifest(known, False)
        return await self._once((place.name, reference), lambda: self._ask(place, reference, known))

    async def _known(self, name: str, reference: str) -> Manifest | None:
        try:
            found = await self._manifests.get(name, reference)
        except RegistryError:
            return None
        await self.cache.used(found.digest)
        return found

    async def _age(self, name: str, tag: str) -> float:
        try:
            return time.time() - (await self._storage.stat(paths.tag(name, tag))).modified
        except Missing:
            return float("inf")

    async def _once(self, key: tuple[str, str], ask: Callable[[], Awaitable[MirroredManifest]]) -> MirroredManifest:
        """However many want it: one question."""
        task = self._asking.get(key)
        if task is None:

            async def run() -> MirroredManifest:
                try:
                    return await ask()
                finally:
                    del self._asking[key]

            task = self._asking[key] = asyncio.create_task(run())
        return await asyncio.shield(task)

    async def _ask(self, place: Place, reference: str, known: Manifest | None) -> MirroredManifest:
        try:
            if known is not None and await self._is_current(place, reference, known):
                with suppress(Missing):  # it has just gone for others
                    await self._storage.touch(paths.tag(place.name, reference))
                self.counts.hits += 1
                return MirroredManifest(known, False)
            async with place.upstream.asked():
                fetched = await place.upstream.repository(place.path).manifest(reference)
        except Outage as error:
            if known is None:
                raise place.upstream.unavailable(message=str(error)) from None
            return self._stale(place.name, reference, known, str(error))
        except Unknown:
            if known is not None:
                await self._storage.remove_all(paths.tag_directory(place.name, reference))
            raise
        except RegistryError as error:
            if known is None:
                raise
            return self._stale(place.name, reference, known, f"{error.message} {error.detail}")
        self.counts.misses += 1
        self.counts.fetched_bytes += len(fetched.body)
        manifest = Manifest(fetched.digest, fetched.media_type, fetched.body)
        try:
            contents = documents.read(fetched.body, fetched.media_type)
        except RegistryError as error:  # of a kind that we do not keep: passed on
            if known is None:
                return MirroredManifest(manifest, False)
            return self._stale(place.name, reference, known, f"{error.message} {error.detail}")
        tags = () if is_digest(reference) else (reference,)
        await self._manifests.put(place.name, fetched.digest, tags, fetched.body, contents, complete=False)
        await self.cache.added(fetched.digest, len(fetched.body))
        return MirroredManifest(manifest, False)

    @staticmethod
    async def _is_current(place: Place, reference: str, known: Manifest) -> bool:
        """Whether a tag is still what is here. Raises Outage."""
        try:
            return (await place.upstream.head(place.path, f"manifests/{reference}")).digest == known.digest
        except RegistryError:  # an answer to HEAD has no words, that to GET will say why
            return False

    def _stale(self, name: str, reference: str, known: Manifest, why: str) -> MirroredManifest:
        log.warning("%s:%s is given out stale: %a", name, reference, why)
        self.counts.stale += 1
        return MirroredManifest(known, True)

    # blobs

    async def blob(self, place: Place, digest: Digest) -> Stored:
        """What is here, or what is on its way. Raises RegistryError."""
        try:
            found = await self._blobs.open(place.name, digest)
        except RegistryError:
            pass
        else:
            self.counts.hits += 1
            await self.cache.used(digest)
            return found
        arriving = self._arriving.get(digest)
        if arriving is not None and place.name in arriving.names:
            return await self._follow(place, arriving, digest)
        # Asked for each repository: one may read what another may not.
        size = await self._size_there(place, digest)
        arriving = self._arriving.get(digest)
        if arriving is None:
            stored = await self._of_another(place.name, digest)
            if stored is not None:
                return stored
            arriving = self._arriving.get(digest)  # whoever came in between
        if arriving is None:
            self.counts.misses += 1
            arriving = self._arriving[digest] = Arriving(place.name)
            task = asyncio.create_task(self._fetch(place, digest, size, arriving))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            self.counts.hits += 1
            arriving.names.add(place.name)
        return await self._follow(place, arriving, digest)

    async def blob_size(self, place: Place, digest: Digest) -> int:
        """Of what is here, or there; nothing is fetched. Raises RegistryError."""
        try:
            found = await self._blobs.open(place.name, digest)
        except RegistryError:
            return await self._size_there(place, digest)
        found.close()
        return found.size

    @staticmethod
    async def _size_there(place: Place, digest: Digest) -> int:
        try:
            return (await place.upstream.head(place.path, f"blobs/{digest}")).size
        except Outage as error:
            raise place.upstream.unavailable(message=str(error)) from None
        except RegistryError as error:
            raise (RegistryError("BLOB_UNKNOWN", {"digest": digest}) if error.code == "MANIFEST_UNKNOWN" else error) from None

    async def _follow(self, place: Place, arriving: Arriving, digest: Digest) -> Stored:
        blob = await asyncio.shield(arriving.begun)
        if blob.fd >= 0:
            return Following(blob)
        if not blob.complete:  # given up before this client's turn came
            raise place.upstream.unavailable(digest=digest)
        return await self._blobs.open(place.name, digest)

    async def _of_another(self, name: str, digest: Digest) -> Stored | None:
        """A blob that another repository has."""
        try:
            stored = await self._storage.open(paths.blob(digest))
        except Missing:
            return None
        with ExitStack() as undo:
            undo.callback(stored.close)
            await self._blobs.link(name, digest)
            await self.cache.used(digest)
            undo.pop_all()
        self.counts.hits += 1
        return stored

    async def _fetch(self, place: Place, digest: Digest, size: int, arriving: Arriving) -> None:
        try:
            async with self._partials.lock(digest), place.upstream.fetching:
                blob = self._partials.open(digest, size)
                arriving.begun.set_result(blob)
                try:
                    await fetch([place.upstream.repository(place.path)], blob, attempts=ATTEMPTS, progress=lambda _: None)
                    await self._blobs.add(place.name, digest, blob.path)
                    for other in arriving.names - {place.name}:
                        await self._blobs.link(other, digest)
                    self.counts.fetched_bytes += size
                    await self.cache.added(digest, size)
                finally:
                    if not blob.complete:
                        blob.abandon()
                    blob.close()
        except (EngineError, OSError) as error:
            log.warning("%s@%s cannot be fetched: %a", place.name, digest, getattr(error, "message", error))
        finally:
            if not arriving.begun.done():
                arriving.begun.set_exception(place.upstream.unavailable(digest=digest))
                arriving.begun.exception()  # perhaps nobody waits any more
            del self._arriving[digest]

    # lists

    async def tags(self, place: Place) -> tuple[list[str], bool]:
        """(sorted tags, whether they are only those we have seen). Raises RegistryError."""
        failure: RegistryError
        try:
            async with place.upstream.asked():
                return sorted(await place.upstream.repository(place.path).tags()), False
        except Unknown as error:
            raise RegistryError("NAME_UNKNOWN", error.detail) from None
        except RegistryError as error:
            failure = RegistryError("NAME_UNKNOWN", error.detail) if error.code == "MANIFEST_UNKNOWN" else error
        except Outage as error:
            failure = place.upstream.unavailable(message=str(error))
        try:
            return await self._manifests.tags(place.name), True
        except RegistryError:
            raise failure from None

    async def referrers(self, place: Place, digest: Digest) -> tuple[list[Referrer], bool]:
        """(entries, whether they are only those we have seen). Raises RegistryError."""
        try:
            return await place.upstream.referrers(place.path, digest), False
        except Outage:
            return (await self._manifests.referrers(place.name, digest))[0], True
        except RegistryError:
            known, _ = await self._manifests.referrers(place.name, digest)
            if not known:
                raise
            return known, True

    async def close(self) -> None:
        """Give up what is under way; what has come of it stays for the next start."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks))
