"""Stopping every container for the daemon's own sake: at its end without live-restore, and at its start when it finds some alive then."""

import asyncio
import contextlib
import logging

from sampan.engine.containers import DEFAULT_STOP_SECONDS, ContainerService
from sampan.engine.containerstore import Container, Containers
from sampan.engine.runner import Runner
from sampan.errors import EngineError, NotModified

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


async def stop_all(service: ContainerService, containers: Containers, runner: Runner, shutdown_timeout: int) -> None:
    """Stop what runs as docker does: each with its own signal and timeout. What outlives the limit is left, and said."""

    async def stop(container: Container) -> None:
        with contextlib.suppress(EngineError, NotModified):
            await service.stop(container.id, timeout=None, signal="")

    running = [container for container in containers if container.is_running]
    try:
        async with asyncio.timeout(time_limit(shutdown_timeout, running)):
            await asyncio.gather(*(stop(container) for container in running))
    except TimeoutError:
        left = [container.name for container in running if container.is_running]
        log.warning("not stopped within the shutdown timeout: %s", ", ".join(left))
    for container in running:
        # Stopped by the daemon, not by the user: `always` and `unless-stopped` start them again with the daemon.
        with contextlib.suppress(EngineError):
            runner.forget_manual_stop(container)
    await runner.settle()


async def end_helpers(containers: Containers, runner: Runner) -> None:
    """End keeper and supervisor, unless they hold containers: the next sampand may bring newer ones."""
    if not any(container.is_running for container in containers):
        for link in (runner.supervisor.link, runner.keeper.link):
            link.retire()
        with contextlib.suppress(EngineError):
            await runner.keeper.shutdown()
