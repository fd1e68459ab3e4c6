"""What build steps leave: an image each, whose parent is the one of the step before, and a layer for those that change files."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from sampan.build import cache
from sampan.clock import Clock, rfc3339nano
from sampan.engine.commit import check_depth
from sampan.engine.images import ImageService
from sampan.errors import InvalidArgument
from sampan.ids import short_id
from sampan.image import platforms
from sampan.image.store import Image
from sampan.snapshot.api import Unpacked
from sampan.spec.oci_image import ContainerConfig, History, ImageConfig, RootFS, StepConfig, StepImage
from sampan.spec.oci_layout import Platform
from sampan.state.buildcache import BuildCacheRepository
from sampan.version import ENGINE_VERSION

_SHALLOWER = (
    "join several RUN, COPY or ADD instructions to one, copy what they make from a stage of its own with `COPY --from`, "
    "or begin with an image that has fewer"
)


DOCUMENTS_MAX: Final = 256 << 20
"""Bytes of the documents of one build's images, which stay in memory: each has all the metadata and the history of those before it."""


class Layer:
    """A layer that a step has made, not committed yet."""

    def __init__(self, unpacked: Unpacked, key: str) -> None:
        self.unpacked, self.key = unpacked, key


class Made(NamedTuple):
    """How a step was made, which its image's document tells."""

    command: Sequence[str]
    """What ran, or the shell and a comment."""
    container: str = ""
    """Its ID; COPY and ADD have none."""
    ran: bool = False
    """RUN: without the image's entrypoint; its host name is not noted."""

    @property
    def created_by(self) -> str:
        """As the history says it."""
        return " ".join(self.command)

    def without_container(self) -> "Made":
        """The same for an image that is the same each time."""
        return self._replace(container="")

    def config(self, config: StepConfig, parent: Image | None) -> StepConfig:
        """`container_config`: the image's, as the container had it, which is given its own image's entrypoint where it has none."""
        inherited = parent.config.config.entrypoint if parent is not None and parent.config.config is not None and self.container else None
        return msgspec.structs.replace(
            config,
            cmd=list(self.command),
            entrypoint=None if self.ran else config.entrypoint or inherited,
            hostname="" if self.ran or not self.container else short_id(self.container),
        )


def _whole(image: Image) -> ImageConfig:
    """A step's document with all that is in it; of an image that no step made, what is understood of it."""
    try:
        return msgspec.json.decode(image.document, type=StepImage)
    except msgspec.ValidationError:
        return image.config


class BuildSteps:
    """Finds and makes the images of one build's steps."""

    def __init__(
        self,
        images: ImageService,
        cached: BuildCacheRepository,
        clock: Clock,
        *,
        use_cache: bool,
        epoch: int | None,
        platform: Platform | None,
        sources: Sequence[Image] = (),
    ) -> None:
        """epoch: SOURCE_DATE_EPOCH in seconds. platform: of images without a base. sources: of `--cache-from`."""
        self._images = images
        self._cached = cached
        self._clock = clock
        self._use_cache = use_cache
        self._sources = sources
        self.epoch = epoch
        self._platform = platform or platforms.own()
        self._used: list[str] = []
        self._made: set[str] = set()
        """IDs of images."""
        self._documents = 0
        """Bytes of theirs."""

    def key(self, parent: Image | None, command: Sequence[str], config: ContainerConfig, more: Sequence[str] = ()) -> str:
        """The identity of a step."""
        base = parent.id if parent is not None else "/".join((self._platform.os, self._platform.architecture, self._platform.variant))
        epoch = () if self.epoch is None else (f"epoch {self.epoch}",)
        return cache.key(base, command, config, [*more, *epoch])

    def find(self, key: str, parent: Image | None, created_by: str, *, told: bool) -> Image | None:
        """The image that this step has come to before. told: created_by, all that images from elsewhere have of it, tells all of it."""
        if not self._use_cache:
            return None
        image_id = self._cached.find(key)
        image = None if image_id is None else self._images.get(image_id)
        if image is not None:
            self._used.append(key)
            return image
        return self._from_sources(key, parent, created_by) if told else None

    def _from_sources(self, key: str, parent: Image | None, created_by: str) -> Image | None:
        """The image that one of `--cache-from` was at this step: its history up to here, made an image of its own."""
        steps = list((parent.config.history if parent is not None else None) or ())
        layers = list((parent.config.rootfs.diff_ids if parent is not None else None) or ())
        for source in self._sources:
            history, diff_ids = list(source.config.history or ()), list(source.config.rootfs.diff_ids or ())
            if len(history) <= len(steps) or history[: len(steps)] != steps or diff_ids[: len(layers)] != layers:
                continue
            step = history[len(steps)]
            if step.created_by != created_by:
                continue
            last = len(history) == len(steps) + 1
            image = source if last else self._images.add_restored(source, parent, len(steps) + 1, len(layers) + (not step.empty_layer))
            self._cached.put(key, image.id, created_by, self._clock.now_ns())
            return image
        return None

    def add(self, key: str, parent: Image | None, config: ContainerConfig, made: Made, author: str, layer: Layer | None) -> Image:
        """The image of a step. Raises InvalidArgument for too many layers or too much metadata; then, too, the layer is dropped."""
        grows = layer is not None and layer.unpacked.entries > 0
        try:
            if self._documents > DOCUMENTS_MAX:
                raise InvalidArgument(f"the images of a build's steps come to more than {DOCUMENTS_MAX} bytes of metadata and history")
            if grows:
                check_depth(parent, "the image of the step before", _SHALLOWER)
        except BaseException:
            if layer is not None:
                self._images.forget(layer.key)
            raise
        now = self._clock.now_ns() if self.epoch is None else self.epoch * 10**9
        told = made if self.epoch is None else made.without_container()
        document = self._document(parent, config, told, author, layer if grows else None, rfc3339nano(now))
        image = self._images.add_step(parent, document, None if layer is None else (layer.key, layer.unpacked))
        self._cached.put(key, image.id, made.created_by, self._clock.now_ns())
        self._made.add(image.id)
        self._documents += len(image.document)
        return image

    def hide(self) -> None:
        """Nobody is to see what was made here. What was there before is somebody's, perhaps."""
        self._cached.hide(self._made, self._clock.now_ns())

    def show(self, image: Image | None) -> None:
        """A build whose images are to be seen has come to this one."""
        if image is not None:
            self._cached.show(image.id)

    def _document(
        self, parent: Image | None, config: ContainerConfig, made: Made, author: str, layer: Layer | None, created: str
    ) -> ImageConfig:
        base = parent.config if parent is not None else None
        layers = list((base.rootfs.diff_ids if base is not None else None) or ())
        former = list((base.history if base is not None else None) or ()) or [History() for _ in layers]  # it may be left out
        step = History(created=created, created_by=made.created_by, author=author, empty_layer=layer is None)
        own = StepConfig(**msgspec.structs.asdict(config), image="" if parent is None else parent.id)
        return StepImage(
            architecture=base.architecture if base is not None else self._platform.architecture,
            variant=base.variant if base is not None else self._platform.variant,
            os="linux",
            created=created,
            author=author,
            config=own,
            container_config=made.config(own, parent),
            rootfs=RootFS(diff_ids=layers if layer is None else [*layers, layer.unpacked.diff_id]),
            history=[*former, step],
            docker_version=ENGINE_VERSION,
            container=made.container,
        )

    def add_squashed(self, base: Image | None, image: Image, layer: Layer) -> Image:
        """An image like another, but with one layer above its base's (moby daemon/images/image_squash.go)."""
        now = rfc3339nano(self._clock.now_ns() if self.epoch is None else self.epoch * 10**9)
        known = list((base.config.history if base is not None else None) or ())
        own = [msgspec.structs.replace(step, empty_layer=True) for step in (image.config.history or ())[len(known) :]]
        comment = f"merge {image.id} to {base.id}" if base is not None else f"create new from {image.id}"
        grows = layer.unpacked.entries > 0
        diff_ids = list((base.config.rootfs.diff_ids if base is not None else None) or ())
        document = msgspec.structs.replace(
            _whole(image),
            created=now,
            rootfs=RootFS(diff_ids=[*diff_ids, layer.unpacked.diff_id] if grows else diff_ids),
            history=[*known, *own, History(created=now, comment=comment, empty_layer=not grows)],
        )
        return self._images.add_step(base, document, (layer.key, layer.unpacked))

    def close(self) -> None:
        """Note which steps of the cache were of use."""
        if self._used:
            self._cached.touch(self._used, self._clock.now_ns())
