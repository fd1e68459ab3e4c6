"""What keeper and supervisor say of containers' processes and output, brought to those of the engine whom it concerns."""

import asyncio
import contextlib
import os
from collections.abc import Callable

from sampan.engine.background import Background
from sampan.engine.containerstore import Container, Containers, Live
from sampan.engine.exec import ExecService
from sampan.engine.runner import Runner
from sampan.errors import EngineError
from sampan.runtime.client import KeeperClient, SupervisorClient
from sampan.runtime.protocol import Message

UNKNOWN_SECONDS = 0.5
"""How long an exit whose code could not be read waits for one who knows it."""


class ProcessEvents:
    """One for all containers and execs."""

    def __init__(
        self,
        containers: Containers,
        runner: Runner,
        execs: ExecService,
        background: Background,
        keeper: KeeperClient,
        supervisor: SupervisorClient,
        look: Callable[[Container], None],
    ) -> None:
        """look: whether the container's log, which may have been rotated, has files to compress."""
        self._containers = containers
        self._runner = runner
        self._execs = execs
        self._background = background
        self._keeper, self._supervisor = keeper, supervisor
        self._look = look

    def hello(self, hello: Message) -> None:
        """The list in a reply to hello: ends and drained logs that were told while nobody listened; any log may have been rotated."""
        for proc in hello.get("procs", ()):
            if proc.get("exit"):
                self._exit({"key": proc["key"], **proc["exit"]})
        for stream in hello.get("streams", ()):
            self._rotated(stream)
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
            elif kind == "rotated":
                self._rotated(message)
            elif kind in ("custody", "proc"):
                self._take(message, fds)
        finally:
            close_all(fds)

    def _drained(self, message: Message) -> None:
        position = message.get("pos")
        self._ended_meanwhile(message["key"])
        self._runner.drained_event(message["key"], (position[0], position[1]) if position else None)

    def _rotated(self, message: Message) -> None:
        if (container := self._containers.get(message["container"])) is not None:
            self._look(container)

    def _exit(self, message: Message) -> None:
        key, code, at = message["key"], message.get("code") or 0, message.get("at") or 0
        if message.get("unknown"):
            asyncio.get_running_loop().call_later(UNKNOWN_SECONDS, self.ended, key, code, at)
        else:
            self.ended(key, code, at)

    def ended(self, key: str, code: int, at: int) -> None:
        """A container's process or an exec ended with code, at nanoseconds since the epoch (0: now)."""
        self._ended_meanwhile(key)
        if not self._execs.exit_event(key, code) and not self._runner.exit_event(key, code, at):
            self._background.spawn(self.forget(key))

    def _ended_meanwhile(self, key: str) -> None:
        """The run of a former sampand's time has ended: a place to note that its output is in the log, which its end waits for."""
        container = self._containers.get(key.partition(".")[0])
        if container is not None and container.key == key and container.is_running and container.live is None:
            container.live = Live(key, -1)

    async def forget(self, key: str) -> None:
        """Have the lean processes drop what belongs to no run."""
        with contextlib.suppress(EngineError):
            await self._supervisor.forget(key)
        with contextlib.suppress(EngineError):
            await self._keeper.forget(key)

    def _take(self, message: Message, fds: dict[str, int]) -> None:
        """Handles of a container's process, unless we have them."""
        container = self._containers.get(message.get("container", ""))
        key = message["key"]
        if container is None or message.get("kind") != "init" or container.live is not None or "pidfd" not in fds:
            return
        if container.key != key or not container.is_running or message.get("exit"):
            return
        container.live = live_of(key, fds)


def live_of(key: str, fds: dict[str, int]) -> Live:
    """Take the descriptors of a process out of the table."""
    live = Live(key, fds.pop("pidfd"), stdin=fds.pop("stdin", None), pty=fds.pop("pty", None), outputs=dict(fds))
    fds.clear()
    for fd in (live.stdin, live.pty):
        if fd is not None:
            os.set_blocking(fd, False)
    return live


def close_all(fds: dict[str, int]) -> None:
    """Close descriptors nobody took."""
    for fd in fds.values():
        with contextlib.suppress(OSError):
            os.close(fd)
