"""Containers' file trees as workers see them: the running container's own mounts, or those a stopped one would get, and who is at it now.

A stopped container's tree is mounted by the worker, and overlayfs must not have one upper directory mounted twice: a start waits for the
workers at it, and ends those that take too long.
"""

import asyncio
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Protocol

from sampan.engine.containermounts import ContainerMounts, bind_of
from sampan.engine.containerstore import Container
from sampan.errors import Conflict, SystemFailure
from sampan.runtime import plan
from sampan.snapshot.api import Snapshots
from sampan.snapshot.formats import INIT
from sampan.worker.client import Gone, WorkerPool
from sampan.worker.needs import NEEDS, Needs

PATIENCE_SECONDS = 10.0
"""How long a start or a removal waits for workers at the tree before it ends them."""


class Progress(Protocol):
    """Told what a job says of itself."""

    def __call__(self, progress: dict[str, Any], /) -> None:
        """One message."""


def _ignore(_: dict[str, Any]) -> None:
    pass


class Trees:
    """Runs workers' jobs on containers' trees."""

    def __init__(
        self, snapshots: Snapshots, workers: WorkerPool, mounts: ContainerMounts, own_mounts: Callable[[Container], list[plan.Mount]]
    ) -> None:
        """own_mounts: what the engine itself mounts into a container (hosts, resolv.conf, ...)."""
        self._snapshots = snapshots
        self._workers = workers
        self._mounts = mounts
        self._own_mounts = own_mounts
        self._jobs: dict[str, set[asyncio.Task[dict[str, Any]]]] = {}

    async def run(
        self,
        container: Container,
        job: str,
        args: dict[str, Any],
        fds: Sequence[int],
        progress: Progress = _ignore,
        *,
        locked: bool = False,
    ) -> dict[str, Any]:
        """Do a job of worker/tree_jobs.py. locked: the caller holds the container's lock.

        Raises Conflict when the container is being removed, else what the job raises.
        """
        while True:
            if container.removing:
                raise Conflict(f"container {container.id} is being removed")
            task = None
            if container.is_running or locked:
                task = await self._begin(container, job, args, fds, progress)
            else:
                async with container.lock:
                    if container.exited.is_set():  # else it has been started, or the rest of its end is still to come
                        task = await self._begin(container, job, args, fds, progress)
            try:
                if task is not None:
                    return await self._outcome(container, task)
            except Gone:
                pass
            if not container.is_running:
                await container.exited.wait()

    async def _begin(
        self, container: Container, job: str, args: dict[str, Any], fds: Sequence[int], progress: Progress
    ) -> asyncio.Task[dict[str, Any]]:
        """Start a job; from now on a start or removal knows of it."""
        with ExitStack() as stack:
            view, more = await self._view(container, job, len(fds), stack)
            held = stack.pop_all()

        async def work() -> dict[str, Any]:
            return await self._workers.stream(job, {**args, "view": view}, [*fds, *more], progress)

        def ended(done: asyncio.Task[dict[str, Any]]) -> None:
            held.close()  # not by work(): a task that is cancelled before its first step never enters it
            self._ended(container.id, done)

        task = asyncio.get_running_loop().create_task(work())
        jobs = self._jobs.setdefault(container.id, set())
        jobs.add(task)
        task.add_done_callback(ended)
        return task

    def _ended(self, container_id: str, task: asyncio.Task[dict[str, Any]]) -> None:
        jobs = self._jobs.get(container_id, set())
        jobs.discard(task)
        if not jobs:
            self._jobs.pop(container_id, None)

    @staticmethod
    async def _outcome(container: Container, task: asyncio.Task[dict[str, Any]]) -> dict[str, Any]:
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise SystemFailure(f"interrupted: container {container.id} is being started or removed") from None
            task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await task
            raise

    async def _view(self, container: Container, job: str, first_fd: int, stack: ExitStack) -> tuple[dict[str, Any], list[int]]:
        """The job's `view` argument and the descriptors that go with it, which the stack closes.

        A running container: {upper, own, pid, pidfd, userns (whether it has one)}. A stopped one, to be mounted: {upper, own, work, lowers,
        binds}. Of these, what the job needs. pidfd is the index of a descriptor; a lower is one, or a path; own: the names of what may be
        in upper only because something is mounted there.
        """
        view: dict[str, Any] = {"upper": self._snapshots.upper(container.id), "own": INIT}
        fds: list[int] = []
        live = container.live
        running = container.is_running and live is not None and live.pidfd >= 0
        needs = NEEDS[job]
        if running and needs.is_tree and live is not None:
            fds.append(os.dup(live.pidfd))
            stack.callback(os.close, fds[0])
            view |= {"pid": container.state.pid, "pidfd": first_fd, "userns": container.state.user_maps is not None}
        if needs in (Needs.LAYERS, Needs.UPPER) or (needs.is_tree and not running):
            try:
                layers = stack.enter_context(await self._snapshots.mounts(container.id))
            except SystemFailure:
                if needs is not Needs.UPPER:
                    raise
            else:
                view |= {"work": layers.work, "lowers": []}
                for lower in layers.lowers:
                    view["lowers"].append(lower if isinstance(lower, str) else first_fd + len(fds))
                    fds += [lower] if isinstance(lower, int) else []
        if needs is Needs.MOUNTS and not running:
            binds, more = await self._mounts.lend(container, first_fd + len(fds), stack)
            fds += more
            taken = {bind["destination"] for bind in binds}
            own = [mount for mount in self._own_mounts(container) if mount.destination not in taken and os.path.exists(mount.source)]
            # a mount within another comes after it
            view["binds"] = sorted([*binds, *map(bind_of, own)], key=lambda bind: bind["destination"].count("/"))
        return view, fds

    def nowhere(self, container: Container) -> int:
        """A directory in which a process without rights finds nothing. The caller closes it."""
        return os.open(self._snapshots.details(container.id)["WorkDir"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    async def quiesce(self, container: Container) -> None:
        """Return once no worker is at the tree; the caller sees to it that none begins (by the container's lock)."""
        jobs = list(self._jobs.get(container.id, ()))
        if not jobs:
            return
        _, late = await asyncio.wait(jobs, timeout=PATIENCE_SECONDS)
        for job in late:
            job.cancel()
        if late:
            await asyncio.wait(late)
