"""What is mounted into containers: decided at create, there while one runs (or is looked into), given back with it.

Volumes are made and referred to before the container's row is written, which takes them over; whatever fails in between is undone by
abandon(), and by sampand's start when it was killed (volume/store.py).
"""

import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any

import msgspec

from sampan.digest import ChainId
from sampan.engine import mounting
from sampan.engine.background import Background
from sampan.engine.containerstore import Container, Containers
from sampan.engine.images import ImageService
from sampan.engine.launch_failures import StartFailure
from sampan.engine.mounting import BindMount, ImageMount, Mount, TmpfsMount, VolumeMount
from sampan.engine.usernamespaces import UserNamespaces
from sampan.errors import InvalidArgument, NotFound, SystemFailure
from sampan.events.bus import EventBus
from sampan.linux import mounts as kernel
from sampan.linux import overlay
from sampan.runtime import plan
from sampan.snapshot.api import Snapshots
from sampan.spec.docker_api.container import Config, HostConfig
from sampan.volume.store import VolumeStore

_SHARED_NEEDED = {"shared": ("shared:",), "rshared": ("shared:",), "slave": ("shared:", "master:"), "rslave": ("shared:", "master:")}


class Opened:
    """The mounts of one start, and descriptors by the names that the plan gives them. close() once they are sent."""

    def __init__(self, mounts: list[plan.Mount], fds: dict[str, int]) -> None:
        self.mounts, self.fds = mounts, fds

    def close(self) -> None:
        """May be called twice."""
        for fd in self.fds.values():
            os.close(fd)
        self.fds = {}


class ContainerMounts:
    """See the module."""

    def __init__(
        self,
        containers: Containers,
        store: VolumeStore,
        images: ImageService,
        snapshots: Snapshots,
        events: EventBus,
        background: Background,
        users: UserNamespaces,
        data_root: str,
    ) -> None:
        self._data_root = data_root
        self._containers = containers
        self._store = store
        self._images = images
        self._snapshots = snapshots
        self._events = events
        self._background = background
        self._users = users
        self._pins: dict[str, ExitStack] = {}
        """By container ID: what keeps the layers of images that are mounted into it."""
        self._told: set[str] = set()
        """IDs of the containers whose volumes' mounts were published, and their ends not yet."""

    def restore(self) -> None:
        """At start: what containers have."""
        for container in self._containers:
            self._pin(container.id, container.mounts)
            if container.is_running:
                self._told.add(container.id)
                for name in _volumes(container.mounts):
                    self._store.still_mounted(name, container.id)

    # create

    def wanted(self, config: Config, host: HostConfig) -> list[Mount]:
        """All mounts that a new container is to have, volumes not made yet. Raises InvalidArgument."""
        others: list[Mount] = []
        for text in host.volumes_from or ():
            ref, readonly = mounting.parse_volumes_from(text)
            try:
                found = self._containers.find(ref)
            except NotFound as error:
                raise InvalidArgument(error.message) from None
            others += mounting.inherited(found.mounts, readonly=readonly)
        return mounting.with_propagation(mounting.mounts_of(config, host, others), self._data_root)

    def claim(self, container_id: str, wanted: Sequence[Mount]) -> list[Mount]:
        """Make the volumes and find the images of a new container's mounts.

        Raises NotFound, Conflict, InvalidArgument, SystemFailure; then abandon() is to be called.
        """
        result: list[Mount] = []
        for mount in wanted:
            if isinstance(mount, VolumeMount):
                result.append(self._claim_volume(container_id, mount))
            elif isinstance(mount, ImageMount) and not mount.image_id:
                image = self._images.resolve(mount.image)
                if image.chain_id is None:
                    raise InvalidArgument(f"cannot mount image {mount.image}: it has no layers")
                result.append(msgspec.structs.replace(mount, image_id=image.id, chain=tuple(image.chain)))
            else:
                result.append(mount)
        self._pin(container_id, result)
        return result

    def _claim_volume(self, container_id: str, mount: VolumeMount) -> VolumeMount:
        new = mount.new
        if new is None:  # of another container
            self._store.find(mount.name)
            self._store.hold(mount.name, container_id)
            return mount
        row, is_new = self._store.create(mount.name, driver=new.driver, options=new.options, labels=new.labels, container=container_id)
        if is_new:
            self._events.publish("volume", "create", row.name, {"driver": row.driver})
        return msgspec.structs.replace(mount, name=row.name, new=None)

    def _pin(self, container_id: str, mounts: Sequence[Mount]) -> None:
        chains = [ChainId(name) for mount in mounts if isinstance(mount, ImageMount) for name in mount.chain]
        if chains:
            with ExitStack() as stack:
                stack.enter_context(self._images.pinned(chains))
                self._pins[container_id] = stack.pop_all()

    def _unpin(self, container_id: str) -> None:
        if container_id in self._pins:
            self._pins.pop(container_id).close()

    def abandon(self, container_id: str) -> None:
        """The create has failed: what was made for it alone goes again."""
        self._unpin(container_id)
        gone = self._store.abandon(container_id)
        for row in gone:
            self._events.publish("volume", "destroy", row.name, {"driver": row.driver})
        if gone:
            self._background.spawn(self._store.local.empty_trash())

    def owned(self, container: Container) -> None:
        """The container's row is written: its volumes are as good as any."""
        self._store.owned(_volumes(container.mounts))

    # start and end

    async def open(self, container: Container) -> Opened:
        """Have everything there that is to be mounted. Raises EngineError; then, and at the run's end, close() is to be called."""
        for name in _volumes(container.mounts):
            await self._store.mount(name, container.id)
        try:
            mounting.make_sources(container.mounts, self._users.root_of(container.host_config))
        except OSError as error:
            raise SystemFailure(
                f"error while creating mount source path '{error.filename}': mkdir {error.filename}: {(error.strerror or '').lower()}"
            ) from error
        _check_propagation(mount for mount in container.mounts if isinstance(mount, BindMount) and not self._is_near(mount))
        fds: dict[str, int] = {}
        planned = self._planned(container.mounts)
        mapped = self._users.maps_of(container.host_config) is not None
        try:
            for number, mount in enumerate(container.mounts):
                if isinstance(mount, ImageMount) and mapped:
                    layers = await self._open_layers(mount, planned[number].descriptor, fds)
                    planned[number] = msgspec.structs.replace(planned[number], layers=layers)
                elif isinstance(mount, ImageMount):
                    fds[planned[number].descriptor] = await self._open_image(mount)
        except BaseException:
            Opened([], fds).close()
            raise
        self._told.add(container.id)
        for mount in container.mounts:
            if isinstance(mount, VolumeMount):
                attributes = {"container": container.id, "destination": mount.destination, "driver": "local", "propagation": ""}
                access = "false" if mount.readonly else "true"
                self._events.publish("volume", "mount", mount.name, {**attributes, "read/write": access})
        return Opened(planned, fds)

    def _is_near(self, mount: BindMount) -> bool:
        """It is a slave because we said so: where it cannot be one, it is private."""
        return mounting.holds(mount.source, self._data_root)

    async def _open_layers(self, mount: ImageMount, name: str, fds: dict[str, int]) -> tuple[str, ...]:
        """What an image is stacked of, for the child: paths, and names of descriptors that are put into fds."""
        found: list[str] = []
        with await self._snapshots.view(ChainId(mount.chain[-1])) as layers:
            for lower in layers.lowers:
                if isinstance(lower, int):
                    found.append(f"{name}.{len(found)}")
                    fds[found[-1]] = os.dup(lower)
                else:
                    found.append(lower)
        return tuple(found)

    async def _open_image(self, mount: ImageMount) -> int:
        """A detached mount of an image."""
        safe = kernel.MOUNT_ATTR_RDONLY | kernel.MOUNT_ATTR_NODEV | kernel.MOUNT_ATTR_NOSUID
        with await self._snapshots.view(ChainId(mount.chain[-1])) as layers:
            try:
                return overlay.mount_overlay(layers.lowers, "", "", safe)
            except OSError as error:
                raise SystemFailure(f"cannot mount image {mount.image}: {(error.strerror or str(error)).lower()}") from error

    def _planned(self, mounts: Sequence[Mount]) -> list[plan.Mount]:
        result = [planned(mount, self._store.local.path, f"mount{number}") for number, mount in enumerate(mounts)]
        return [msgspec.structs.replace(one, mapped=self._is_ours(mount)) for one, mount in zip(result, mounts, strict=True)]

    def _is_ours(self, mount: Mount) -> bool:
        """Whether its IDs are the containers' on the disk: what users bind, also by a volume's options, has the host's."""
        if isinstance(mount, VolumeMount):
            return self._store.is_own(mount.name)
        return isinstance(mount, BindMount) and mount.source.startswith(f"{self._data_root}/build/")

    async def close(self, container: Container) -> None:
        """The end of a run, or of a start that failed. Never raises."""
        told = container.id in self._told
        self._told.discard(container.id)
        for mount in container.mounts:
            if isinstance(mount, VolumeMount):
                await self._store.unmount(mount.name, container.id)
                if told:
                    self._events.publish("volume", "unmount", mount.name, {"container": container.id, "driver": "local"})

    async def lend(self, container: Container, first_fd: int, stack: ExitStack) -> tuple[list[dict[str, Any]], list[int]]:
        """What a worker is to mount to see a stopped container's tree (worker/view.py), and the descriptors that go with it.

        They are the stack's, as is a volume's file system. Missing sources of `-v` are made, as by a start. Raises EngineError.
        """
        with suppress(OSError):
            mounting.make_sources(container.mounts, self._users.root_of(container.host_config))
        binds: list[dict[str, Any]] = []
        fds: list[int] = []
        user = f"{container.id} {os.urandom(8).hex()}"
        maps = self._users.maps_of(container.host_config)
        for number, mount in enumerate(container.mounts):
            if isinstance(mount, TmpfsMount):
                continue
            if isinstance(mount, VolumeMount):
                stack.callback(self._give_back, mount.name, user)
                await self._store.mount(mount.name, user)
            one = planned(mount, self._store.local.path, f"mount{number}")
            bind = bind_of(one)
            if maps is not None and not isinstance(mount, ImageMount) and not one.idmap and not self._is_ours(mount):
                bind["maps"] = maps.built()
            if isinstance(mount, ImageMount):
                fds.append(await self._open_image(mount))
                stack.callback(os.close, fds[-1])
                bind["fd"] = first_fd + len(fds) - 1
            binds.append(bind)
        return binds, fds

    def _give_back(self, name: str, user: str) -> None:
        self._background.spawn(self._store.unmount(name, user))

    # removal

    def anonymous(self, container: Container) -> list[str]:
        """The volumes that go with it under `rm -v`."""
        return [mount.name for mount in container.mounts if isinstance(mount, VolumeMount) and mount.anonymous]

    def discarded(self, container: Container, volumes: Sequence[str]) -> None:
        """Its row is gone; volumes: those that go with it, unless others use them."""
        self._unpin(container.id)
        gone = self._store.discarded(container.id, volumes)
        for row in gone:
            self._events.publish("volume", "destroy", row.name, {"driver": row.driver})
        if gone:
            self._background.spawn(self._store.local.empty_trash())


def _volumes(mounts: Sequence[Mount]) -> list[str]:
    """The names of volumes among mounts, each once."""
    return list(dict.fromkeys(mount.name for mount in mounts if isinstance(mount, VolumeMount)))


def planned(mount: Mount, volume_path: Callable[[str], str], descriptor: str) -> plan.Mount:
    """A mount as the launch plan wants it. descriptor: the name of an image's. Pure."""
    idmap = not isinstance(mount, TmpfsMount | ImageMount) and "idmap" in mounting.mode_words(mount.mode)
    match mount:
        case TmpfsMount():
            return plan.Mount(destination=mount.destination, type="tmpfs", options=mount.options)
        case BindMount():
            return plan.Mount(
                destination=mount.destination,
                source=mount.source,
                readonly=mount.readonly,
                propagation=mount.propagation,
                recursive=mount.recursive,
                readonly_recursive=mount.readonly_recursive,
                idmap=idmap,
            )
        case VolumeMount():
            return plan.Mount(
                destination=mount.destination,
                source=volume_path(mount.name),
                readonly=mount.readonly,
                subpath=mount.subpath,
                idmap=idmap,
            )
        case ImageMount():
            return plan.Mount(
                destination=mount.destination, source=mount.image, readonly=True, subpath=mount.subpath, descriptor=descriptor
            )


def bind_of(mount: plan.Mount) -> dict[str, Any]:
    """As a worker's view has it."""
    return {
        "source": mount.source,
        "subpath": mount.subpath,
        "destination": mount.destination,
        "recursive": mount.recursive,
        "readonly": mount.readonly,
        "readonly_recursive": mount.readonly_recursive,
    }


def _check_propagation(mounts: Iterable[BindMount]) -> None:
    """What is to propagate has to lie on a mount that does (moby daemon/oci_linux.go ensureShared). Raises StartFailure."""
    for mount in mounts:
        if mount.propagation in _SHARED_NEEDED:
            point, tags = kernel.propagation_of(os.path.realpath(mount.source))
            if not any(tag.startswith(_SHARED_NEEDED[mount.propagation]) for tag in tags):
                kind = "shared" if mount.propagation.endswith("shared") else "shared or slave"
                raise StartFailure(f"path {mount.source} is mounted on {point} but it is not a {kind} mount", 128)
