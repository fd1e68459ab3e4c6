"""Keeper or supervisor are new ones: they get what sampand holds and neither has from the other, and its clients follow again."""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

from sampan.engine.containerlogs import ContainerLogs
from sampan.engine.containerstore import Container, Containers, Live
from sampan.engine.exec import ExecService
from sampan.errors import EngineError, Unavailable
from sampan.runtime.client import KeeperClient, RequestRefused, SupervisorClient
from sampan.runtime.protocol import Message

log = logging.getLogger(__name__)

SETTLE_SECONDS = 30.0
POLL_SECONDS = 0.01


class Readopter:
    """One for all containers: what came back first waits for the other."""

    def __init__(
        self,
        containers: Containers,
        keeper: KeeperClient,
        supervisor: SupervisorClient,
        logs: ContainerLogs,
        execs: ExecService,
        is_over: Callable[[str], bool],
    ) -> None:
        """is_over: see Runner."""
        self._containers, self._execs = containers, execs
        self._keeper, self._supervisor = keeper, supervisor
        self._logs = logs
        self._is_over = is_over
        self._lock = asyncio.Lock()
        self.restored = False
        """Set once restore.py is through: before, nothing is held that could be handed over."""

    async def settled(self) -> tuple[dict[str, Message], dict[str, Message]]:
        """Streams of the keeper and processes of the supervisor by key, once both have told each other all. Raises EngineError."""
        try:
            async with asyncio.timeout(SETTLE_SECONDS):
                while True:
                    with contextlib.suppress(Unavailable):
                        hello, _ = await self._keeper.link.request({"op": "hello", "role": "sampand"})
                        if hello.get("settled"):
                            procs = await self._supervisor.procs()
                            return {item["key"]: item for item in hello["streams"]}, {item["key"]: item for item in procs}
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError:
            raise Unavailable("keeper and supervisor do not find each other") from None

    async def readopt(self) -> None:
        """Hand over what is missing. Safe to call at any time: what they know is left alone."""
        if not self.restored:
            return
        async with self._lock:
            try:
                streams, procs = await self.settled()
                await self._forget_ended(streams, procs)
                await self._execs.hand_over(procs)
                for container in self._containers:
                    if container.live is not None and container.live.pidfd >= 0:
                        await self.hand_over(container, known_stream=container.key in streams, known_proc=container.key in procs)
            except EngineError as error:
                # Gone again, then this is done again when they are back.
                log.warning("containers could not be handed to the new keeper: %s", error.message)

    async def _forget_ended(self, streams: Mapping[str, Message], procs: Mapping[str, Message]) -> None:
        """Runs that one of both had forgotten, as it was told, and got again from the other, who was not told yet. Raises EngineError."""
        for forget, known in ((self._supervisor.forget, procs), (self._keeper.forget, streams)):
            for key, item in known.items():
                if item.get("exit") and "." in key and self._is_over(key):  # an exec's key has no run's number
                    await forget(key)

    async def hand_over(self, container: Container, *, known_stream: bool, known_proc: bool) -> None:
        """One run: its descriptors, then its readers. What is refused is logged. Raises Unavailable."""
        try:
            await self._hand_over(container, known_stream=known_stream, known_proc=known_proc)
        except RequestRefused as error:
            log.warning("container %s could not be handed over: %s", container.id, error.message)

    async def _hand_over(self, container: Container, *, known_stream: bool, known_proc: bool) -> None:
        live, tty = container.live, container.config.tty
        if live is None:
            return
        settings = self._logs.settings(container)
        if not known_stream:
            await self._give_stream(container, live, settings)
        if not known_proc and container.live is live and container.state.pid:
            await self._supervisor.custody(_facts(container, live), {"log": settings, "tty": tty}, live.held())
        if container.config.open_stdin and not tty and live.stdin is None:
            # Closed by us while one of them was away: the other may have handed its copy on.
            await self._keeper.close_stdin(live.key)
            await self._supervisor.close_stdin(live.key)
        for follower in tuple(live.followers):
            await follower.again()

    async def _give_stream(self, container: Container, live: Live, settings: dict[str, Any]) -> None:
        state = container.state
        # A terminal comes to the keeper from the supervisor, but of one that is over the supervisor is not told.
        ours = {name: fd for name, fd in live.held().items() if name != "pidfd" and (name != "pty" or not state.pid)}
        over = None if state.pid else {"code": state.exit_code, "signal": None, "at": state.finished_at}
        try:
            await self._keeper.adopt(live.key, container.id, container.config.tty, settings, ours, exit=over)
        except RequestRefused as error:
            if error.errno != errno.EEXIST:  # of a start that was under way when the keeper was asked what it has
                raise

    async def hold(self, container: Container, more: Mapping[str, int]) -> None:
        """Descriptors that a running container got since its start, for all three to have; they stay the caller's. Never raises."""
        live = container.live
        if live is None or live.pidfd < 0:
            return
        live.outputs.update({name: os.dup(fd) for name, fd in more.items()})
        try:
            await self._supervisor.custody(_facts(container, live), {}, more)
        except EngineError as error:  # a new one is given everything
            log.warning("container %s: %s", container.id, error.message)


def _facts(container: Container, live: Live) -> Message:
    """PROC of the protocol, of a process that has not ended."""
    state = container.state
    return {
        "key": live.key, "container": container.id, "kind": "init", "tty": container.config.tty, "pid": state.pid,
        "start_time": state.start_time, "started_at": state.started_at, "exit": None,
    }  # fmt: skip
