"""docker pull: a manifest, its config, and all its layers at once, each unpacked while it arrives.

A layer goes: registry → partial blob on disk (survives a kill, resumed by Range) → pipe → worker, which decompresses and unpacks it.
Nothing is visible before every digest and diffID is right; then layers, image and names appear in one step.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import NamedTuple, TypeVar

from sampan.content.partial import PartialBlob
from sampan.digest import ChainId, DiffId, is_sha256
from sampan.distribution.fetch import fetch
from sampan.distribution.registry import Manifest, Repository
from sampan.distribution.transport import Transport
from sampan.engine.images import ImageService
from sampan.engine.lines import Lines
from sampan.engine.pipes import give_from, wide_pipe
from sampan.engine.progress import Progress, layer_line
from sampan.engine.registries import Registries, Slots
from sampan.errors import EngineError, InvalidArgument, NotFound
from sampan.image import archives, platforms
from sampan.image.store import Image, ImageStore, image_of
from sampan.reference import Reference
from sampan.snapshot.api import Snapshots, Unpacked
from sampan.spec import oci_layout
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.oci_documents import decode
from sampan.spec.oci_layout import Descriptor, Platform
from sampan.state.blobs import BlobSource, ManifestRow

T = TypeVar("T")

CONFIG_MAX = 8 << 20
INDEX_DEPTH_MAX = 4
LAYERS_MAX = 1000
TICK_SECONDS = 0.1
"""Between two lines about the same layer."""


class _Source(NamedTuple):
    """Where an image comes from: the repository that gave the manifest, then the others that may have its blobs."""

    repositories: Sequence[Repository]
    manifest: Manifest


class _LayerPull:
    """One layer on its way: what it is, and what there is to say about it."""

    def __init__(self, index: int, descriptor: Descriptor, lines: Lines) -> None:
        self.index, self.descriptor = index, descriptor
        self.key = "pull-" + os.urandom(8).hex()
        self._lines = lines
        self._last = 0.0

    def say(self, status: str, current: int | None = None) -> None:
        """A line of docker's progress; those with a number are sent ten times a second at the most, and may be left out."""
        if current is not None:
            now = time.monotonic()
            if now - self._last < TICK_SECONDS:
                return
            self._last = now
        name = self.descriptor.digest.partition(":")[2][:12]
        once = current is None and not status.startswith("Retrying")
        self._lines.say(layer_line(status, name, current, self.descriptor.size), once=once)


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
            for name in names:
                await self._pull_one(await self._find(known, transport, name, credentials), name, wanted, lines)
                await lines.drained()

    # where from

    async def _tags(self, known: Registries, transport: Transport, reference: Reference, credentials: AuthConfig) -> list[str]:
        return await known.first(transport, reference, credentials, lambda repository: repository.tags(), lambda _, found: found)

    async def _find(self, known: Registries, transport: Transport, reference: Reference, credentials: AuthConfig) -> _Source:
        name = reference.digest or reference.tag or ""
        return await known.first(transport, reference, credentials, lambda repository: repository.manifest(name), _Source)

    async def _image_manifest(self, source: _Source, wanted: Platform | None) -> Manifest:
        """The image's own manifest: of an index, the one for the platform. Raises NotFound, InvalidArgument."""
        found, platform = source.manifest, wanted or archives.own_platform()
        for _ in range(INDEX_DEPTH_MAX):
            if found.media_type not in (oci_layout.INDEX, oci_layout.DOCKER_INDEX):
                return found
            chosen = archives.for_platform(_decoded(found.body, oci_layout.Index), platform)
            if chosen is None:
                raise NotFound(f"no matching manifest for {archives.platform_text(platform)} in the manifest list entries")
            if not is_sha256(chosen.digest):
                raise InvalidArgument(f"unsupported digest algorithm: {chosen.digest}")
            found = await self._registries.any_of(source.repositories, partial(Repository.manifest, reference=chosen.digest))
        raise InvalidArgument(f"indexes within indexes, more than {INDEX_DEPTH_MAX} deep")

    # one image

    async def _pull_one(self, source: _Source, reference: Reference, wanted: Platform | None, lines: Lines) -> None:
        own = await self._image_manifest(source, wanted)
        manifest = _decoded(own.body, oci_layout.Manifest)
        document = await self._registries.any_of(source.repositories, lambda one: one.document(manifest.config, CONFIG_MAX))
        image = _checked(document, manifest, reference, wanted)
        lines.say({"status": f"Pulling from {reference.path}", "id": reference.digest or reference.tag})
        former = self._store.named(reference._replace(tag=None) if reference.digest else reference)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._images.pinned(image.chain))
            for digest in sorted({layer.digest for layer in manifest.layers}):  # one order for all: two pulls never wait for each other
                await stack.enter_async_context(self._registries.partials.lock(digest))
            await self._layers(source, manifest, image, reference, stack, lines)
        self._remember(image, own, manifest, reference)
        lines.say({"status": f"Digest: {source.manifest.digest}"})
        fresh = "Image is up to date" if former is not None and former.id == image.id else "Downloaded newer image"
        lines.say({"status": f"Status: {fresh} for {reference.familiar}"})

    def _remember(self, image: Image, own: Manifest, manifest: oci_layout.Manifest, reference: Reference) -> None:
        """Note by which manifest and blobs the image came: pushed again it keeps its digests."""
        pairs = zip(image.config.rootfs.diff_ids or (), manifest.layers, strict=True)
        sources = [BlobSource(DiffId(diff_id), blob.digest, blob.media_type, blob.size, reference.name) for diff_id, blob in pairs]
        self._registries.note(sources)
        self._registries.sources.keep_manifest(image.id, ManifestRow(own.media_type, own.body))

    async def _layers(
        self, source: _Source, manifest: oci_layout.Manifest, image: Image, reference: Reference, stack: AsyncExitStack, lines: Lines
    ) -> None:
        """Fetch and unpack what is missing, then add the image. What fails leaves the partial blobs, and nothing else."""
        work: list[_LayerPull] = []
        for index, descriptor in enumerate(manifest.layers):
            layer = _LayerPull(index, descriptor, lines)
            if self._snapshots.is_whole(image.chain[index]):
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

    async def _unpack_all(
        self, source: _Source, work: Sequence[_LayerPull], blobs: Mapping[str, PartialBlob], image: Image
    ) -> dict[ChainId, str]:
        """The keys of the unpacked layers by the ChainIDs they are to have. Raises the first error, the others' work ended."""
        first = {layer.descriptor.digest: layer for layer in reversed(work)}
        others = len(source.repositories) > 1
        try:
            async with asyncio.TaskGroup() as group:
                for digest, blob in blobs.items():
                    group.create_task(self._fetch(source, first[digest], blob))
                tasks = [group.create_task(self._unpack(layer, blobs[layer.descriptor.digest], others=others)) for layer in work]
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
                progress=lambda text: layer.say(text, blob.size if text == "Downloading" else None),
            )  # fmt: skip
        layer.say("Verifying Checksum")
        layer.say("Download complete")

    async def _unpack(self, layer: _LayerPull, blob: PartialBlob, *, others: bool) -> Unpacked:
        """Unpack a layer while it arrives if a worker can be spared for that, else when it is there.

        others: there are other registries that may have it, should what comes not be the blob.
        """
        if self._early.locked():
            await blob.completed()
            return await self._unpack_from(layer, blob, others=others)
        async with self._early:
            return await self._unpack_from(layer, blob, others=others)

    async def _unpack_from(self, layer: _LayerPull, blob: PartialBlob, *, others: bool) -> Unpacked:
        """Again from the beginning if what came was not the blob, and another registry has it."""
        while True:
            spoilt = blob.spoilt
            try:
                return await self._unpack_once(layer, blob)
            except EngineError as error:
                if others and blob.spoilt == spoilt and isinstance(error, InvalidArgument):
                    await blob.judged()
                if blob.spoilt == spoilt:
                    raise

    async def _unpack_once(self, layer: _LayerPull, blob: PartialBlob) -> Unpacked:
        reader, writer = wide_pipe()

        async def give(offset: int, count: int) -> int:
            taken = await give_from(blob.fd, offset, count, writer)
            if blob.complete:
                layer.say("Extracting", offset + taken)
            return taken

        async def give_all() -> None:
            try:
                await blob.follow(give)
            finally:
                os.close(writer)

        giving = asyncio.ensure_future(give_all())
        try:
            unpacked = await self._snapshots.unpack(layer.key, reader)
        finally:
            os.close(reader)
            giving.cancel()
            await asyncio.gather(giving, return_exceptions=True)
        layer.say("Pull complete")
        return unpacked


def _decoded(body: bytes, kind: type[T]) -> T:
    return decode(body, kind, "the registry's manifest cannot be read")


def _checked(document: bytes, manifest: oci_layout.Manifest, reference: Reference, wanted: Platform | None) -> Image:
    """The image of a config, if it fits its manifest, this machine and what was asked for. Raises InvalidArgument, NotFound."""
    image = image_of(document)
    layers = manifest.layers
    if len(layers) != len(image.chain) or len(layers) > LAYERS_MAX:
        raise InvalidArgument(f"the manifest has {len(layers)} layers, the image's config {len(image.chain)}")
    if any(layer.size < 0 for layer in layers):
        raise InvalidArgument("the manifest has a layer without a size")
    actual = archives.platform_of(image)
    if image.config.os not in ("linux", ""):
        raise InvalidArgument(f"operating system is not supported: an image for {archives.platform_text(actual)}")
    if wanted is not None and not archives.matches(wanted, actual):
        raise NotFound(
            f"image with reference {reference.familiar} was found but its platform ({archives.platform_text(actual)}) does not match "
            f"the specified platform ({archives.platform_text(wanted)})"
        )
    return image
