"""Stopping every container for the daemon's own sake: at its end without live-restore, and at its start when it finds some alive then."""

import asyncio
import contextlib
import logging

from sampan.engine.background import Background
from sampan.engine.containers import DEFAULT_STOP_SECONDS, ContainerService
from sampan.engine.containerstore import Container, Containers
from sampan.errors import EngineError
from sampan.runtime.client import KeeperClient, SupervisorClient

log = logging.getLogger(__name__)

GRACE_SECONDS = 5


def time_limit(shutdown_timeout: int, running: list[Container]) -> int | None:
    """Seconds for all together, None for no limit: what the longest stop timeout needs counts too (moby daemon.ShutdownTimeout)."""
    limits = [shutdown_timeout]
    for container in running:
        own = container.config.stop_timeout
        own = DEFAULT_STOP_SECONDS if own is None else own
        limits.append(own + GRACE_SECONDS if own >= 0 else -1)
    return None if min(limits) < 0 else max(limits)


class Shutdown:
    """What sampand's end asks of the engine."""

    def __init__(
        self,
        containers: Containers,
        service: ContainerService,
        background: Background,
        keeper: KeeperClient,
        supervisor: SupervisorClient,
        seconds: int,
    ) -> None:
        """seconds: for all containers together (`shutdown-timeout`), negative for no limit."""
        self._containers = containers
        self._service = service
        self._background = background
        self._keeper, self._supervisor = keeper, supervisor
        self.seconds = seconds

    async def stop_all(self) -> None:
        """Stop what runs as docker does: each with its own signal and timeout. What outlives the limit is left, and said.

        `always` and `unless-stopped` start them again with the daemon; what waits for its next run begins it then.
        """
        self._containers.ending = True
        running = [container for container in self._containers if container.is_running]
        try:
            async with asyncio.timeout(time_limit(self.seconds, running)):
                await asyncio.gather(*(self._stop(container) for container in running))
        except TimeoutError:
            left = [container.name for container in running if container.is_running]
            log.warning("not stopped within the shutdown timeout: %s", ", ".join(left))
        await self._background.settle()

    async def _stop(self, container: Container) -> None:
        with contextlib.suppress(EngineError):
            await self._service.stop(container.id, timeout=None, signal="")

    async def end_lean_processes(self) -> None:
        """End keeper and supervisor, unless they hold containers: the next sampand may bring newer ones."""
        if not any(container.is_running for container in self._containers):
            for client in (self._supervisor, self._keeper):
                client.link.retire()
            with contextlib.suppress(EngineError):
                await self._keeper.shutdown()
