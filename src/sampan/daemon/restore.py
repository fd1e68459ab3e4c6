"""What sampand finds when it comes back: containers that went on, containers that ended meanwhile, and what a kill -9 left half done."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Mapping

import msgspec

from sampan.daemon.processevents import ProcessEvents, live_of
from sampan.daemon.readopt import Readopter
from sampan.engine import restarting
from sampan.engine.background import Background
from sampan.engine.containerstore import Container, Containers
from sampan.engine.control import Control
from sampan.engine.logshipping import LogShipping
from sampan.engine.probing import HealthMonitor
from sampan.engine.runner import Runner
from sampan.errors import EngineError
from sampan.linux import pidfd
from sampan.runtime import cgroups, recovery
from sampan.runtime.protocol import Message

log = logging.getLogger(__name__)

HANDLES_SECONDS = 5.0
UNKNOWN_CODE = 255
"""What docker shows of a container whose end nobody saw (moby daemon.restore)."""


class Restorer:
    """Puts the engine right at start."""

    def __init__(
        self,
        containers: Containers,
        runner: Runner,
        control: Control,
        background: Background,
        events: ProcessEvents,
        readopter: Readopter,
        health: HealthMonitor,
        shipping: LogShipping,
    ) -> None:
        self._containers = containers
        self._runner = runner
        self._control = control
        self._background = background
        self._events = events
        self._readopter = readopter
        self._health = health
        self._shipping = shipping

    async def restore(self, renew: Callable[[], Awaitable[None]], stop_all: Callable[[], Awaitable[None]] | None) -> None:
        """Settle every container that the database calls running; then remove what nobody owns.

        renew: has keeper and supervisor be of this version.
        stop_all: without live-restore, what is still alive is stopped, as dockerd does.

        Raises EngineError: they cannot be.
        """
        streams, procs = await self._readopter.settled()
        running = {container.key: container for container in self._containers if container.is_running}
        self._events.hello({"procs": list(procs.values()), "streams": list(streams.values())})
        for key, container in running.items():
            if container.is_running and not await self._settle(container, procs.get(key), key in streams):
                # Nobody knows how it ended: the host was restarted, or everything was killed at once.
                self._events.ended(key, UNKNOWN_CODE, 0)
            if not container.is_running and container.live is not None and key not in streams:
                container.live.drained.set()
        await self._end_strangers({key for key in (*procs, *streams) if key not in running}, procs)
        await self._remove_strays()
        self._readopter.restored = True
        await renew()  # now that we hold everything too, and before anything is asked of them that another version does not know
        if stop_all is not None:
            await stop_all()
            self._containers.ending = False  # from now on it is users and policies again who decide
        for container in self._containers:
            await self._shipping.begin(container)
            if container.is_running:
                self._health.begin(container, again=True)
            else:
                self._go_on(container)

    async def _settle(self, container: Container, proc: Message | None, known_stream: bool) -> bool:
        """Have the handles of a container that may be alive; False if it is not."""
        state = container.state
        handle = recovery.open_process(state.pid, state.start_time) if state.boot_id == self._runner.supervisor.link.boot_id else None
        if handle is None:
            # Its end is on its way, if the supervisor knows the process.
            return proc is not None and await self._wait_for(lambda: not container.is_running)
        if proc is not None and await self._wait_for(lambda: container.live is not None):
            os.close(handle)
        elif container.live is None:
            # All three were killed at once, or its handles do not come.
            container.live = live_of(container.key, {"pidfd": handle, **recovery.reopen_pipes(state.pid, recovery.Inodes(*state.pipes))})
            await self._readopter.hand_over(container, known_stream=known_stream, known_proc=proc is not None)
        if not state.paused:
            await self._thaw(container)
        container.exited.clear()
        if state.paused and not cgroups.is_frozen(self._runner.layout, self._runner.paths.cgroup_of(container)):
            # Killed between thawing it and storing that.
            self._containers.note_state(container, msgspec.structs.replace(state, status="running", paused=False))
        return True

    @staticmethod
    async def _wait_for(condition: Callable[[], bool]) -> bool:
        """Wait for an event of the supervisor; False after HANDLES_SECONDS."""
        deadline = time.monotonic() + HANDLES_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(0.005)
        return True

    def _go_on(self, container: Container) -> None:
        """What becomes of a container that is not running when sampand starts (moby daemon.restore)."""
        state = container.state
        if state.status == "removing":
            self._background.spawn(self._discard(container))
            return
        starts = restarting.starts_with_daemon(container.host_config.restart_policy, state)
        if state.status == "restarting":
            self._containers.note_state(container, msgspec.structs.replace(state, status="exited"))
        if starts:
            self._background.spawn(self._start_again(container))
        elif container.host_config.auto_remove:
            self._background.spawn(self._discard(container))

    async def _thaw(self, container: Container) -> None:
        """A commit that was killed has left the processes frozen."""
        if await asyncio.to_thread(cgroups.is_frozen, self._runner.layout, self._runner.paths.cgroup_of(container)):
            with contextlib.suppress(EngineError):
                await self._control.hold(container, frozen=False)

    async def _discard(self, container: Container) -> None:
        await container.settled.wait()
        async with container.lock:
            if self._containers.get(container.id) is container and not container.removing:
                container.removing = True
                await self._runner.discard(container, volumes=container.host_config.auto_remove and container.state.status != "removing")

    async def _start_again(self, container: Container) -> None:
        await container.settled.wait()
        async with container.lock:
            if not container.is_active and not container.removing:
                try:
                    await self._runner.start(container)
                except EngineError as error:
                    log.warning("container %s could not be started again: %s", container.id, error.message)

    async def _end_strangers(self, keys: Collection[str], procs: Mapping[str, Message]) -> None:
        """Runs that no row calls running: sampand was killed before it had stored their start, or forgotten their end.

        And the former sampand's probes, which nobody waits for any more.
        """
        for key in keys:
            proc = procs.get(key)
            if proc is not None and proc["kind"] == "exec" and not proc.get("exit"):
                continue
            if proc is not None and not proc.get("exit"):
                if proc["kind"] == "init":
                    log.warning("ending %s: its start was never stored", key)
                handle = recovery.open_process(proc["pid"], proc["start_time"])
                if handle is not None:
                    with contextlib.suppress(ProcessLookupError):
                        pidfd.send_signal(handle, signal.SIGKILL)
                    os.close(handle)
                with contextlib.suppress(EngineError):
                    await self._runner.forget_process(key)
            await self._events.forget(key)

    async def _remove_strays(self) -> None:
        """Directories and cgroups of containers that do not exist (any more), processes that are still in there included."""
        paths = self._runner.paths
        root = paths.data_root / "containers"
        for name in os.listdir(root) if root.is_dir() else ():
            if self._containers.get(name) is None:
                await asyncio.to_thread(shutil.rmtree, root / name, ignore_errors=True)
        names: set[str] = set()
        for directory in cgroups.directories(self._runner.layout, paths.cgroup_parent):
            with contextlib.suppress(OSError):
                names.update(entry.name for entry in os.scandir(directory) if entry.is_dir() and len(entry.name) == 64)
        for name in names:
            found = self._containers.get(name)
            if found is None or not found.has_run:
                await self._runner.end_cgroup(paths.cgroup(name))
        for name in self._runner.runtimes.left():
            found = self._containers.get(name)
            if found is None or not found.has_run:
                await self._runner.runtimes.delete(name, found.state.runtime if found else ())
        for container in self._containers:  # those elsewhere, which are known by their containers only
            if container.host_config.cgroup_parent and not container.has_run:
                await self._runner.end_cgroup(paths.cgroup_of(container))
