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

from sampan.daemon.readopt import Readopter, close_all
from sampan.engine.containerstore import Container, Containers, Live
from sampan.engine.exec import ExecService
from sampan.engine.runner import Runner
from sampan.errors import EngineError
from sampan.linux import pidfd
from sampan.runtime import cgroups, recovery
from sampan.runtime.protocol import Message

log = logging.getLogger(__name__)

HANDLES_SECONDS = 5.0
UNKNOWN_CODE = 255
"""What docker shows of a container whose end nobody saw (moby daemon.restore)."""
UNKNOWN_SECONDS = 0.5
"""How long an exit whose code could not be read waits for one who knows it."""


class Restorer:
    """Takes the events of keeper and supervisor for the engine, and puts the engine right at start."""

    def __init__(self, containers: Containers, runner: Runner, execs: ExecService, readopter: Readopter) -> None:
        self._containers = containers
        self._runner = runner
        self._execs = execs
        self._readopter = readopter

    # what the lean processes say

    def hello(self, hello: Message) -> None:
        """The list in a reply to hello: ends and drained logs that were told while nobody listened."""
        for proc in hello.get("procs", ()):
            if proc.get("exit"):
                self._exit({"key": proc["key"], **proc["exit"]})
        for stream in hello.get("streams", ()):
            if stream.get("exit"):
                self._exit({"key": stream["key"], **stream["exit"]})
            if stream.get("drained"):
                self._drained(stream)

    def event(self, message: Message, fds: dict[str, int]) -> None:
        """One event. Takes what it needs of fds and closes the rest."""
        try:
            kind = message.get("event")
            if kind == "exit":
                self._exit(message)
            elif kind == "drained":
                self._drained(message)
            elif kind in ("custody", "proc"):
                self._take(message, fds)
        finally:
            close_all(fds)

    def _drained(self, message: Message) -> None:
        position = message.get("pos")
        self._ended_meanwhile(message["key"])
        self._runner.drained_event(message["key"], (position[0], position[1]) if position else None)

    def _exit(self, message: Message) -> None:
        key, code, at = message["key"], message.get("code") or 0, message.get("at") or 0
        if message.get("unknown"):
            asyncio.get_running_loop().call_later(UNKNOWN_SECONDS, self._ended, key, code, at)
        else:
            self._ended(key, code, at)

    def _ended(self, key: str, code: int, at: int) -> None:
        self._ended_meanwhile(key)
        if not self._execs.exit_event(key, code) and not self._runner.exit_event(key, code, at):
            self._runner.spawn(self._forget(key))

    def _ended_meanwhile(self, key: str) -> None:
        """The run of a former sampand's time has ended: a place to note that its output is in the log, which its end waits for."""
        container = self._containers.get(key.partition(".")[0])
        if container is not None and container.key == key and container.is_running and container.live is None:
            container.live = Live(key, -1)

    async def _forget(self, key: str) -> None:
        """Have the lean processes drop what belongs to no run."""
        with contextlib.suppress(EngineError):
            await self._runner.supervisor.forget(key)
        with contextlib.suppress(EngineError):
            await self._runner.keeper.forget(key)

    def _take(self, message: Message, fds: dict[str, int]) -> None:
        """Handles of a container's process, unless we have them."""
        container = self._containers.get(message.get("container", ""))
        key = message["key"]
        if container is None or message.get("kind") != "init" or container.live is not None or "pidfd" not in fds:
            return
        if container.key != key or not container.is_running or message.get("exit"):
            return
        container.live = _live_of(key, fds)

    # at start

    async def restore(self, stop_all: Callable[[], Awaitable[None]] | None) -> None:
        """Settle every container that the database calls running; then remove what nobody owns.

        stop_all: without live-restore, what is still alive is stopped, as dockerd does.
        """
        streams, procs = await self._readopter.settled()
        running = {container.key: container for container in self._containers if container.is_running}
        self.hello({"procs": list(procs.values()), "streams": list(streams.values())})
        for key, container in running.items():
            if container.is_running and not await self._settle(container, procs.get(key), key in streams):
                # Nobody knows how it ended: the host was restarted, or everything was killed at once.
                self._ended(key, UNKNOWN_CODE, 0)
            if not container.is_running and container.live is not None and key not in streams:
                container.live.drained.set()
        await self._end_strangers({key for key in (*procs, *streams) if key not in running}, procs)
        await self._remove_strays()
        self._readopter.restored = True
        if stop_all is not None:
            await stop_all()
        for container in self._containers:
            if not container.is_running:
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
            container.live = _live_of(container.key, {"pidfd": handle, **recovery.reopen_pipes(state.pid, recovery.Inodes(*state.pipes))})
            await self._readopter.hand_over(container, known_stream=known_stream, known_proc=proc is not None)
        if not state.paused:
            await self._thaw(container)
        container.exited.clear()
        if state.paused and not cgroups.is_frozen(self._runner.layout, self._runner.paths.cgroup(container.id)):
            # Killed between thawing it and storing that.
            self._containers.set_state(container, msgspec.structs.replace(state, status="running", paused=False))
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
        state, policy = container.state, container.host_config.restart_policy
        if state.status == "removing":
            self._runner.spawn(self._discard(container))
            return
        restart = policy.name == "always" or (policy.name == "unless-stopped" and not state.manually_stopped)
        if policy.name == "on-failure" and state.exit_code:
            limit = policy.maximum_retry_count
            restart = not limit or state.restart_count < limit
        if state.status == "restarting":
            self._containers.set_state(container, msgspec.structs.replace(state, status="exited"))
        if restart and state.started_at:
            self._runner.spawn(self._start_again(container))
        elif container.host_config.auto_remove:
            self._runner.spawn(self._discard(container))

    async def _thaw(self, container: Container) -> None:
        """A commit that was killed has left the processes frozen."""
        if await asyncio.to_thread(cgroups.is_frozen, self._runner.layout, self._runner.paths.cgroup(container.id)):
            with contextlib.suppress(EngineError):
                await self._runner.hold(container, frozen=False)

    async def _discard(self, container: Container) -> None:
        if container.live is not None:
            await container.exited.wait()
        async with container.lock:
            if self._containers.get(container.id) is container and not container.removing:
                container.removing = True
                await self._runner.discard(container)

    async def _start_again(self, container: Container) -> None:
        if container.live is not None:
            await container.exited.wait()
        async with container.lock:
            if not container.is_running and container.state.status != "restarting":
                try:
                    await self._runner.start(container)
                except EngineError as error:
                    log.warning("container %s could not be started again: %s", container.id, error.message)

    async def _end_strangers(self, keys: Collection[str], procs: Mapping[str, Message]) -> None:
        """Runs that no row calls running: sampand was killed before it had stored their start, or forgotten their end."""
        for key in keys:
            proc = procs.get(key)
            if proc is not None and proc["kind"] == "exec" and not proc.get("exit"):
                continue
            if proc is not None and not proc.get("exit"):
                log.warning("ending %s: its start was never stored", key)
                handle = recovery.open_process(proc["pid"], proc["start_time"])
                if handle is not None:
                    with contextlib.suppress(ProcessLookupError):
                        pidfd.send_signal(handle, signal.SIGKILL)
                    os.close(handle)
                with contextlib.suppress(EngineError):
                    await self._runner.forget_process(key)
            await self._forget(key)

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
            if found is None or (not found.is_running and found.live is None):
                await self._runner.end_cgroup(name)


def _live_of(key: str, fds: dict[str, int]) -> Live:
    """Take the descriptors of a process out of the table."""
    outputs: dict[str, int] = {name: fds.pop(name) for name in ("stdout", "stderr") if name in fds}
    live = Live(key, fds.pop("pidfd"), stdin=fds.pop("stdin", None), pty=fds.pop("pty", None), outputs=outputs)
    for fd in (live.stdin, live.pty):
        if fd is not None:
            os.set_blocking(fd, False)
    return live
