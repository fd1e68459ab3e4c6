"""Signals to running containers, and the freezer."""

import asyncio
import contextlib
import errno
import signal as signals
from collections.abc import AsyncIterator

import msgspec

from sampan.engine import health, updating
from sampan.engine.containerevents import ContainerEvents
from sampan.engine.containerstore import Container, Containers
from sampan.engine.paths import Paths
from sampan.errors import Conflict, SystemFailure
from sampan.linux import pidfd
from sampan.runtime import cgroups
from sampan.spec.docker_api.container import HostConfig

KILL_SECONDS = 30.0


class Control:
    """One for all containers."""

    def __init__(self, containers: Containers, events: ContainerEvents, layout: cgroups.Layout, paths: Paths) -> None:
        self._containers, self._events, self._layout, self._paths = containers, events, layout, paths

    def send(self, container: Container, number: int) -> bool:
        """Signal the init process; False when it is gone."""
        live = container.live
        if live is None or live.pidfd < 0:
            return False
        try:
            pidfd.send_signal(live.pidfd, number)
        except ProcessLookupError:
            return False
        return True

    async def thaw(self, container: Container) -> None:
        """Let a paused container take signals; one that has just ended needs none. Raises SystemFailure."""
        if container.state.paused:
            with contextlib.suppress(Conflict):
                await self.freeze(container, frozen=False)
                self._events.publish(container, "unpause")

    async def stop(self, container: Container, number: int, timeout: float | None) -> None:
        """Signal (0: none), wait timeout seconds (None: for ever), kill, wait. The container does not run afterwards."""
        if not self._containers.ending:
            self._containers.note_state(container, msgspec.structs.replace(container.state, manually_stopped=True))
        await self.thaw(container)
        if number:
            self._events.publish(container, "kill", {"signal": str(number)})
            self.send(container, number)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await container.exited.wait()
                return
        await self.kill(container)

    async def kill(self, container: Container) -> None:
        """SIGKILL and wait for the end. Raises SystemFailure when the kernel does not let go."""
        self._events.publish(container, "kill", {"signal": str(int(signals.SIGKILL))})
        await self.thaw(container)
        self.send(container, signals.SIGKILL)
        await self.wait_for_end(container)

    @staticmethod
    async def wait_for_end(container: Container) -> None:
        """Wait for the end of a killed container, and for its output in the log. Raises SystemFailure after KILL_SECONDS."""
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await container.exited.wait()
        except TimeoutError:
            raise SystemFailure(f"tried to kill container, but did not receive an exit event: {container.id}") from None

    @contextlib.asynccontextmanager
    async def limited(self, container: Container, host_config: HostConfig) -> AsyncIterator[None]:
        """Give a running container the limits of another HostConfig; it has its old ones when the block fails. Raises SystemFailure."""
        cgroup, old = self._paths.cgroup_of(container), container.host_config
        await asyncio.to_thread(updating.apply, self._layout, cgroup, old, host_config)
        try:
            yield
        except BaseException:
            await asyncio.to_thread(updating.apply, self._layout, cgroup, host_config, old)
            raise

    async def hold(self, container: Container, *, frozen: bool) -> None:
        """Freeze or thaw the processes for a moment; the container's state does not show it.

        Raises Conflict when they have ended, SystemFailure.
        """
        try:
            await asyncio.to_thread(cgroups.freeze, self._layout, self._paths.cgroup_of(container), frozen)
        except (OSError, TimeoutError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENODEV):  # its cgroup has gone, or is just going
                raise Conflict(f"Container {container.id} is not running") from error
            raise SystemFailure(f"cannot {'pause' if frozen else 'unpause'} container {container.id}: {error}") from error

    async def freeze(self, container: Container, *, frozen: bool) -> None:
        """Pause or go on. Raises Conflict when the container has just ended, SystemFailure."""
        await self.hold(container, frozen=frozen)
        if not container.is_running:  # it ended meanwhile: its state must not say that it runs
            raise Conflict(f"Container {container.id} is not running")
        state = msgspec.structs.replace(container.state, status="paused" if frozen else "running", paused=frozen)
        if frozen:
            state = msgspec.structs.replace(state, health=health.stopped(state.health))
        self._containers.note_state(container, state)
