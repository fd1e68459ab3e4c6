"""What workers do to volumes for a container: an image's files into empty ones at create, its user as owner (`:U`) at start."""

import asyncio
import os
import stat
from contextlib import AsyncExitStack, ExitStack

from sampan.engine import mounting
from sampan.engine.containerstore import Container
from sampan.engine.mounting import BindMount, VolumeMount
from sampan.engine.trees import Trees
from sampan.engine.usernamespaces import UserNamespaces
from sampan.errors import InvalidArgument, SystemFailure
from sampan.runtime.plan import UserMaps
from sampan.volume import options as rules
from sampan.volume.store import VolumeStore


class VolumeFiller:
    """See the module."""

    def __init__(self, trees: Trees, store: VolumeStore, users: UserNamespaces) -> None:
        self._trees = trees
        self._store = store
        self._users = users

    async def fill(self, container: Container) -> None:
        """Copy what the container's image has at the places of empty volumes, owner, mode and xattrs included.

        The container is new: nobody else knows it. Raises InvalidArgument when a file is at the place of an image's VOLUME, SystemFailure.
        """
        wanted = {mount.name: mount for mount in container.mounts if isinstance(mount, VolumeMount) and self._may_fill(mount)}
        async with AsyncExitStack() as stack:
            empty: list[tuple[VolumeMount, bool]] = []
            for name, mount in sorted(wanted.items()):  # in one order, as others may wait for the same locks
                in_place = not self._store.is_own(name)
                if in_place:
                    stack.push_async_callback(self._store.unmount, name, container.id)
                    await self._store.mount(name, container.id)
                await stack.enter_async_context(self._store.lock(name))
                # one of its own may be on another machine
                local = self._store.local
                if await asyncio.to_thread(local.is_empty, name) if in_place else local.is_empty(name):
                    empty.append((mount, in_place))
            if empty:
                try:
                    await self._copy(container, empty)
                except OSError as error:
                    raise SystemFailure(f"failed to populate volume: {error.filename or ''}: {(error.strerror or '').lower()}") from error

    def _may_fill(self, mount: VolumeMount) -> bool:
        return mount.copy and not mount.subpath and not rules.is_tmpfs(self._store.find(mount.name).options)

    async def _copy(self, container: Container, empty: list[tuple[VolumeMount, bool]]) -> None:
        """One worker for all volumes. What it copies is in place at once, but where a volume is a file system of its own."""
        local = self._store.local
        with ExitStack() as stack:
            fds: list[int] = []
            for mount, in_place in empty:
                if in_place:
                    fds.append(await asyncio.to_thread(local.open, mount.name))
                    stack.callback(os.close, fds[-1])
                else:
                    fds.append(stack.enter_context(local.staging(mount.name)))
            maps = self._users.maps_of(container.host_config)
            places = [
                {
                    "path": mount.destination,
                    "only_directory": mount.only_directory,
                    "maps": maps.built() if maps is not None and in_place else None,
                }
                for mount, in_place in empty
            ]
            await self._trees.run(container, "volume_fill", {"places": places}, fds, locked=True)
        for mount, in_place in empty:
            if not in_place:
                await asyncio.to_thread(local.finish_copy, mount.name)

    async def give_to_user(self, container: Container, maps: UserMaps | None) -> None:
        """Sources mounted with `:U` are to belong to the container's user. Before they are mounted; the caller holds its lock.

        maps: of its user namespace. What is not the engine's own has the host's IDs.
        """
        for mount in container.mounts:
            if isinstance(mount, BindMount | VolumeMount) and "U" in mounting.mode_words(mount.mode):
                source = self._store.local.path(mount.name) if isinstance(mount, VolumeMount) else mount.source
                try:
                    fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
                except OSError as error:
                    raise SystemFailure(f"chown {source}: {(error.strerror or '').lower()}") from error
                try:
                    if stat.S_IFMT(os.fstat(fd).st_mode) not in (stat.S_IFDIR, stat.S_IFREG):
                        raise InvalidArgument(f"chown {source}: neither a directory nor a file")
                    is_own = isinstance(mount, VolumeMount) and self._store.is_own(mount.name)
                    args = {"user": container.config.user, "maps": None if maps is None or is_own else maps.built()}
                    await self._trees.run(container, "tree_chown", args, [fd], locked=True)
                finally:
                    os.close(fd)
