"""Keeper and supervisor as sampand has them: connected, started again when they are gone, and of sampand's own version."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from subprocess import Popen

from sampan.daemon.config import DaemonConfig, engine_cgroup
from sampan.daemon.processevents import ProcessEvents, close_all
from sampan.errors import Unavailable
from sampan.linux import pidfd
from sampan.readiness import readable
from sampan.runtime import spawning
from sampan.runtime.client import KeeperClient, Link, RequestRefused, SupervisorClient
from sampan.runtime.protocol import Message

log = logging.getLogger(__name__)

RENEW_SECONDS = 30.0
BUSY_SECONDS = 5.0
"""For processes that are being started; one in a frozen container may never be."""
POLL_SECONDS = 0.01


class LeanProcesses:
    """The links to both. What they say while nobody is there to hear it yet is told again at the end of the start."""

    def __init__(self, config: DaemonConfig, keeper_process: Popen[bytes] | None) -> None:
        self._config = config
        self._processes = [] if keeper_process is None else [keeper_process]
        self._events: ProcessEvents | None = None
        self._readopt: Callable[[], None] = lambda: None
        self._keeper_link = Link(f"{config.exec_root}/keeper.sock", self._event, self._hello, revive=self._revive)
        self._supervisor_link = Link(f"{config.exec_root}/supervisor.sock", self._event, self._hello)
        self.keeper, self.supervisor = KeeperClient(self._keeper_link), SupervisorClient(self._supervisor_link)

    async def _revive(self) -> None:
        # One at a time; one that met the lock of a keeper just being killed has ended again. The keeper finds or starts the supervisor.
        if all(process.poll() is not None for process in self._processes):
            self._processes = [spawning.spawn_keeper(self._config.exec_root, engine_cgroup(self._config))]

    def _event(self, message: Message, fds: dict[str, int]) -> None:
        if self._events is None:
            close_all(fds)
        else:
            self._events.event(message, fds)

    async def _hello(self, hello: Message) -> None:
        if self._events is not None:
            self._events.hello(hello)
            self._readopt()

    async def open(self, events: ProcessEvents, readopt: Callable[[], None], stack: AsyncExitStack) -> None:
        """Connect; events hears them from now on. readopt is called for each new process, and must not wait: the link is coming up.

        Raises Unavailable.
        """
        self._events, self._readopt = events, readopt
        for link in (self._keeper_link, self._supervisor_link):
            await link.open()
            stack.push_async_callback(link.close)

    async def renew(self, settled: Callable[[], Awaitable[object]]) -> None:
        """Have both be of this version, whatever they hold: one after the other, as the other one and sampand hand it back.

        settled: waits until each has told the other all. The keeper is first: it is the one who starts supervisors.

        Raises Unavailable.
        """
        build = spawning.build_of_program()
        clients: tuple[tuple[str, KeeperClient | SupervisorClient], ...] = (("keeper", self.keeper), ("supervisor", self.supervisor))
        for role, client in clients:
            if client.link.build != build:
                log.info("%s, process %d, is of another version: it becomes this one's", role, client.link.pid)
                await settled()
                try:
                    async with asyncio.timeout(RENEW_SECONDS):
                        await self._renew(client, spawning.command(role, self._config.exec_root, engine_cgroup(self._config)), build)
                except TimeoutError:
                    raise Unavailable(f"the {role} of another version, process {client.link.pid}, does not become this one's") from None
                await settled()

    async def _renew(self, client: KeeperClient | SupervisorClient, command: list[str], build: str) -> None:
        busy_until = time.monotonic() + BUSY_SECONDS
        while client.link.build != build:
            try:
                await client.renew(command)
            except Unavailable:
                await client.link.wait_up()
            except RequestRefused as error:
                if error.errno != errno.EBUSY or time.monotonic() > busy_until:
                    await _end(client.link)
                await asyncio.sleep(POLL_SECONDS)


async def _end(link: Link) -> None:
    """Kill one that is too old to become another: what it holds is with the others, only its children are not those of the next one."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(link.pid)
        try:
            if link.is_up:  # so that the number is still that of who has told us
                pidfd.send_signal(handle, signal.SIGKILL)
                await readable(handle)
        finally:
            os.close(handle)
