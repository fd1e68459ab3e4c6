"""docker commit: what a container changed becomes a layer, on its image's own, with a config merged of both."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import msgspec

from sampan.build.changes import apply_changes
from sampan.clock import Clock, rfc3339nano
from sampan.engine.commitoptions import CommitOptions
from sampan.engine.containerevents import ContainerEvents
from sampan.engine.containerstore import Container, Containers
from sampan.engine.control import Control
from sampan.engine.images import ImageService, parse_target
from sampan.engine.trees import Trees
from sampan.errors import Conflict, InvalidArgument
from sampan.image.store import Image
from sampan.platforms import machine
from sampan.reference import Reference
from sampan.snapshot.api import Unpacked
from sampan.spec.docker_api.container import Config
from sampan.spec.oci_image import ContainerConfig, History, ImageConfig, RootFS
from sampan.version import ENGINE_VERSION

MAX_LAYERS = 127
"""More run nowhere else: docker's overlay2 takes that many in one mount."""
_SHALLOWER = "make one layer of them with `sampan export CONTAINER | sampan import - NAME`, or begin with an image that has fewer"


class CommitService:
    """See api/services.py for the contract of each method."""

    def __init__(
        self, containers: Containers, images: ImageService, control: Control, events: ContainerEvents, trees: Trees, clock: Clock
    ) -> None:
        self._containers = containers
        self._images = images
        self._control = control
        self._events = events
        self._trees = trees
        self._clock = clock

    async def commit(self, ref: str, options: CommitOptions, config: Config | None) -> str:
        """Make an image of a container's changes; its ID. config: instead of the container's own, which fills what it leaves open."""
        target = parse_target(options.repo, options.tag)
        container = self._containers.find(ref)
        if container.removing:
            raise Conflict(f"You cannot commit container {container.id} which is being removed")
        wanted = merged(image_config(config or container.config), image_config(container.config), options.changes)
        parent = self._images.resolve(container.image_id) if container.image_id else None
        check_depth(parent, "the container's image", _SHALLOWER)
        with self._images.pinned(() if parent is None else parent.chain):
            return await self._commit(container, parent, wanted, options, target)

    async def _commit(
        self, container: Container, parent: Image | None, wanted: ContainerConfig, options: CommitOptions, target: Reference | None
    ) -> str:
        async with self._still(container, options.pause) as locked:
            unpacked, key = await self._layer(container, options.epoch, locked)
        created = rfc3339nano(self._clock.now_ns() if options.epoch is None else options.epoch * 10**9)
        document = child_config(parent, container, wanted, unpacked, options, created)
        image = self._images.add_child(parent, key, unpacked, document, target)
        named = "" if target is None else target.familiar
        self._events.publish(container, "commit", {"comment": options.comment, "imageID": image.id, "imageRef": named})
        return image.id

    @asynccontextmanager
    async def _still(self, container: Container, pause: bool) -> AsyncIterator[bool]:
        """Keep the container from changing its files, if that is asked for. Yields whether its lock is held.

        The state stays `running`: an engine that is killed meanwhile finds the processes frozen without reason, and thaws them.
        """
        async with AsyncExitStack() as stack:
            if not pause and container.is_running:
                yield False
                return
            await stack.enter_async_context(container.lock)
            if container.is_running and not container.state.paused:
                await self._hold(container, frozen=True)
                stack.push_async_callback(self._hold, container, frozen=False)
            yield True

    async def _hold(self, container: Container, *, frozen: bool) -> None:
        with suppress(Conflict):  # its processes have just ended: nothing changes its files any more
            await self._control.hold(container, frozen=frozen)
            self._events.publish(container, "pause" if frozen else "unpause")

    async def _layer(self, container: Container, epoch: int | None, locked: bool) -> tuple[Unpacked, str]:
        """The changes as a new layer, not yet committed, and its key. Nothing is left after an error."""

        async def write(writer: int) -> None:
            await self._trees.run(container, "tree_diff", {"clamp": epoch}, [writer], locked=locked)

        return await self._images.unpack_from(write)


def check_depth(parent: Image | None, called: str, ways_out: str) -> None:
    """Raise InvalidArgument for an image that takes no further layer. called, ways_out: in the words of who is told."""
    count = 0 if parent is None else len(parent.chain)
    if count >= MAX_LAYERS:
        raise InvalidArgument(f"max depth exceeded: {called} has {count} layers, and an image can have {MAX_LAYERS}; {ways_out}")


def image_config(config: Config) -> ContainerConfig:
    """What of a container's config is an image's too."""
    return msgspec.convert(msgspec.to_builtins(config), ContainerConfig)


def merged(wanted: ContainerConfig, own: ContainerConfig, changes: Sequence[str]) -> ContainerConfig:
    """The new image's config: `wanted` with the changes; what it leaves open is the container's own (moby daemon/commit.go merge)."""
    if any(not change.strip() for change in changes):
        raise InvalidArgument("file with no instructions")
    new = apply_changes(wanted, changes)
    names = {entry.partition("=")[0] for entry in new.env or ()}
    entrypoint, cmd = new.entrypoint, new.cmd
    if not entrypoint:
        cmd = cmd or own.cmd
        entrypoint = own.entrypoint if entrypoint is None else entrypoint
    return msgspec.structs.replace(
        new,
        user=new.user or own.user,
        exposed_ports={**(own.exposed_ports or {}), **(new.exposed_ports or {})} or None,
        env=[*(new.env or ()), *(entry for entry in own.env or () if entry.partition("=")[0] not in names)] or None,
        labels={**(own.labels or {}), **(new.labels or {})} or None,
        entrypoint=entrypoint or None,
        cmd=cmd or None,
        healthcheck=new.healthcheck or own.healthcheck,
        working_dir=new.working_dir or own.working_dir,
        volumes={**(own.volumes or {}), **(new.volumes or {})} or None,
        stop_signal=new.stop_signal or own.stop_signal,
    )


def child_config(
    parent: Image | None, container: Container, config: ContainerConfig, unpacked: Unpacked, options: CommitOptions, created: str
) -> ImageConfig:
    """The new image's document (moby image.NewChildImage)."""
    base = parent.config if parent is not None else None
    empty = unpacked.entries == 0
    step = History(
        created=created,
        created_by=" ".join(container.config.cmd or ()),
        author=options.author,
        comment=options.comment,
        empty_layer=empty,
    )
    layers = list((base.rootfs.diff_ids if base is not None else None) or ())
    former = list((base.history if base is not None else None) or ()) or [History() for _ in layers]  # it may be left out
    return ImageConfig(
        architecture=base.architecture if base is not None else machine()[0],
        variant=base.variant if base is not None else machine()[1],
        os="linux",
        created=created,
        author=options.author,
        config=config,
        rootfs=RootFS(diff_ids=layers if empty else [*layers, unpacked.diff_id]),
        history=[*former, step],
        docker_version=ENGINE_VERSION,
        # another container each time would be another image each time
        container="" if options.epoch is not None else container.id,
    )
