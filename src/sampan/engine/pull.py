"""docker pull: a manifest, its config, and all its layers at once, each unpacked while it arrives.

A layer goes: registry → partial blob on disk (survives a kill, resumed by Range) → pipe → worker, which decompresses and unpacks it.
Nothing is visible before every digest and diffID is right; then layers, image and names appear in one step.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any, NamedTuple, TypeVar
from weakref import WeakValueDictionary

import msgspec

from sampan.content.partial import PartialBlob, PartialBlobs
from sampan.digest import ChainId
from sampan.distribution.auth import Authorizer
from sampan.distribution.endpoints import Endpoint, endpoints_of
from sampan.distribution.fetch import fetch
from sampan.distribution.registry import Manifest, Refused, Repository
from sampan.distribution.transport import Transport, Unreachable
from sampan.engine.images import ImageService
from sampan.engine.pipes import give_from, wide_pipe
from sampan.engine.progress import Progress, layer_line
from sampan.errors import InvalidArgument, NotFound, SystemFailure
from sampan.image import archives, platforms
from sampan.image.store import Image, ImageStore, image_of
from sampan.reference import Reference
from sampan.snapshot.api import Snapshots, Unpacked
from sampan.spec import oci_layout
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.oci_layout import Descriptor, Platform
from sampan.version import ENGINE_VERSION

T = TypeVar("T")

CONFIG_MAX = 8 << 20
INDEX_DEPTH_MAX = 4
LAYERS_MAX = 1000
TICK_SECONDS = 0.1
"""Between two lines about the same layer."""


class PullSettings(msgspec.Struct, frozen=True):
    """What daemon.json says about registries."""

    mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    max_concurrent_downloads: int = 3
    max_download_attempts: int = 5


class _Source(NamedTuple):
    """Where an image comes from: the repository that gave the manifest, then the others that may have its blobs."""

    repositories: Sequence[Repository]
    manifest: Manifest


class _LayerPull:
    """One layer on its way: what it is, and what there is to say about it."""

    def __init__(self, index: int, descriptor: Descriptor, lines: "asyncio.Queue[Progress]") -> None:
        self.index, self.descriptor = index, descriptor
        self.key = "pull-" + os.urandom(8).hex()
        self._lines = lines
        self._last = 0.0

    def say(self, status: str, current: int | None = None) -> None:
        """A line of docker's progress; those with a number are sent ten times a second at the most."""
        if current is not None:
            now = time.monotonic()
            if now - self._last < TICK_SECONDS:
                return
            self._last = now
        name = self.descriptor.digest.partition(":")[2][:12]
        self._lines.put_nowait(layer_line(status, name, current, self.descriptor.size))


class PullService:
    """docker pull. Used from the event loop's thread only."""

    def __init__(
        self,
        images: ImageService,
        store: ImageStore,
        snapshots: Snapshots,
        partials: PartialBlobs,
        settings: PullSettings,
        *,
        unpackers: int,
    ) -> None:
        """unpackers: workers there are."""
        self._images = images
        self._store = store
        self._snapshots = snapshots
        self._partials = partials
        self._settings = settings
        self._slots = asyncio.Semaphore(settings.max_concurrent_downloads)
        self._early = asyncio.Semaphore(max(1, unpackers - 1))
        """A layer that is unpacked while it arrives holds a worker for as long as the network pleases: one worker stays free."""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By blob digest, for as long as somebody holds or awaits one: two pulls of the same layer fetch it once."""

    async def pull(self, reference: Reference, *, platform: str, credentials: AuthConfig) -> AsyncIterator[Progress]:
        """Pull an image by tag or digest, or every tag of a repository when it has neither. Yields docker's progress.

        platform: `os[/arch[/variant]]` or empty. Raises NotFound, InvalidArgument, SystemFailure in docker's words.
        """
        wanted = platforms.wanted(platform) if platform else None
        async with await Transport.make(f"docker/{ENGINE_VERSION} sampan") as transport:
            if reference.tag is None and reference.digest is None:
                names = [reference._replace(tag=tag) for tag in await self._tags(transport, reference, credentials)]
            else:
                names = [reference]
            for name in names:
                async for line in self._pull_one(transport, name, wanted, credentials):
                    yield line

    # where from

    def _repositories(self, transport: Transport, reference: Reference, credentials: AuthConfig) -> Iterator[Repository]:
        listed = self._settings.insecure_registries
        for endpoint in endpoints_of(reference.domain, self._settings.mirrors, listed):
            yield Repository(transport, endpoint, reference.path, self._authorizer(transport, endpoint, credentials))

    @staticmethod
    def _authorizer(transport: Transport, endpoint: Endpoint, credentials: AuthConfig) -> Authorizer:
        # a mirror is not the registry the user logged in to
        return Authorizer(transport, AuthConfig() if endpoint.mirror else credentials, insecure=endpoint.insecure)

    async def _tags(self, transport: Transport, reference: Reference, credentials: AuthConfig) -> list[str]:
        failure: Exception = SystemFailure("no registry to ask")
        for repository in self._repositories(transport, reference, credentials):
            try:
                await repository.ping()
                return await repository.tags()
            except Unreachable as error:
                failure = error
            except Refused as error:
                raise _translated(error, reference) from error
        raise failure

    async def _find(self, transport: Transport, reference: Reference, credentials: AuthConfig) -> _Source:
        """The manifest, from the first endpoint that has it. Raises what the last one, or the registry itself, says."""
        tried: list[str] = []
        failure: Exception | None = None
        repositories = list(self._repositories(transport, reference, credentials))
        for at, repository in enumerate(repositories):
            try:
                await repository.ping()
                manifest = await repository.manifest(reference.digest or reference.tag or "")
                return _Source(repositories[at:], manifest)
            except Refused as error:
                failure = _translated(error, reference)
                if not repository.endpoint.mirror:
                    raise failure from error
            except (Unreachable, SystemFailure) as error:
                failure = error
            tried.append(f"{repository.endpoint.url}: {failure}")
        assert failure is not None
        if len(tried) > 1 and repositories[0].endpoint.mirror:
            raise SystemFailure("no mirror and no registry gave the image:\n  " + "\n  ".join(tried)) from failure
        raise failure

    async def _image_manifest(self, source: _Source, wanted: Platform | None) -> oci_layout.Manifest:
        """The image's own manifest: of an index, the one for the platform. Raises NotFound, InvalidArgument."""
        found, platform = source.manifest, wanted or archives.own_platform()
        for _ in range(INDEX_DEPTH_MAX):
            if found.media_type not in (oci_layout.INDEX, oci_layout.DOCKER_INDEX):
                return _decoded(found.body, oci_layout.Manifest)
            chosen = archives.for_platform(_decoded(found.body, oci_layout.Index), platform)
            if chosen is None:
                raise NotFound(f"no matching manifest for {archives.platform_text(platform)} in the manifest list entries")
            found = await source.repositories[0].manifest(chosen.digest)
        raise InvalidArgument(f"indexes within indexes, more than {INDEX_DEPTH_MAX} deep")

    # one image

    async def _pull_one(
        self, transport: Transport, reference: Reference, wanted: Platform | None, credentials: AuthConfig
    ) -> AsyncIterator[Progress]:
        source = await self._find(transport, reference, credentials)
        manifest = await self._image_manifest(source, wanted)
        document = await source.repositories[0].document(manifest.config, CONFIG_MAX)
        image = _checked(document, manifest, reference, wanted)
        yield {"status": f"Pulling from {reference.path}", "id": reference.digest or reference.tag}
        former = self._store.named(reference._replace(tag=None) if reference.digest else reference)
        async with AsyncExitStack() as stack:
            stack.enter_context(self._images.pinned(image.chain))
            for digest in sorted({layer.digest for layer in manifest.layers}):  # one order for all: two pulls never wait for each other
                await stack.enter_async_context(self._locks.setdefault(digest, asyncio.Lock()))
            async for line in self._layers(source, manifest, image, reference, stack):
                yield line
        yield {"status": f"Digest: {source.manifest.digest}"}
        fresh = "Image is up to date" if former is not None and former.id == image.id else "Downloaded newer image"
        yield {"status": f"Status: {fresh} for {reference.familiar}"}

    async def _layers(
        self, source: _Source, manifest: oci_layout.Manifest, image: Image, reference: Reference, stack: AsyncExitStack
    ) -> AsyncIterator[Progress]:
        """Fetch and unpack what is missing, then add the image. What fails leaves the partial blobs, and nothing else."""
        lines: asyncio.Queue[Progress] = asyncio.Queue()
        work: list[_LayerPull] = []
        for index, descriptor in enumerate(manifest.layers):
            layer = _LayerPull(index, descriptor, lines)
            if self._snapshots.layer(image.chain[index]) is not None:
                layer.say("Already exists")
            else:
                layer.say("Pulling fs layer")
                work.append(layer)
        blobs: dict[str, PartialBlob] = {}
        for layer in work:
            if layer.descriptor.digest not in blobs:
                blobs[layer.descriptor.digest] = blob = self._partials.open(layer.descriptor.digest, layer.descriptor.size)
                stack.callback(blob.close)
        task = asyncio.ensure_future(self._unpack_all(source, work, blobs, image))
        try:
            async for line in _until(task, lines):
                yield line
            keys = await task
            names = (reference._replace(tag=None, digest=source.manifest.digest), *((reference,) if not reference.digest else ()))
            self._images.add(image.document, keys, names=names)
            self._images.announce_pull(image, reference)
        except BaseException:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for layer in work:
                self._snapshots.remove(layer.key)
            self._images.clean_up()
            raise
        for blob in blobs.values():
            blob.remove()
        self._images.clean_up()

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
                source.repositories, blob, attempts=self._settings.max_download_attempts,
                progress=lambda text: layer.say(text, blob.size if text == "Downloading" else None),
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


async def _until(task: "asyncio.Future[dict[ChainId, str]]", lines: "asyncio.Queue[Progress]") -> AsyncIterator[Progress]:
    """The lines as they come, to the end of the task."""
    while not task.done() or not lines.empty():
        getting = asyncio.ensure_future(lines.get())
        try:
            waited: tuple[asyncio.Future[Any], ...] = (task, getting)
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                yield getting.result()
        finally:
            getting.cancel()
            with suppress(asyncio.CancelledError):
                await getting


def _decoded(body: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"the registry's manifest cannot be read: {error}") from error


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


def _translated(error: Refused, reference: Reference) -> NotFound | SystemFailure:
    """The registry's refusal as dockerd words it (moby distribution/errors.go)."""
    match error.code:
        case "denied":
            name = reference.familiar_name
            return NotFound(f"pull access denied for {name}, repository does not exist or may require 'docker login': {error.message}")
        case "manifest unknown":
            return NotFound(f"manifest for {reference.familiar} not found: {error.message}")
        case "name unknown":
            return NotFound(f"repository {reference.familiar_name} not found: {error.message}")
    return error
