"""docker push: an image's layers at once, nothing sent that the registry can have otherwise.

For each layer, in this order: the repository has the blob (HEAD); another repository of the registry has it (mount); it came from a
registry that still gives it (then its digest stays); else its tar is compressed anew, to the same bytes on every machine. Then the config,
then the manifest: the one by which the image came if the layers have kept their digests.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from sampan.archive.room import making
from sampan.content.partial import PartialBlob
from sampan.digest import ChainId, DiffId, is_sha256, sha256_of
from sampan.distribution import upload
from sampan.distribution.fetch import fetch
from sampan.distribution.registry import NoCredentials, Repository
from sampan.distribution.transport import Transport, Unreachable
from sampan.distribution.upload import BlobFile, Started
from sampan.engine.images import ImageService
from sampan.engine.lines import LayerLines, Lines
from sampan.engine.pipes import through_pipe
from sampan.engine.progress import Progress
from sampan.engine.registries import Registries
from sampan.engine.slots import Slots
from sampan.errors import EngineError, InvalidArgument, NotFound, SystemFailure
from sampan.image import platforms, pushing
from sampan.image.store import Image, ImageStore
from sampan.linux.nameless import nameless_file
from sampan.reference import Reference, parse
from sampan.snapshot.api import Snapshots
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.oci_layout import Descriptor, Platform
from sampan.state.blobs import BlobSource
from sampan.worker.client import WorkerPool

CHECKS_MAX = 4
"""Blobs of one layer that the registry is asked for."""
MOUNTS_MAX = 3
"""Repositories from which a mount is tried."""
ATTEMPTS = 5
"""moby distribution/xfer/upload.go maxUploadAttempts"""
REFETCH_ATTEMPTS = 2


class _LayerPush(LayerLines):
    """One layer on its way: what it is, how it came here, and what there is to say about it."""

    def __init__(self, chain_id: ChainId, diff_id: DiffId, former: Descriptor | None, lines: Lines) -> None:
        super().__init__(lines, diff_id)
        self.chain_id, self.diff_id, self.former = chain_id, diff_id, former


class _Target:
    """Where a push goes: the repository at the registry that answers. And what of the pushed layers' origins has turned out."""

    def __init__(self, transport: Transport, reference: Reference, repository: Repository, credentials: AuthConfig) -> None:
        self.transport, self.reference, self.repository, self.credentials = transport, reference, repository, credentials
        self.origins: dict[str, Sequence[Repository]] = {}
        """By canonical name: the endpoints that give its blobs; none: it is away."""
        self.asking = asyncio.Lock()

    def same_registry(self, source: BlobSource) -> bool:
        """Whether a blob is in another repository of this registry."""
        return source.repository.startswith(self.reference.domain + "/") and source.repository != self.reference.name

    def path_of(self, source: BlobSource) -> str:
        """A repository of this registry, as its API names it."""
        return source.repository.removeprefix(self.reference.domain + "/")


class PushService:
    """docker push. Used from the event loop's thread only."""

    def __init__(
        self,
        images: ImageService,
        store: ImageStore,
        snapshots: Snapshots,
        workers: WorkerPool,
        registries: Registries,
        root: Path,
    ) -> None:
        """root: a directory for files without names."""
        self._images = images
        self._store = store
        self._snapshots = snapshots
        self._workers = workers
        self._registries = registries
        self._root = root
        self._slots = Slots(lambda: registries.settings.max_concurrent_uploads)

    async def push(
        self, reference: Reference, *, platform: Platform | None, credentials: AuthConfig, verify: bool = True
    ) -> AsyncIterator[Progress]:
        """Push an image by its tag, or every tag of a repository when it has none. Yields docker's progress.

        It goes on however slowly the lines are read; closing the iterator ends it. verify: the registry must be who it says, unless the
        settings know better. Raises NotFound, InvalidArgument, SystemFailure in docker's words.
        """
        if platform is not None:
            self._check_platform(reference, platform)
        lines = Lines()
        known = self._registries if verify else self._registries.trusting(reference.domain)
        async for line in lines.of(self._push(known, reference, credentials, lines)):
            yield line

    def _check_platform(self, reference: Reference, platform: Platform) -> None:
        problem = platforms.mismatch(reference.familiar, self._store.find(reference.familiar), platform)
        if problem:
            raise NotFound(problem)

    async def _push(self, known: Registries, reference: Reference, credentials: AuthConfig, lines: Lines) -> None:
        lines.say({"status": f"The push refers to repository [{reference.name}]"})
        names = self._names(reference)
        async with known.transport() as transport:
            target = await self._target(known, transport, reference, credentials)
            last: Image | None = None
            for name in names:
                image = self._store.named(name)
                if image is not None:
                    try:
                        await self._push_image(target, name, image, lines)
                    except NoCredentials as error:  # moby distribution/errors.go retryOnError
                        raise SystemFailure(NoCredentials.WORDS) from error
                    await lines.drained()
                    last = image
            if last is not None:
                self._images.announce_as("push", last, reference)

    def _names(self, reference: Reference) -> Sequence[Reference]:
        """What is to be pushed (moby distribution/push.go, push_v2.go)."""
        tagged = self._store.names_in(reference.name)
        if not tagged:
            raise SystemFailure(f"An image does not exist locally with the tag: {reference.familiar_name}")
        if reference.digest is not None:
            raise InvalidArgument("cannot push a digest reference")
        if reference.tag is None:
            return tagged
        if reference not in tagged:
            raise SystemFailure(f"tag does not exist: {reference.familiar}")
        return [reference]

    async def _target(self, known: Registries, transport: Transport, reference: Reference, credentials: AuthConfig) -> _Target:
        """The repository at the first endpoint that answers. Raises Unreachable, Refused."""
        failure: EngineError = SystemFailure("no registry to push to")
        for repository in known.writable(transport, reference, credentials):
            try:
                await repository.ping()
                return _Target(transport, reference, repository, credentials)
            except Unreachable as error:
                failure = error
        raise failure

    # one image

    async def _push_image(self, target: _Target, name: Reference, image: Image, lines: Lines) -> None:
        former = self._registries.sources.manifest(image.id)
        diff_ids = [DiffId(diff_id) for diff_id in image.config.rootfs.diff_ids or ()]
        known = pushing.layers_of(former, image)
        layers: dict[DiffId, _LayerPush] = {}
        for chain_id, diff_id, descriptor in reversed(list(zip(image.chain, diff_ids, known, strict=True))):
            layers.setdefault(diff_id, _LayerPush(chain_id, diff_id, descriptor, lines)).say("Preparing")
        with self._images.pinned(image.chain):
            placed = await self._push_layers(target, list(layers.values()))
            await upload.put_document(target.repository, image.document, attempts=ATTEMPTS)
            manifest = pushing.manifest_for(image, [placed[diff_id] for diff_id in diff_ids], former)
            assert name.tag is not None
            await upload.put_manifest(target.repository, name.tag, manifest.media_type, manifest.body, attempts=ATTEMPTS)
            digest = sha256_of(manifest.body)
            if self._store.get(image.id) is not None:  # it may have been removed meanwhile
                self._store.add_digest(image, name._replace(tag=None, digest=digest))
                self._registries.sources.keep_manifest(image.id, manifest)
        size = len(manifest.body)
        lines.say({"status": f"{name.tag}: digest: {digest} size: {size}"})
        lines.say({"progressDetail": {}, "aux": {"Tag": name.tag, "Digest": digest, "Size": size}})

    async def _push_layers(self, target: _Target, layers: Sequence[_LayerPush]) -> Mapping[DiffId, Descriptor]:
        """What the repository has the layers as. Raises the first error, the others' work ended."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {layer.diff_id: group.create_task(self._push_layer(target, layer)) for layer in layers}
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
        return {diff_id: task.result() for diff_id, task in tasks.items()}

    async def _push_layer(self, target: _Target, layer: _LayerPush) -> Descriptor:
        if self._slots.locked():
            layer.say("Waiting")
        async with self._slots:
            placed = await self._place(target, layer)
        self._note(layer, placed, target.reference.name)
        return placed

    def _note(self, layer: _LayerPush, blob: Descriptor, repository: str) -> None:
        source = BlobSource(layer.diff_id, blob.digest, blob.media_type, blob.size, repository)
        self._registries.note([source])

    async def _place(self, target: _Target, layer: _LayerPush) -> Descriptor:
        """See that the repository has the layer, in whatever compression. Says how it came there."""
        sources = self._candidates(target, layer)
        found = await self._existing(target, sources)
        if found is not None:
            layer.say("Layer already exists")
            return _descriptor(found)
        begun: Started | None = None
        for source in [source for source in sources if target.same_registry(source)][:MOUNTS_MAX]:
            path = target.path_of(source)
            with suppress(SystemFailure):  # we may not read there, or not ask for that: then the blob is sent
                begun = await upload.mount(target.repository, source.digest, path)
                if begun is None:
                    layer.say(f"Mounted from {path}")
                    return _descriptor(source)
        return await self._send_again(target, layer, sources, begun) or await self._send_compressed(target, layer, begun)

    def _candidates(self, target: _Target, layer: _LayerPush) -> list[BlobSource]:
        """Blobs of the layer that are known, the most promising first."""

        def rank(source: BlobSource) -> tuple[bool, int]:
            # the blob by which the image came keeps its digest; then what is in this registry already
            other = layer.former is None or source.digest != layer.former.digest
            return other, 0 if source.repository == target.reference.name else 1 if target.same_registry(source) else 2

        usable = (source for source in self._registries.sources.of(layer.diff_id) if pushing.compression_of(source.media_type) is not None)
        return sorted((source for source in usable if is_sha256(source.digest)), key=rank)

    async def _existing(self, target: _Target, sources: Sequence[BlobSource]) -> BlobSource | None:
        """The first of the blobs that the repository has."""
        by_digest = {source.digest: source for source in reversed(sources)}
        for digest in list(dict.fromkeys(source.digest for source in sources))[:CHECKS_MAX]:
            if await upload.exists(target.repository, digest):
                return by_digest[digest]
            for source in sources:
                if source.digest == digest and source.repository == target.reference.name:
                    self._registries.sources.remove(source)
        return None

    # sending

    async def _send_again(
        self, target: _Target, layer: _LayerPush, sources: Sequence[BlobSource], begun: Started | None
    ) -> Descriptor | None:
        """The blob by which the layer came, fetched from where it came from and sent on. None: that source is away, or is no more."""
        source = next((source for source in sources if source.repository not in ("", target.reference.name)), None)
        if source is None:
            return None
        origin = await self._origin(target, source.repository)
        if not origin:
            return None
        async with self._registries.partials.lock(source.digest):
            blob = await self._fetched(origin, source)
        if blob is None:
            return None
        try:  # however slow the registry is: who pulls this blob does not wait for it
            await self._send(target, layer, BlobFile(blob.fd, source.digest, source.size), begun)
        finally:
            blob.close()
        return _descriptor(source)

    async def _fetched(self, origin: Sequence[Repository], source: BlobSource) -> PartialBlob | None:
        """A whole blob without a name, the caller's to close; its lock is held. None: it cannot be had."""
        try:
            blob = self._registries.partials.open(source.digest, source.size)
        except (EngineError, OSError):
            return None
        try:
            await fetch(origin, blob, attempts=REFETCH_ATTEMPTS, progress=lambda _text: None)
            blob.remove()
        except (EngineError, OSError):
            blob.close()
            return None
        except BaseException:
            blob.close()
            raise
        return blob

    async def _origin(self, target: _Target, name: str) -> Sequence[Repository]:
        """The endpoints from the first that answers on, of a repository that had a layer; asked once for each push."""
        async with target.asking:
            if name not in target.origins:
                reference = parse(name)
                credentials = target.credentials if reference.domain == target.reference.domain else AuthConfig()
                found = self._registries.readable(target.transport, reference, credentials)
                target.origins[name] = ()
                for at, repository in enumerate(found):
                    with suppress(SystemFailure):
                        await repository.ping()
                        target.origins[name] = found[at:]
                        break
            return target.origins[name]

    async def _send_compressed(self, target: _Target, layer: _LayerPush, begun: Started | None) -> Descriptor:
        """Compress the layer's tar and send that, unless the repository turns out to have it."""
        with making("a file"):
            fd = nameless_file(self._root)
        try:
            blob = await self._compress(layer, fd)
            self._note(layer, blob, "")
            if await upload.exists(target.repository, blob.digest):
                layer.say("Layer already exists")
            else:
                await self._send(target, layer, BlobFile(fd, blob.digest, blob.size), begun)
        finally:
            os.close(fd)
        return blob

    async def _compress(self, layer: _LayerPush, output: int) -> Descriptor:
        empty = os.open(self._snapshots.empty, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            made = await through_pipe(
                lambda writer: self._snapshots.archive(layer.chain_id, writer),
                lambda reader: self._workers.stream("compress", {}, [reader, output, empty]),
            )
        finally:
            os.close(empty)
        return Descriptor(pushing.GZIPPED, made["digest"], made["size"])

    async def _send(self, target: _Target, layer: _LayerPush, blob: BlobFile, begun: Started | None) -> None:
        def progress(text: str, sent: int) -> None:
            layer.say(text, sent if text == "Pushing" else None, blob.size)

        await upload.send(target.repository, blob, begun, attempts=ATTEMPTS, progress=progress)
        layer.say("Pushed")


def _descriptor(source: BlobSource) -> Descriptor:
    return Descriptor(source.media_type, source.digest, source.size)
