"""Use cases of local images: list, inspect, history, tag, remove, import, bootstrap, prune, repair."""

import asyncio
import builtins
import logging
import os
from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager, suppress
from functools import partial

import msgspec

from sampan.clock import Clock, rfc3339nano
from sampan.digest import ChainId, DiffId, ImageId, chain_id
from sampan.engine import image_filters, image_removal
from sampan.engine.image_removal import InUse
from sampan.engine.pipes import feed, through_pipe
from sampan.engine.progress import Progress
from sampan.errors import Conflict, EngineError, InvalidArgument, NotFound, SystemFailure
from sampan.events.bus import EventBus
from sampan.findings import Finding
from sampan.image import bodies, busybox, platforms
from sampan.image.store import Image, ImageStore, image_of
from sampan.reference import InvalidReference, Reference, parse
from sampan.snapshot.api import Snapshots, Unpacked
from sampan.spec.docker_api import image as body
from sampan.spec.docker_api.inspect import GraphDriverData
from sampan.spec.oci_image import ContainerConfig, History, ImageConfig, RootFS, encode_config
from sampan.spec.oci_layout import Platform
from sampan.version import ENGINE_VERSION

log = logging.getLogger(__name__)


class ImageService:
    """Docker's image calls on the local store. Used from the event loop's thread only."""

    def __init__(self, store: ImageStore, snapshots: Snapshots, events: EventBus, clock: Clock, *, in_use: InUse) -> None:
        self._store = store
        self._snapshots = snapshots
        self._events = events
        self._clock = clock
        self._in_use = in_use
        self.spare: Callable[[], int] = lambda: 0
        """Drops what may be dropped besides images, for `image prune`: what cut off pulls left. Returns the bytes that it freed."""
        self.spare_all: Callable[[], Awaitable[int]] = _nothing
        """Drops what can be had again besides images, for `image prune -a`. Returns the bytes that it freed."""
        self.hidden: Callable[[], Set[ImageId]] = frozenset
        """Images that only the build cache has: as long as they have no name they are in no list, and no `image prune` takes them."""
        self._cleaning: asyncio.Task[None] | None = None
        self._more_to_clean = False
        self._trash_error = ""
        """Said already"""
        self._pins: Counter[ChainId] = Counter()
        self._orphans: set[ChainId] = set()
        """Layers that no image needs but that a container's tree stands on"""

    # what there is

    @property
    def count(self) -> int:
        """How many images there are (docker info's Images)."""
        return len(self._store.all())

    def resolve(self, name: str) -> Image:
        """The image a container is created from, by name, ID or ID prefix. Raises NotFound, `No such image: x:latest`."""
        return self._store.find(name)

    def get(self, image: ImageId) -> Image | None:
        """By full ID."""
        return self._store.get(image)

    async def list(
        self, *, all: bool, filters: Mapping[str, Sequence[str]], shared_size: bool, layer_size: bodies.LayerSize | None = None
    ) -> Sequence[body.ImageSummary]:
        """Images, newest first; intermediate ones only with all. Raises InvalidArgument for a bad filter.

        layer_size: what a layer counts for instead of the sizes of its files.
        """
        layer_size = layer_size or self._layer_size
        wanted = image_filters.ListFilter(filters, self._store, self._clock)
        counts = self._layer_counts() if shared_size else {}
        found: builtins.list[body.ImageSummary] = []
        named, inner = self._store.named_ids(), self._store.parents() | self.hidden()
        for image in sorted(self._store.all(), key=bodies.created_ns, reverse=True):
            references = self._store.references(image.id) if image.id in named else []
            if image.id in inner and (wanted.dangling or not (all or references)):
                continue
            shown = wanted.matching(image, references)
            if shown is None:
                continue
            shared = sum(layer_size(name) for name in image.chain if counts[name] > 1) if shared_size else -1
            containers = len(self._in_use(image.id))
            size = bodies.total_size(image, layer_size)
            found.append(bodies.summary(image, shown, size, containers=containers, shared_size=shared))
        return found

    async def inspect(self, name: str, platform: Platform | None = None) -> body.ImageInspect:
        """One image. Raises NotFound, for one of another platform too."""
        image = self._find(name, platform)
        driver = GraphDriverData(name=self._snapshots.driver)
        with suppress(NotFound):
            if image.chain_id is not None:
                details = self._snapshots.layer_details(image.chain_id)
                driver = GraphDriverData(name=details.driver, data=details.data)
        size = bodies.total_size(image, self._layer_size)
        return bodies.inspect(image, self._store.references(image.id), size, driver)

    async def history(self, name: str, platform: Platform | None = None) -> Sequence[body.ImageHistoryItem]:
        """Its layers, newest first. Raises NotFound, for one of another platform too."""
        image = self._find(name, platform)
        lineage = ((one.id, self._store.references(one.id)) for one in self._store.lineage(image))
        return bodies.history(image, lineage, self._layer_size)

    def _find(self, name: str, platform: Platform | None) -> Image:
        image = self._store.find(name)
        problem = platforms.mismatch(name, image, platform)
        if problem:
            raise NotFound(problem)
        return image

    def _layer_size(self, name: ChainId) -> int:
        layer = self._snapshots.layer(name)
        return 0 if layer is None else layer.size

    def _needed(self) -> Set[ChainId]:
        """Layers that must stay: an image has them, or somebody is at work with them."""
        return {*self._layer_counts(), *self._pins}

    def _unneeded(self, layers: Set[ChainId]) -> Set[ChainId]:
        """Those of these layers that may go: no image has them, and nobody is at work with them."""
        left = layers - self._pins.keys()
        for image in reversed(self._store.all()):  # what was at work has likely come to one of the last
            if not left:
                break
            left = left.difference(image.chain)
        return left

    def _layer_counts(self) -> dict[ChainId, int]:
        counts: dict[ChainId, int] = {}
        for image in self._store.all():
            for name in image.chain:
                counts[name] = counts.get(name, 0) + 1
        return counts

    # names

    async def tag(self, name: str, repo: str, tag: str) -> None:
        """Give another name. Raises NotFound, InvalidArgument."""
        image = self._store.find(name)
        reference = parse_target(repo, tag)
        if reference is None:
            raise InvalidReference("invalid reference format")
        self._store.tag(image, reference, now=self._clock.now_ns())
        self._publish("tag", image, reference.familiar)

    async def remove(self, name: str, *, force: bool, prune: bool, platform: Platform | None = None) -> Sequence[body.ImageDeleteItem]:
        """Take a name off, and delete what nothing else uses. Raises NotFound, Conflict in docker's words."""
        self._find(name, platform)
        return self._finish_removal(image_removal.remove(name, self._store, self._in_use, force=force, prune=prune))

    async def prune(self, filters: Mapping[str, Sequence[str]]) -> body.ImagesPruneReport:
        """Delete what no container uses; dangling=true (the default) keeps images with tags."""
        wanted = image_filters.PruneFilter(filters, self._clock)
        deleted: builtins.list[body.ImageDeleteItem] = []
        inner = self._store.parents() | self.hidden()
        reclaimed = self.spare()
        before = sum(layer.size for layer in self._snapshots.layers())
        for image in self._store.all():
            references = self._store.references(image.id)
            if self._store.get(image.id) is None or self._in_use(image.id) or not wanted.applies(image, references):
                continue
            if image.id in inner and (wanted.only_dangling or not references):  # it goes with its last child, or with the cache
                continue
            for name in [reference.familiar for reference in references] or [image.id]:
                with suppress(Conflict, NotFound):  # a child that stays keeps its parent; digests go with their repository's last tag
                    deleted += self._finish_removal(image_removal.remove(name, self._store, self._in_use, force=False, prune=True))
        reclaimed += before - sum(layer.size for layer in self._snapshots.layers())
        if set(filters) <= {"dangling"} and not wanted.only_dangling:
            reclaimed += await self.spare_all()
        self._events.publish("image", "prune", "", {"reclaimed": str(reclaimed)})
        return body.ImagesPruneReport(images_deleted=deleted or None, space_reclaimed=reclaimed)

    def _finish_removal(self, steps: Sequence[image_removal.Step]) -> builtins.list[body.ImageDeleteItem]:
        """Events and layers of what was taken out of the store."""
        items: builtins.list[body.ImageDeleteItem] = []
        still = Counter(name for step in steps if not step.untagged for name in step.image.chain)
        for step in steps:
            if step.untagged:
                items.append(body.ImageDeleteItem(untagged=step.untagged))
                self._publish("untag", step.image, step.image.id)
            else:
                items.append(body.ImageDeleteItem(deleted=step.image.id))
                # docker looks for the labels when they are gone
                self._events.publish("image", "delete", step.image.id, {"name": step.image.id})
                still.subtract(step.image.chain)
                items += [body.ImageDeleteItem(deleted=name) for name in self._release(step.image.chain, +still)]
        self.clean_up()
        return items

    def _release(self, chain: Sequence[ChainId], others: Iterable[ChainId] = ()) -> builtins.list[ChainId]:
        """Drop the layers that no image and no container needs any more, top first; but not others."""
        kept = {*self._needed(), *others}
        released: builtins.list[ChainId] = []
        for name in reversed(chain):
            if name in kept:
                break
            try:
                self._snapshots.remove_layer(name)
            except Conflict:  # under a container
                self._orphans.add(name)
                break
            released.append(name)
        return released

    def clean_up(self) -> None:
        """Empty the trash in the background, one run at a time."""
        self._more_to_clean = True
        if self._cleaning is None or self._cleaning.done():
            self._cleaning = asyncio.ensure_future(self._empty_trash())

    async def _empty_trash(self) -> None:
        while self._more_to_clean:
            self._more_to_clean = False
            try:
                await self._snapshots.empty_trash()
            except (EngineError, OSError) as error:  # the next removal or the next start tries again
                if str(error) != self._trash_error:
                    log.warning("what was removed still takes space on the disk: %s", error)
                self._trash_error = str(error)

    async def settle(self) -> None:
        """Wait until removed files are really gone (tests, shutdown)."""
        if self._cleaning is not None:
            await asyncio.gather(self._cleaning, return_exceptions=True)

    # new images

    async def import_(
        self, source: AsyncIterable[bytes], *, repo: str, tag: str, message: str, changes: Sequence[str], platform: str
    ) -> AsyncIterator[Progress]:
        """Make an image of one tar, compressed or not; message: its comment. Yields docker's progress: the ID at the end."""
        from sampan.build.changes import apply_changes  # none of the builder is needed to start

        target = parse_target(repo, tag)
        config = apply_changes(ContainerConfig(), changes)
        made_for = platforms.wanted(platform) if platform else platforms.own()
        if made_for.os != "linux":
            raise InvalidArgument("operating system is not supported")
        unpacked, key = await self.unpack_from(feed(source))
        created = rfc3339nano(self._clock.now_ns())
        document = ImageConfig(
            architecture=made_for.architecture,
            variant=made_for.variant,
            os=made_for.os,
            created=created,
            config=config,
            rootfs=RootFS(diff_ids=[unpacked.diff_id]),
            history=[History(created=created, comment=message)],
            docker_version=ENGINE_VERSION,
        )
        image = self._finish(key, document, target)
        self._publish("import", image, image.id)
        yield {"status": image.id}

    async def bootstrap(self, name: str) -> AsyncIterator[Progress]:
        """Make a base image of the distribution's packages; only `busybox` now. Yields progress, the ID last."""
        if name != "busybox":
            raise InvalidArgument(f"cannot bootstrap {name!r}: the images that can be made here are: busybox")
        package = await asyncio.to_thread(busybox.find_package)
        yield {"status": f"Using package busybox-static {package.version} (source {package.source} {package.source_version})"}

        async def pieces() -> AsyncIterator[bytes]:
            for piece in busybox.rootfs_tar(package):
                yield piece

        unpacked, key = await self.unpack_from(feed(pieces()))
        image = self._finish(key, busybox.image_config(package, unpacked.diff_id), parse("busybox:latest"))
        self._publish("import", image, image.id)
        yield {"status": f"Tagged busybox:latest, {len(package.applets)} applets"}
        yield {"status": image.id}

    async def unpack_from(self, write: Callable[[int], Awaitable[object]]) -> tuple[Unpacked, str]:
        """A layer of what write() writes into a pipe, not committed, and its key: add_child() or forget() follows. See through_pipe."""
        key = os.urandom(12).hex()
        try:
            return await through_pipe(write, lambda archive: self._snapshots.unpack(key, archive)), key
        except BaseException:
            self.forget(key)
            raise

    def forget(self, key: str) -> None:
        """Drop a layer that was unpacked."""
        self._snapshots.remove(key)
        self.clean_up()

    def add_child(self, parent: Image | None, key: str, unpacked: Unpacked, config: ImageConfig, target: Reference | None) -> Image:
        """An image of a parent's layers and an unpacked one, which config names unless it is empty. No await: all or nothing."""
        below = None if parent is None else parent.chain_id
        name = chain_id(below, unpacked.diff_id)
        grows = unpacked.diff_id in (config.rootfs.diff_ids or [])[-1:] and unpacked.entries > 0
        if not grows:
            self._snapshots.remove(key)
        try:
            names = () if target is None else (target,)
            made = image_of(encode_config(config))
            image = self.add(made, {name: key} if grows else {}, names=names, parent="" if parent is None else parent.id)
        except BaseException:
            self.forget(key)
            raise
        self._publish("create", image, image.id)
        if target is not None:
            self._publish("tag", image, target.familiar)
        self.clean_up()
        return image

    def add_step(self, parent: Image | None, config: ImageConfig, layer: tuple[str, Unpacked] | None) -> Image:
        """The image of a build step: no name, no event, durable with the next image that has a name.

        layer: unpacked, with its key; dropped when it is empty, or after an error.
        """
        keys: dict[ChainId, str] = {}
        if layer is not None:
            key, unpacked = layer
            if unpacked.entries:
                keys[chain_id(None if parent is None else parent.chain_id, unpacked.diff_id)] = key
            else:
                self.forget(key)
        try:
            known = parent is not None and self._store.get(parent.id) is not None
            below = parent.id if parent is not None and known else ""
            return self.add(image_of(encode_config(config)), keys, names=(), parent=below, durable=False)
        except BaseException:
            for key in keys.values():
                self.forget(key)
            raise

    def add_restored(self, source: Image, parent: Image | None, steps: int, layers: int) -> Image:
        """What an image was after so many steps of its history, which have so many layers: an image of its own, below it."""
        history = list(source.config.history or ())[:steps]
        document = msgspec.structs.replace(
            source.config,
            created=history[-1].created,
            author=history[-1].author,
            rootfs=RootFS(diff_ids=list(source.config.rootfs.diff_ids or ())[:layers]),
            history=history,
        )
        return self.add(image_of(encode_config(document)), {}, names=(), parent="" if parent is None else parent.id)

    def _finish(self, key: str, config: ImageConfig, target: Reference | None) -> Image:
        """Commit a layer and the image made of it."""
        name = chain_id(None, DiffId((config.rootfs.diff_ids or [])[0]))
        try:
            image = self.add(image_of(encode_config(config)), {name: key}, names=() if target is None else (target,))
        except BaseException:
            self._snapshots.remove(key)
            raise
        if target is not None:
            self._publish("tag", image, target.familiar)
        self.clean_up()
        return image

    def add(
        self,
        image: Image,
        keys: Mapping[ChainId, str],
        *,
        names: Sequence[Reference],
        repo_digest: Reference | None = None,
        parent: str = "",
        durable: bool = True,
    ) -> Image:
        """Commit unpacked layers, by the ChainIDs they are to have, and the image on top. No await: it all happens, or nothing does.

        Its other layers are there, pinned since the caller saw them. names, repo_digest, durable: see ImageStore.add.
        Raises InvalidArgument, SystemFailure; then what keys name is still to be removed.
        """
        below: ChainId | None = None
        try:
            for name in image.chain:
                if name in keys:
                    self._snapshots.commit(keys[name], name, below)
                elif self._snapshots.layer(name) is None:
                    raise SystemFailure(f"layer {name} of image {image.id} was removed meanwhile")
                below = name
            return self._store.add(image, now=self._clock.now_ns(), names=names, repo_digest=repo_digest, parent=parent, durable=durable)
        except BaseException:
            self._release(image.chain)
            raise

    @contextmanager
    def pinned(self, chain: Iterable[ChainId]) -> Iterator[None]:
        """Keep layers, there already or still to come, from being removed with an image."""
        with self.holding() as hold:
            hold(chain)
            yield

    @contextmanager
    def holding(self) -> Iterator[Callable[[Iterable[ChainId]], None]]:
        """As pinned(), for layers that become known one after the other: give each chain to what this yields."""
        names: set[ChainId] = set()

        def hold(chain: Iterable[ChainId]) -> None:
            for name in chain:
                if name not in names:
                    names.add(name)
                    self._pins[name] += 1

        try:
            yield hold
        finally:
            for name in names:
                self._pins[name] -= 1
                if not self._pins[name]:
                    del self._pins[name]
            unneeded = self._unneeded(names)
            for layer in reversed(self._snapshots.layers() if unneeded else []):
                if layer.name in unneeded:
                    self._release([layer.name])

    def announce(self, action: str, image: Image) -> None:
        """An event of an image as a whole (`load`, `save`)."""
        self._publish(action, image, image.id)

    def announce_as(self, action: str, image: Image, reference: Reference) -> None:
        """An event whose actor is the name: `pull`, `push` (moby daemon/images/image_pull.go)."""
        self._publish(action, image, reference.familiar_name, actor=reference.familiar)

    def _publish(self, action: str, image: Image, name: str, *, actor: str = "") -> None:
        """actor: what it is about, if that is not the image's ID."""
        labels = (image.config.config.labels if image.config.config is not None else None) or {}
        self._events.publish("image", action, actor or image.id, {**labels, "name": name})

    def collect(self) -> None:
        """Drop layers that outlived their image because a container stood on them. Called when a container has been removed."""
        needed = self._needed() if self._orphans else frozenset()
        for layer in reversed(self._snapshots.layers() if self._orphans else []):
            if layer.name not in needed:
                with suppress(Conflict):
                    self._snapshots.remove_layer(layer.name)
        self._orphans &= {layer.name for layer in self._snapshots.layers() if layer.name not in needed}
        self.clean_up()

    # what is wrong

    def look(self) -> builtins.list[Finding]:
        """Layers that no image needs, images whose layers are not there, names and rows that lead nowhere, and trash that stays."""
        found = self._store.look()
        needed, under_containers = self._needed(), self._snapshots.parents()
        layers = [layer.name for layer in self._snapshots.layers()]
        for layer in reversed(layers):
            if layer not in needed and layer not in under_containers:
                found.append(Finding("layer", layer, "is of no image", "remove it", partial(self._drop_unused, layer)))
        there = set(layers)
        for image in self._store.all():
            for name in image.chain:
                if name not in there and name not in self._pins:
                    found.append(Finding("image", image.id, f"lacks layer {name}", "pull or load it again"))
        if (self._cleaning is None or self._cleaning.done()) and (left := self._snapshots.trash()):
            found.append(Finding("file", "overlay/trash", f"holds {len(left)} removed trees", "empty it", self._clean_up_now))
        return found

    def _drop_unused(self, name: ChainId) -> None:
        if name not in self._needed():
            with suppress(Conflict):
                self._snapshots.remove_layer(name)
                self.clean_up()

    async def _clean_up_now(self) -> None:
        self.clean_up()
        await self.settle()

    def repair(self, live_containers: Iterable[str]) -> builtins.list[str]:
        """At start: drop layers no image needs and trees no container owns; begin to empty the trash. Returns lines for the log."""
        found = self._snapshots.repair(live_containers)
        needed, under_containers = self._needed(), self._snapshots.parents()
        self._orphans = {name for name in under_containers if name not in needed}
        for layer in reversed(self._snapshots.layers()):
            if layer.name not in needed and layer.name not in under_containers:
                self._snapshots.remove_layer(layer.name)
                found.append(f"layer {layer.name} is of no image: repaired")
        found += [f"{finding.text}: {finding.remedy}" for finding in self._store.look()]
        self.clean_up()
        return found


async def _nothing() -> int:
    return 0


def parse_target(repo: str, tag: str) -> Reference | None:
    """A new name from docker's `repo` and `tag` parameters; None when repo is empty. Raises InvalidReference."""
    if not repo:
        return None
    reference = parse(repo)
    if reference.digest is not None:
        raise InvalidArgument("cannot import digest reference")
    return reference.with_tag(tag) if tag else reference.with_default_tag()
