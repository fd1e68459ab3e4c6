"""docker pull: a manifest, its config, and all its layers at once, each unpacked while it arrives.

Nothing is visible before every digest and diffID is right; then image and names appear in one step.
"""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import NamedTuple

from sampan.digest import DiffId, ImageId, is_sha256
from sampan.distribution.registry import CONFIG_MAX, Manifest, Repository
from sampan.engine.images import ImageService
from sampan.engine.lines import Lines
from sampan.engine.progress import Progress
from sampan.engine.pulllayers import LayerPull, PullLayers
from sampan.engine.registries import Registries
from sampan.errors import InvalidArgument, NotFound, printable
from sampan.image import platforms, pulling
from sampan.image.store import Image, ImageStore
from sampan.reference import Reference
from sampan.snapshot.api import Snapshots
from sampan.spec import oci_layout
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.oci_documents import decode
from sampan.spec.oci_layout import Platform
from sampan.state.blobs import BlobSource, ManifestRow

INDEX_DEPTH_MAX = 4
DOCUMENTS_MAX = 32 << 20
"""Of the images that one `pull -a` may bring: bytes of their configs, which stay in memory"""


class _Source(NamedTuple):
    """Where an image comes from: the repository that gave the manifest, then the others that may have its blobs."""

    repositories: Sequence[Repository]
    found: Manifest | Reference
    """A name with a digest: the image that is here has it, and need not come."""


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
        self._layers = PullLayers(snapshots, registries, unpackers)

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
            names, repositories = [reference], None
            if reference.tag is None and reference.digest is None:
                repositories, tags = await known.first(transport, reference, credentials, Repository.tags)
                names = [reference._replace(tag=tag) for tag in tags]
            newer = False
            warning = ""
            brought = 0
            for name in names:
                ask = partial(self._ask, reference=name, wanted=wanted)
                if repositories is None:
                    found = await known.first(transport, name, credentials, ask)
                else:  # who we are there is known by now
                    found = repositories, await known.any_of(repositories, ask)
                image, former = await self._pull_one(_Source(*found), name, wanted, lines)
                newer = newer or former != image.id
                brought += len(image.document) if former != image.id else 0
                if brought > DOCUMENTS_MAX:
                    raise InvalidArgument(
                        f"the configs of the images of {reference.familiar} have more than {DOCUMENTS_MAX} bytes: "
                        "pull those that you want by name"
                    )
                warning = warning or platforms.mismatch(reference.familiar, image, wanted)  # of a manifest that is no index
                await lines.drained()
            fresh = "Downloaded newer image" if newer else "Image is up to date"
            lines.say({"status": f"Status: {fresh} for {reference.familiar}"})
            if warning:
                lines.say({"status": f"WARNING: {printable(warning)}"})

    # where from

    async def _ask(self, repository: Repository, *, reference: Reference, wanted: Platform | None) -> Manifest | Reference:
        """What a name means there: its manifest, or if that is the image which has the name here, the digest that this has there."""
        name = reference.digest or reference.tag or ""
        image = None if reference.digest else self._store.named(reference)
        if image is not None and platforms.matches(wanted or platforms.own(), platforms.of(image)):
            digest = await repository.head(name)
            proved = reference._replace(tag=None, digest=digest)
            if is_sha256(digest) and self._store.named(proved) is image and all(map(self._snapshots.is_whole, image.chain)):
                return proved
        return await repository.manifest(name)

    async def _image_manifest(self, repositories: Sequence[Repository], found: Manifest, wanted: Platform | None) -> Manifest:
        """The image's own manifest: of an index, the one for the platform. Raises NotFound, InvalidArgument."""
        platform = wanted or platforms.own()
        for _ in range(INDEX_DEPTH_MAX):
            if found.media_type not in (oci_layout.INDEX, oci_layout.DOCKER_INDEX):
                return found
            chosen = platforms.entry_for(decode(found.body, oci_layout.Index, "the registry's manifest cannot be read"), platform)
            if chosen is None:
                raise NotFound(f"no matching manifest for {platforms.shown(platform)} in the manifest list entries")
            if not is_sha256(chosen.digest):
                raise InvalidArgument(f"unsupported digest algorithm: {chosen.digest}")
            found = await self._registries.any_of(repositories, partial(Repository.manifest, reference=chosen.digest))
        raise InvalidArgument(f"indexes within indexes, more than {INDEX_DEPTH_MAX} deep")

    # one image

    async def _pull_one(self, source: _Source, reference: Reference, wanted: Platform | None, lines: Lines) -> tuple[Image, ImageId | None]:
        """The image, and the ID of that which had the name before."""
        top = source.found
        if isinstance(top, Reference):
            return self._up_to_date(reference, top, lines)
        own = await self._image_manifest(source.repositories, top, wanted)
        manifest = pulling.manifest_of(own.body, own.media_type)
        image = self._store.get(ImageId(manifest.config.digest))
        if image is None:
            document = await self._registries.any_of(source.repositories, lambda one: one.document(manifest.config, CONFIG_MAX))
        else:
            document = image.document
        image = pulling.image_for(manifest, document)
        lines.say({"status": f"Pulling from {reference.path}", "id": reference.digest or reference.tag})
        former = self._store.named(reference._replace(tag=None) if reference.digest else reference)
        proved = reference._replace(tag=None, digest=top.digest)
        try:
            with self._images.pinned(image.chain):
                missing = self._missing(image, manifest, lines)
                sizes = {layer.descriptor.digest: layer.descriptor.size for layer in missing}
                self._registries.partials.check(sizes, len(document) + len(own.body))
                await self._layers.bring(source.repositories, reference.name, missing)
                self._images.add(image, {}, names=() if reference.digest else (reference,), repo_digest=proved)
                self._images.announce_as("pull", image, reference)
        finally:
            self._images.clean_up()
        self._remember(image, own, manifest, reference)
        lines.say({"status": f"Digest: {top.digest}"})
        return image, None if former is None else former.id

    def _up_to_date(self, reference: Reference, proved: Reference, lines: Lines) -> tuple[Image, ImageId]:
        image = self._store.find(proved.familiar)
        lines.say({"status": f"Pulling from {reference.path}", "id": reference.tag})
        lines.say({"status": f"Digest: {proved.digest}"})
        self._images.announce_as("pull", image, reference)
        return image, image.id

    def _remember(self, image: Image, own: Manifest, manifest: oci_layout.Manifest, reference: Reference) -> None:
        """Note by which manifest and blobs the image came: pushed again it keeps its digests.

        That a blob is one that was here already the registry merely says: whoever believed it would push somebody else's blob. So it
        counts only where the same blob has been unpacked to that layer, just now or before.
        """
        sources = []
        for diff_id, blob in zip(image.config.rootfs.diff_ids or (), manifest.layers, strict=True):
            source = BlobSource(DiffId(diff_id), blob.digest, blob.media_type, blob.size, reference.name)
            if any(source._replace(repository=other.repository) == other for other in self._registries.sources.of(source.diff_id)):
                sources.append(source)
        self._registries.note(sources)
        if len(sources) == len(manifest.layers):
            self._registries.sources.keep_manifest(image.id, ManifestRow(own.media_type, own.body))

    def _missing(self, image: Image, manifest: oci_layout.Manifest, lines: Lines) -> Sequence[LayerPull]:
        """The layers that are to be brought; docker's first lines about all of them."""
        work: list[LayerPull] = []
        whole = [self._snapshots.is_whole(name) for name in image.chain]
        here = self._store.get(image.id) is not None and all(whole)  # then docker does not speak of its layers
        for index, (diff_id, descriptor) in enumerate(zip(image.config.rootfs.diff_ids or (), manifest.layers, strict=True)):
            layer = LayerPull(index, image.chain, DiffId(diff_id), descriptor, lines)
            if not whole[index]:
                layer.say("Pulling fs layer")
                work.append(layer)
            elif not here:
                layer.say("Already exists")
        return work
