"""Runs health checks: one task for each container that has one and runs. What results come to is decided in health.py.

A probe is an exec whose output nobody sees but `inspect`. It ends with its timeout, its container, or the sampand that began it.
"""

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import msgspec

from sampan.clock import Clock
from sampan.engine import health
from sampan.engine.containerevents import ContainerEvents
from sampan.engine.containerstore import Container, Containers
from sampan.engine.exec import ExecService
from sampan.errors import EngineError
from sampan.spec.docker_api.container import ExecCreateRequest
from sampan.state.containers import ProbeResult

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


class HealthMonitor:
    """One for all containers."""

    def __init__(self, containers: Containers, execs: ExecService, events: ContainerEvents, clock: Clock) -> None:
        self._containers, self._execs, self._events, self._clock = containers, execs, events, clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.checks = self.failed = 0
        """How many there have been, and of these have failed."""
        self.prepared: Callable[[float], None] = lambda _seconds: None
        """Told how long it took until a probe ran."""

    def begin(self, container: Container, *, again: bool = False) -> None:
        """Probe a running container from now on, if it has a check. again: a former sampand has; its probes' times go on."""
        self.end(container)
        check, state = health.check_of(container.config), container.state
        if check is None or not container.is_running or state.paused:
            return
        if state.health is None:
            self._containers.note_state(container, msgspec.structs.replace(state, health=health.begun(None)))
        task = asyncio.get_running_loop().create_task(self._watch(container, check, again))
        self._tasks[container.id] = task
        task.add_done_callback(lambda ended: self._ended(container, ended))

    def end(self, container: Container) -> None:
        """Probe it no more; a probe that runs is killed, and its result never counts."""
        task = self._tasks.pop(container.id, None)
        if task is not None:
            task.cancel()

    async def close(self) -> None:
        """End every task. Containers go on."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, container: Container, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the health of %s is not checked any more", container.id, exc_info=error)

    async def _watch(self, container: Container, check: health.Check, again: bool) -> None:
        rest = health.rest_of_pause if again else health.pause_before_next
        while (state := container.state).health is not None:
            await asyncio.sleep(rest(check, state.health, state.started_at, self._clock.now_ns()) / health.SECOND)
            rest = health.pause_before_next
            result, ended = await self._probe(container, check)
            self._take(container, check, result)
            await ended.wait()  # one that even SIGKILL does not end has no others beside it

    async def _probe(self, container: Container, check: health.Check) -> tuple[ProbeResult, asyncio.Event]:
        """Run it once: its result, and what is set when its process has ended."""
        start, began = self._clock.now_ns(), time.monotonic()
        request = ExecCreateRequest(cmd=list(check.command), attach_stdout=True, attach_stderr=True)
        ended = asyncio.Event()
        try:
            captured = await self._execs.capture(
                container,
                request,
                seconds=check.timeout / health.SECOND,
                limit=health.OUTPUT_BYTES + 1,
                started=lambda: self.prepared(time.monotonic() - began),
            )
        except EngineError as error:
            log.debug("health check of %s: %s", container.id, error.message)
            code, output = health.FAILED_TO_RUN, error.message
            ended.set()
        else:
            ended = captured.ended
            in_time = captured.exit_code is not None
            code = captured.exit_code if captured.exit_code is not None else health.FAILED_TO_RUN
            output = health.output_text(captured.output) if in_time else health.too_slow(check, captured.output)
        return ProbeResult(start, self._clock.now_ns(), code, output), ended

    def _take(self, container: Container, check: health.Check, result: ProbeResult) -> None:
        state = container.state
        if state.health is None or not container.is_running or state.paused:
            return
        self.checks += 1
        self.failed += result.exit_code != 0
        changed = health.after(check, state.health, result, state.started_at)
        self._containers.note_state(container, msgspec.structs.replace(state, health=changed))
        if changed.status != state.health.status:
            self._events.publish(container, f"health_status: {changed.status}")
