"""docker pull: a manifest, its config, and all its layers at once, each unpacked while it arrives.

A layer goes: registry → partial blob on disk (survives a kill, resumed by Range) → pipe → worker, which decompresses and unpacks it.
Nothing is visible before every digest and diffID is right; then layers, image and names appear in one step.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Container, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import NamedTuple

from sampan.content.partial import PartialBlob
from sampan.digest import ChainId, DiffId, ImageId, is_sha256
from sampan.distribution.fetch import fetch
from sampan.distribution.registry import CONFIG_MAX, Manifest, Repository
from sampan.distribution.transport import Transport
from sampan.engine.images import ImageService
from sampan.engine.lines import LayerLines, Lines
from sampan.engine.pipes import give_from, through_pipe
from sampan.engine.progress import Progress
from sampan.engine.registries import Registries
from sampan.engine.slots import Slots
from sampan.errors import EngineError, InvalidArgument, NotFound, printable
from sampan.image import platforms, pulling
from sampan.image.store import Image, ImageStore
from sampan.reference import Reference
from sampan.snapshot.api import Snapshots, Unpacked
from sampan.spec import oci_layout
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.oci_documents import decode
from sampan.spec.oci_layout import Descriptor, Platform
from sampan.state.blobs import BlobSource, ManifestRow

INDEX_DEPTH_MAX = 4


class _Source(NamedTuple):
    """Where an image comes from: the repository that gave the manifest, then the others that may have its blobs."""

    repositories: Sequence[Repository]
    manifest: Manifest


class _LayerPull(LayerLines):
    """One layer on its way: what it is, and what there is to say about it."""

    def __init__(self, index: int, descriptor: Descriptor, lines: Lines) -> None:
        super().__init__(lines, descriptor.digest)
        self.index, self.descriptor = index, descriptor
        self.key = "pull-" + os.urandom(8).hex()


class PullService:
    """docker pull. Used from the event loop's thread only."""

    def __init__(
        self,
        images: ImageService,
        store: ImageStore,
        snapshots: Snapshots,
        registries: Registries,
        *,
        unpackers: int,
    ) -> None:
        """unpackers: workers there are."""
        self._images = images
        self._store = store
        self._snapshots = snapshots
        self._registries = registries
        self._slots = Slots(lambda: registries.settings.max_concurrent_downloads)
        self._early = asyncio.Semaphore(max(1, unpackers - 1))
        """A layer that is unpacked while it arrives holds a worker for as long as the network pleases: one worker stays free."""

    async def pull(self, reference: Reference, *, platform: str, credentials: AuthConfig, verify: bool = True) -> AsyncIterator[Progress]:
        """Pull an image by tag or digest, or every tag of a repository when it has neither. Yields docker's progress.

        It goes on however slowly the lines are read, since others may wait for its layers; closing the iterator ends it.
        platform: `os[/arch[/variant]]` or empty. verify: the registry must be who it says, unless the settings know better.
        Raises NotFound, InvalidArgument, SystemFailure in docker's words.
        """
        wanted = platforms.wanted(platform) if platform else None
        lines = Lines()
        known = self._registries if verify else self._registries.trusting(reference.domain)
        async for line in lines.of(self._pull(known, reference, wanted, credentials, lines)):
            yield line

    async def _pull(self, known: Registries, reference: Reference, wanted: Platform | None, credentials: AuthConfig, lines: Lines) -> None:
        async with known.transport() as transport:
            if reference.tag is None and reference.digest is None:
                names = [reference._replace(tag=tag) for tag in await self._tags(known, transport, reference, credentials)]
            else:
                names = [reference]
            newer = False
            warning = ""
            for name in names:
                image, former = await self._pull_one(await self._find(known, transport, name, credentials), name, wanted, lines)
                newer = newer or former != image.id
                warning = warning or platforms.mismatch(reference.familiar, image, wanted)  # of a manifest that is no index
                await lines.drained()
            fresh = "Downloaded newer image" if newer else "Image is up to date"
            lines.say({"status": f"Status: {fresh} for {reference.familiar}"})
            if warning:
                lines.say({"status": f"WARNING: {printable(warning)}"})

    # where from

    async def _tags(self, known: Registries, transport: Transport, reference: Reference, credentials: AuthConfig) -> list[str]:
        _, tags = await known.first(transport, reference, credentials, Repository.tags)
        return tags

    async def _find(self, known: Registries, transport: Transport, reference: Reference, credentials: AuthConfig) -> _Source:
        name = reference.digest or reference.tag or ""
        return _Source(*await known.first(transport, reference, credentials, partial(Repository.manifest, reference=name)))

    async def _image_manifest(self, source: _Source, wanted: Platform | None) -> Manifest:
        """The image's own manifest: of an index, the one for the platform. Raises NotFound, InvalidArgument."""
        found, platform = source.manifest, wanted or platforms.own()
        for _ in range(INDEX_DEPTH_MAX):
            if found.media_type not in (oci_layout.INDEX, oci_layout.DOCKER_INDEX):
                return found
            chosen = platforms.entry_for(decode(found.body, oci_layout.Index, "the registry's manifest cannot be read"), platform)
            if chosen is None:
                raise NotFound(f"no matching manifest for {platforms.shown(platform)} in the manifest list entries")
            if not is_sha256(chosen.digest):
                raise InvalidArgument(f"unsupported digest algorithm: {chosen.digest}")
            found = await self._registries.any_of(source.repositories, partial(Repository.manifest, reference=chosen.digest))
        raise InvalidArgument(f"indexes within indexes, more than {INDEX_DEPTH_MAX} deep")

    # one image

    async def _pull_one(self, source: _Source, reference: Reference, wanted: Platform | None, lines: Lines) -> tuple[Image, ImageId | None]:
        """The image, and the ID of that which had the name before."""
        own = await self._image_manifest(source, wanted)
        manifest = pulling.manifest_of(own.body, own.media_type)
        document = await self._registries.any_of(source.repositories, lambda one: one.document(manifest.config, CONFIG_MAX))
        image = pulling.image_for(manifest, document)
        lines.say({"status": f"Pulling from {reference.path}", "id": reference.digest or reference.tag})
        former = self._store.named(reference._replace(tag=None) if reference.digest else reference)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._images.pinned(image.chain))
            missing = {blob.digest for name, blob in zip(image.chain, manifest.layers, strict=True) if not self._snapshots.is_whole(name)}
            for digest in sorted(missing):  # one order for all: two pulls never wait for each other
                await stack.enter_async_context(self._registries.partials.lock(digest))
            fetched = await self._layers(source, manifest, image, reference, stack, lines)
        self._remember(image, own, manifest, reference, fetched)
        lines.say({"status": f"Digest: {source.manifest.digest}"})
        return image, None if former is None else former.id

    def _remember(self, image: Image, own: Manifest, manifest: oci_layout.Manifest, reference: Reference, fetched: Container[int]) -> None:
        """Note by which manifest and blobs the image came: pushed again it keeps its digests.

        fetched: the layers that came just now. That a blob is one that was here already the registry merely says: whoever believed it
        would push somebody else's blob. So it counts only where the same blob has been unpacked to that layer before.
        """
        sources = []
        for index, (diff_id, blob) in enumerate(zip(image.config.rootfs.diff_ids or (), manifest.layers, strict=True)):
            source = BlobSource(DiffId(diff_id), blob.digest, blob.media_type, blob.size, reference.name)
            known = self._registries.sources.of(source.diff_id)
            if index in fetched or any(source._replace(repository=other.repository) == other for other in known):
                sources.append(source)
        self._registries.note(sources)
        if len(sources) == len(manifest.layers):
            self._registries.sources.keep_manifest(image.id, ManifestRow(own.media_type, own.body))

    async def _layers(
        self, source: _Source, manifest: oci_layout.Manifest, image: Image, reference: Reference, stack: AsyncExitStack, lines: Lines
    ) -> Container[int]:
        """Fetch and unpack what is missing, then add the image. What fails leaves the partial blobs, and nothing else.

        Returns the indexes of the layers that were fetched.
        """
        work: list[_LayerPull] = []
        whole = [self._snapshots.is_whole(name) for name in image.chain]
        here = self._store.get(image.id) is not None and all(whole)  # then docker does not speak of its layers
        for index, descriptor in enumerate(manifest.layers):
            layer = _LayerPull(index, descriptor, lines)
            if whole[index]:
                if not here:
                    layer.say("Already exists")
            else:
                layer.say("Pulling fs layer")
                work.append(layer)
        blobs: dict[str, PartialBlob] = {}
        for layer in work:
            if layer.descriptor.digest not in blobs:
                blobs[layer.descriptor.digest] = blob = self._registries.partials.open(layer.descriptor.digest, layer.descriptor.size)
                stack.callback(blob.close)
        try:
            keys = await self._unpack_all(source, work, blobs, image)
            proved = reference._replace(tag=None, digest=source.manifest.digest)
            self._images.add(image, keys, names=() if reference.digest else (reference,), repo_digest=proved)
            self._images.announce_as("pull", image, reference)
        except BaseException:
            for layer in work:
                self._snapshots.remove(layer.key)
            raise
        finally:
            self._images.clean_up()
        for blob in blobs.values():
            blob.remove()
        return {layer.index for layer in work}

    async def _unpack_all(
        self, source: _Source, work: Sequence[_LayerPull], blobs: Mapping[str, PartialBlob], image: Image
    ) -> dict[ChainId, str]:
        """The keys of the unpacked layers by the ChainIDs they are to have. Raises the first error, the others' work ended."""
        first = {layer.descriptor.digest: layer for layer in reversed(work)}
        try:
            async with asyncio.TaskGroup() as group:
                for digest, blob in blobs.items():
                    group.create_task(self._fetch(source, first[digest], blob))
                tasks = [group.create_task(self._unpack(layer, blobs[layer.descriptor.digest])) for layer in work]
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        diff_ids = image.config.rootfs.diff_ids or []
        for layer, task in zip(work, tasks, strict=True):
            if task.result().diff_id != diff_ids[layer.index]:
                raise InvalidArgument(
                    f'invalid diffID for layer {layer.index}: expected "{diff_ids[layer.index]}", got "{task.result().diff_id}"'
                )
        return {image.chain[layer.index]: layer.key for layer in work}

    async def _fetch(self, source: _Source, layer: _LayerPull, blob: PartialBlob) -> None:
        if self._slots.locked():
            layer.say("Waiting")
        async with self._slots:
            await fetch(
                self._registries.usable(source.repositories), blob,
                attempts=self._registries.settings.max_download_attempts, failing=self._registries.note_failure,
                progress=lambda text: layer.say(text, blob.size if text == "Downloading" else None, blob.length),
            )  # fmt: skip
        layer.say("Verifying Checksum")
        layer.say("Download complete")

    async def _unpack(self, layer: _LayerPull, blob: PartialBlob) -> Unpacked:
        """Unpack a layer while it arrives if a worker can be spared for that, else when it is there."""
        if self._early.locked():
            await blob.completed()
            return await self._unpack_from(layer, blob)
        async with self._early:
            return await self._unpack_from(layer, blob)

    async def _unpack_from(self, layer: _LayerPull, blob: PartialBlob) -> Unpacked:
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
                    layer.say("Pull complete")
                    return unpacked
                self._snapshots.remove(layer.key)

    async def _unpack_once(self, layer: _LayerPull, blob: PartialBlob) -> Unpacked:
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
