"""What sampand finds when it comes back: containers that went on, containers that ended meanwhile, and what a kill -9 left half done."""

import asyncio
import contextlib
import logging
import os
import shutil

import msgspec

from sampan.engine.exec import ExecService
from sampan.engine.registry import Container, Containers, Live
from sampan.engine.runner import Runner
from sampan.errors import EngineError
from sampan.linux import pidfd
from sampan.runtime import cgroups
from sampan.runtime.protocol import Message

log = logging.getLogger(__name__)

UNKNOWN_SECONDS = 0.5
"""How long an exit whose code could not be read waits for one who knows it."""


class Restorer:
    """Takes the events of keeper and supervisor for the engine, and puts the engine right at start."""

    def __init__(self, containers: Containers, runner: Runner, execs: ExecService) -> None:
        self._containers = containers
        self._runner = runner
        self._execs = execs
        self._known: set[str] = set()

    # what the lean processes say

    def hello(self, hello: Message) -> None:
        """The list in a reply to hello: ends and drained logs that were told while nobody listened."""
        for proc in hello.get("procs", ()):
            self._known.add(proc["key"])
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
                self._known.add(message["key"])
                self._take(message, fds)
        finally:
            for fd in fds.values():
                os.close(fd)

    def _drained(self, message: Message) -> None:
        position = message.get("pos")
        self._runner.drained_event(message["key"], (position[0], position[1]) if position else None)

    def _exit(self, message: Message) -> None:
        key, code, at = message["key"], message.get("code") or 0, message.get("at") or 0
        if message.get("unknown"):
            asyncio.get_running_loop().call_later(UNKNOWN_SECONDS, self._ended, key, code, at)
        else:
            self._ended(key, code, at)

    def _ended(self, key: str, code: int, at: int) -> None:
        if not self._execs.exit_event(key, code):
            self._runner.exit_event(key, code, at)

    def _take(self, message: Message, fds: dict[str, int]) -> None:
        """Handles of a container's process, unless we have them."""
        container = self._containers.get(message.get("container", ""))
        key = message["key"]
        if container is None or message.get("kind") != "init" or container.live is not None or "pidfd" not in fds:
            return
        if container.key != key or not container.is_running or message.get("exit"):
            return
        live = Live(key, fds.pop("pidfd"), stdin=fds.pop("stdin", None), pty=fds.pop("pty", None))
        for fd in (live.stdin, live.pty):
            if fd is not None:
                os.set_blocking(fd, False)
        container.live = live

    # at start

    async def restore(self) -> None:
        """Settle every container that the database calls running; then remove what nobody owns."""
        procs = {proc["key"]: proc for proc in await self._runner.supervisor.procs()}
        for container in self._containers:
            state = container.state
            if container.is_running:
                proc = procs.get(container.key)
                alive = proc is not None and not proc.get("exit") and pidfd.start_time(state.pid) == state.start_time
                if alive:
                    await self._wait_for_handles(container)
                elif proc is not None and proc.get("exit"):
                    self._exit({"key": container.key, **proc["exit"]})
                elif container.is_running:
                    # Nobody knows how it ended: the host was restarted, or everything was killed at once.
                    self._runner.exit_event(container.key, 255 if state.boot_id == self._runner.supervisor.link.boot_id else 0, 0)
            elif state.status in ("restarting", "removing"):
                self._containers.set_state(container, msgspec.structs.replace(state, status="exited"))
        await self._end_strangers(procs)
        self._remove_strays()
        for container in self._containers:
            policy = container.host_config.restart_policy.name
            if not container.is_running and policy == "always" and not container.state.manually_stopped and container.state.started_at:
                self._runner.spawn(self._start_again(container))
            elif not container.is_running and container.host_config.auto_remove and container.state.started_at and container.live is None:
                self._runner.spawn(self._discard(container))

    async def _discard(self, container: Container) -> None:
        await asyncio.sleep(0)
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

    async def _wait_for_handles(self, container: Container) -> None:
        """The supervisor sends them after its hello; a process whose handles do not come is opened by its number."""
        for _ in range(200):
            if container.live is not None:
                break
            await asyncio.sleep(0.005)
        if container.live is None:
            container.live = Live(container.key, os.pidfd_open(container.state.pid))
        container.exited.clear()

    async def _end_strangers(self, procs: dict[str, Message]) -> None:
        """Processes of a start that was not stored: sampand was killed between launch and its transaction."""
        for key, proc in procs.items():
            container = self._containers.get(proc["container"])
            if proc["kind"] != "init" or (container is not None and container.key == key):
                continue
            if not proc.get("exit") and pidfd.start_time(proc["pid"]) == proc["start_time"]:
                log.warning("ending %s: its start was never stored", key)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(proc["pid"], 9)
                await asyncio.sleep(0.05)
            with contextlib.suppress(EngineError):
                await self._runner.supervisor.forget(key)
            with contextlib.suppress(EngineError):
                await self._runner.keeper.forget(key)

    def _remove_strays(self) -> None:
        """Directories and cgroups of containers that do not exist (any more)."""
        paths = self._runner.paths
        root = paths.data_root / "containers"
        for name in os.listdir(root) if root.is_dir() else ():
            if self._containers.get(name) is None:
                shutil.rmtree(root / name, ignore_errors=True)
        layout = self._runner.layout
        names: set[str] = set()
        for directory in cgroups.directories(layout, paths.cgroup_parent):
            with contextlib.suppress(OSError):
                names.update(entry.name for entry in os.scandir(directory) if entry.is_dir() and len(entry.name) == 64)
        for name in names:
            found = self._containers.get(name)
            if (found is None or not found.is_running) and not cgroups.processes(layout, paths.cgroup(name)):
                cgroups.remove(layout, paths.cgroup(name), 0.05)
