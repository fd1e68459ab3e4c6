"""What is wrong with containers' directories, cgroups, mounts and states."""

import asyncio
import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from sampan.engine.containerstore import Container, Containers
from sampan.engine.imagemounts import mounted
from sampan.engine.runner import Runner
from sampan.findings import Finding
from sampan.linux import mounts
from sampan.linux.mountinfo import mount_points
from sampan.runtime import cgroups

_ID = re.compile(r"[0-9a-f]{64}")
_NO_MOUNTS_BELOW = ("containers", "content/partial", "overlay/c", "overlay/l", "overlay/r", "overlay/trash", "erofs/l", "erofs/f")
"""Of the data root: nothing of ours is ever mounted there, but in namespaces of containers."""


class _Found(NamedTuple):
    """What the disk and the kernel show."""

    directories: list[str]
    cgroups: dict[str, bool]
    """Name -> whether there are processes in it"""
    mounts: list[str]
    """Deepest first."""
    runtimes: list[str]
    """Of which containers OCI runtimes have something."""


class ContainerCheck:
    """Looks at what belongs to containers."""

    def __init__(self, containers: Containers, runner: Runner) -> None:
        self._containers = containers
        self._runner = runner
        self._data_root = os.path.realpath(runner.paths.data_root)

    async def look(self) -> list[Finding]:
        """What is of no container, and what containers lack. A container that somebody is at work with is left out."""
        elsewhere = {str(container.id): self._place(container.id) for container in self._containers if container.host_config.cgroup_parent}
        found = await asyncio.to_thread(self._search, elsewhere)
        return [
            *self._containers.look(),
            *self._look_at_directories(found),
            *self._look_at_cgroups(found),
            *self._look_at_runtimes(found),
            *map(_stray_mount, found.mounts),
        ]

    def _search(self, elsewhere: Mapping[str, str]) -> _Found:
        """Any thread. elsewhere: cgroups with a parent of the container's own, by its ID."""
        layout, paths = self._runner.layout, self._runner.paths
        directories: list[str] = []
        with contextlib.suppress(FileNotFoundError):
            directories = os.listdir(paths.data_root / "containers")
        names: set[str] = set()
        for directory in cgroups.directories(layout, paths.cgroup_parent):
            with contextlib.suppress(OSError):
                names.update(entry.name for entry in os.scandir(directory) if entry.is_dir() and _ID.fullmatch(entry.name))
        images = {point for point, _ in mounted(self._data_root)}
        below = tuple(f"{self._data_root}/{name}/" for name in _NO_MOUNTS_BELOW)
        points = [point.path for point in mount_points() if point.path.startswith(below) and point.path not in images]
        places = {**{name: paths.cgroup(name) for name in names}, **elsewhere}
        found = {name: bool(cgroups.processes(layout, place)) for name, place in places.items()}
        return _Found(directories, found, points[::-1], self._runner.runtimes.left())

    # directories

    def _look_at_directories(self, found: _Found) -> Iterator[Finding]:
        for name in found.directories:
            path = self._runner.paths.container(name)
            if self._containers.get(name) is None and os.path.lexists(path):
                yield Finding("file", path, "is of no container", "remove it", partial(self._remove_directory, name))
        for container in self._containers:
            if container.state.status == "removing" and not container.removing and not container.lock.locked():
                yield Finding("container", container.id, "is removed in part", "remove the rest", partial(self._remove_rest, container))
            elif not _is_busy(container) and not os.path.isdir(self._runner.paths.container(container.id)):
                problem = "has lost its directory, with what was in its log"
                yield Finding("container", container.id, problem, "make it again", partial(self._make_directory, container))

    async def _remove_directory(self, name: str) -> None:
        if self._containers.get(name) is None:
            await asyncio.to_thread(_remove, Path(self._runner.paths.container(name)))

    def _make_directory(self, container: Container) -> None:
        if self._containers.get(container.id) is container and not container.removing:
            os.makedirs(self._runner.paths.log(container.id), 0o710, exist_ok=True)

    async def _remove_rest(self, container: Container) -> None:
        async with container.lock:
            if self._containers.get(container.id) is container and container.state.status == "removing" and not container.removing:
                container.removing = True
                await self._runner.discard(container)

    # cgroups

    def _look_at_cgroups(self, found: _Found) -> Iterator[Finding]:
        for name in found.cgroups:
            if self._is_stray_cgroup(name):
                problem = "is of no container" if self._containers.get(name) is None else "is of a container that does not run"
                end = partial(self._end_cgroup, name)
                yield Finding("cgroup", self._place(name), problem, "end what is in it, and remove it", end)
        layout = self._runner.layout
        can_tell = layout.version == 2 or any(cgroups.v1_path(layout, name, "") is not None for name in ("pids", "memory"))
        for container in self._containers if can_tell else ():
            if container.is_running and not _is_busy(container) and not found.cgroups.get(container.id):
                yield Finding("container", container.id, "is said to run, and has no process", "stop or remove it")

    def _look_at_runtimes(self, found: _Found) -> Iterator[Finding]:
        for name in found.runtimes:
            path = self._runner.paths.runtime(name)
            if not self._is_used(name) and os.path.lexists(path):
                yield Finding("file", path, "is of no running container", "remove it", partial(self._forget, name))

    async def _forget(self, name: str) -> None:
        if not self._is_used(name):
            container = self._containers.get(name)
            await self._runner.runtimes.delete(name, container.state.runtime if container is not None else ())

    def _is_used(self, name: str) -> bool:
        """Whether it runs, or is on its way to or from there."""
        container = self._containers.get(name)
        return container is not None and (container.has_run or _is_busy(container))

    def _is_stray_cgroup(self, name: str) -> bool:
        if self._is_used(name):
            return False
        return any(map(os.path.isdir, cgroups.directories(self._runner.layout, self._place(name))))

    def _place(self, name: str) -> str:
        container = self._containers.get(name)
        return self._runner.paths.cgroup(name, container.host_config.cgroup_parent if container is not None else "")

    async def _end_cgroup(self, name: str) -> None:
        container = self._containers.get(name)
        async with container.lock if container is not None else contextlib.nullcontext():
            if container is None or not container.has_run:
                await self._runner.end_cgroup(self._place(name))


def _is_busy(container: Container) -> bool:
    """Whether it is being started, ended or removed."""
    return container.lock.locked() or container.removing or not container.settled.is_set()


def _stray_mount(point: str) -> Finding:
    return Finding("mount", point, "is nobody's", "unmount it", partial(_unmount, point))


async def _unmount(point: str) -> None:
    with contextlib.suppress(OSError):  # it stays, and is found again
        await asyncio.to_thread(mounts.umount2, point, mounts.MNT_DETACH | mounts.UMOUNT_NOFOLLOW)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
