"""The layers of images that are pulled, each a work of its own, which waits for others only where they have something for it.

A layer goes: registry → partial blob on disk (survives a kill, resumed by Range) → pipe → worker, which decompresses and unpacks it. It is
committed as soon as those below it are, by whichever pull, so that a small image never waits for the rest of a large one.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial

from sampan.content.partial import PartialBlob
from sampan.digest import ChainId, DiffId
from sampan.distribution.fetch import fetch
from sampan.distribution.registry import Repository
from sampan.engine.lines import LayerLines, Lines
from sampan.engine.pipes import give_from, through_pipe
from sampan.engine.registries import Registries
from sampan.engine.slots import Slots
from sampan.errors import EngineError, InvalidArgument, SystemFailure
from sampan.snapshot.api import Snapshots, Unpacked
from sampan.spec.oci_layout import Descriptor
from sampan.state.blobs import BlobSource


class LayerPull(LayerLines):
    """One layer on its way: what it is, and what there is to say about it."""

    def __init__(self, index: int, chain: Sequence[ChainId], diff_id: DiffId, descriptor: Descriptor, lines: Lines) -> None:
        """index: where it stands in the chain, from the bottom."""
        super().__init__(lines, descriptor.digest)
        self.index, self.diff_id, self.descriptor = index, diff_id, descriptor
        self.name = chain[index]
        self.below = chain[index - 1] if index else None
        self.key = "pull-" + os.urandom(8).hex()


class PullLayers:
    """Brings layers. Used from the event loop's thread only."""

    def __init__(self, snapshots: Snapshots, registries: Registries, unpackers: int) -> None:
        """unpackers: workers there are."""
        self._snapshots = snapshots
        self._registries = registries
        self._slots = Slots(lambda: registries.settings.max_concurrent_downloads)
        self._early = asyncio.Semaphore(max(1, unpackers - 1))
        """A layer that is unpacked while it arrives holds a worker for as long as the network pleases: one worker stays free."""
        self._ready: set[ChainId] = set()
        """What is unpacked, and only waits for what is below it"""
        self._under_way: Counter[ChainId] = Counter()
        """What pulls bring, or are about to"""
        self._changed = asyncio.Event()

    async def bring(self, repositories: Sequence[Repository], name: str, layers: Sequence[LayerPull]) -> None:
        """Fetch, unpack and commit layers, which the caller has pinned. name: the repository, for pushes to know.

        Raises the first error, the others' work ended; that leaves the partial blobs.
        """
        try:
            with self._registries.partials.held([layer.descriptor.digest for layer in layers]):
                async with asyncio.TaskGroup() as group:
                    for layer in layers:
                        self._under_way[layer.name] += 1
                        group.create_task(self._bring(repositories, name, layer)).add_done_callback(partial(self._ended, layer.name))
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        for layer in layers:
            self._registries.partials.drop(layer.descriptor.digest)

    def _ended(self, name: ChainId, _task: object) -> None:
        """Also of a task that was cancelled before it had begun. Those who wait for others' layers look again."""
        self._ready.discard(name)
        self._under_way[name] -= 1
        if not self._under_way[name]:
            del self._under_way[name]
        self._changed.set()
        self._changed = asyncio.Event()  # for those who wait from now on

    async def _bring(self, repositories: Sequence[Repository], name: str, layer: LayerPull) -> None:
        try:
            if not await self._unpacked(repositories, layer):
                return
            self._ready.add(layer.name)
            while layer.below is not None and not self._snapshots.is_whole(layer.below):
                if layer.below not in self._under_way:  # it was here, and has been lost or found damaged since
                    raise SystemFailure(f"layer {layer.below} is damaged or gone: pull again")
                await self._changed.wait()
            self._snapshots.commit(layer.key, layer.name, layer.below)
        except BaseException:
            self._snapshots.remove(layer.key)
            raise
        blob = layer.descriptor
        self._registries.note([BlobSource(layer.diff_id, blob.digest, blob.media_type, blob.size, name)])
        layer.say("Pull complete")

    async def _unpacked(self, repositories: Sequence[Repository], layer: LayerPull) -> bool:
        """Unpack a layer (True), or wait until somebody else has brought it."""
        if self._registries.partials.lock(layer.descriptor.digest).locked():
            layer.say("Waiting")
        while True:
            async with self._registries.partials.turn(layer.descriptor.digest) as ours:
                if self._snapshots.is_whole(layer.name):
                    layer.say("Download complete")
                    layer.say("Pull complete")
                    return False
                if layer.name not in self._ready:
                    await self._fetch_and_unpack(repositories, layer, ours=ours)
                    return True
            await self._changed.wait()

    async def _fetch_and_unpack(self, repositories: Sequence[Repository], layer: LayerPull, *, ours: bool) -> None:
        """ours: whether the partial blob is. Raises InvalidArgument when the layer is not the config's."""
        async with AsyncExitStack() as slot:
            if ours:  # else those who are slow may have all the slots as well
                if self._slots.locked():
                    layer.say("Waiting")
                await slot.enter_async_context(self._slots)
            blob = self._registries.partials.open(layer.descriptor.digest, layer.descriptor.size, alone=not ours)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._fetch(repositories, layer, blob, slot))
                    unpacking = group.create_task(self._unpack(layer, blob))
            except BaseExceptionGroup as failed:
                raise failed.exceptions[0] from None
            finally:
                blob.close()
        found = unpacking.result().diff_id
        if found != layer.diff_id:
            raise InvalidArgument(f'invalid diffID for layer {layer.index}: expected "{layer.diff_id}", got "{found}"')

    async def _fetch(self, repositories: Sequence[Repository], layer: LayerPull, blob: PartialBlob, slot: AsyncExitStack) -> None:
        await fetch(
            self._registries.usable(repositories), blob,
            attempts=self._registries.settings.max_download_attempts, failing=self._registries.note_failure,
            progress=lambda text: layer.say(text, blob.size if text == "Downloading" else None, blob.length),
        )  # fmt: skip
        await slot.aclose()
        layer.say("Verifying Checksum")
        layer.say("Download complete")

    async def _unpack(self, layer: LayerPull, blob: PartialBlob) -> Unpacked:
        """Unpack a layer while it arrives if a worker can be spared for that, else when it is there."""
        if self._early.locked():
            await blob.completed()
            return await self._unpack_from(layer, blob)
        async with self._early:
            return await self._unpack_from(layer, blob)

    async def _unpack_from(self, layer: LayerPull, blob: PartialBlob) -> Unpacked:
        """Again from the beginning if what came was not the blob, and is fetched anew."""
        while True:
            spoilt = blob.spoilt
            try:
                unpacked = await self._unpack_once(layer, blob)
            except EngineError:  # a full disk as well: bytes that nobody has verified may claim any size
                if blob.spoilt == spoilt and (blob.last_chance or await blob.judged(spoilt)):
                    raise
            else:
                if await blob.judged(spoilt):  # a tar may end before what comes does
                    return unpacked
                self._snapshots.remove(layer.key)

    async def _unpack_once(self, layer: LayerPull, blob: PartialBlob) -> Unpacked:
        async def write(writer: int) -> None:
            async def give(offset: int, count: int) -> int:
                taken = await give_from(blob.fd, offset, count, writer)
                if blob.complete and offset + taken < blob.length:
                    layer.say("Extracting", offset + taken, blob.length)
                return taken

            await blob.follow(give)

        unpacked = await through_pipe(write, lambda reader: self._snapshots.unpack(layer.key, reader))
        layer.say("Extracting", blob.length, blob.length)
        return unpacked
