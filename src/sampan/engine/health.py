"""How a container's health follows from its probes (moby daemon/health.go, container/health.go). Pure; times in nanoseconds."""

from typing import Final

import msgspec

from sampan.build import gotext
from sampan.errors import InvalidArgument
from sampan.spec.docker_api.container import Config, HealthConfig
from sampan.spec.oci_image import Healthcheck
from sampan.state.containers import HealthState, ProbeResult

SECOND: Final = 1_000_000_000
MINIMUM: Final = 1_000_000
"""The shortest interval and timeout."""
OUTPUT_BYTES: Final = 4096
RESULTS_KEPT: Final = 5
FAILED_TO_RUN: Final = -1
"""The exit code of a probe that did not start or took too long."""


class Check(msgspec.Struct, frozen=True):
    """A health check with docker's defaults filled in."""

    command: tuple[str, ...]
    interval: int = 30 * SECOND
    timeout: int = 30 * SECOND
    start_period: int = 0
    start_interval: int = 5 * SECOND
    retries: int = 3


def validate(config: HealthConfig | None) -> None:
    """Raise InvalidArgument in docker's words (moby daemon/container.go validateHealthCheck)."""
    if config is None:
        return
    times = {
        "Interval": config.interval,
        "Timeout": config.timeout,
        "StartPeriod": config.start_period,
        "StartInterval": config.start_interval,
    }
    for name, value in times.items():
        if value != 0 and value < MINIMUM:
            raise InvalidArgument(f"{name} in Healthcheck cannot be less than 1ms")
    if config.retries < 0:
        raise InvalidArgument("Retries in Healthcheck cannot be negative")


def inherited(own: HealthConfig | None, image: Healthcheck | None) -> HealthConfig | None:
    """The container's own, and of the image's what that leaves open."""
    if image is None:
        return own
    own = own or HealthConfig()
    return HealthConfig(
        test=own.test or image.test,
        interval=own.interval or image.interval,
        timeout=own.timeout or image.timeout,
        start_period=own.start_period or image.start_period,
        start_interval=own.start_interval or image.start_interval,
        retries=own.retries or image.retries,
    )


def check_of(config: Config) -> Check | None:
    """What is to be run, None for nothing: no check, NONE, or a kind that docker does not know either.

    An image's numbers were never validated: what makes no sense is docker's default.
    """
    health = config.healthcheck
    kind, *rest = (health.test if health is not None else None) or ["NONE"]
    if health is None or kind not in ("CMD", "CMD-SHELL"):
        return None
    shell = (config.shell or ["/bin/sh", "-c"]) if kind == "CMD-SHELL" else ()
    given = {
        "interval": health.interval,
        "timeout": health.timeout,
        "start_period": health.start_period,
        "start_interval": health.start_interval,
    }
    times = {name: max(value, MINIMUM) for name, value in given.items() if value > 0}
    check = msgspec.structs.replace(Check((*shell, *rest)), **times)
    return msgspec.structs.replace(check, retries=health.retries) if health.retries > 0 else check


def begun(former: HealthState | None) -> HealthState:
    """At the start of a run: earlier results stay to be seen."""
    return HealthState("starting", log=former.log if former is not None else ())


def stopped(health: HealthState | None) -> HealthState | None:
    """While nobody probes, at the end of a run or paused: docker calls that unhealthy, and sends no event."""
    return None if health is None else msgspec.structs.replace(health, status="unhealthy")


def after(check: Check, health: HealthState, result: ProbeResult, started_at: int) -> HealthState:
    """What one more result makes of it; started_at: the run's start.

    A failure does not count that began in the start period, as long as no probe has succeeded.
    """
    log = (*health.log, result)[-RESULTS_KEPT:]
    if result.exit_code == 0:
        return HealthState("healthy", 0, log)
    if health.status == "starting" and result.start - started_at < check.start_period:
        return msgspec.structs.replace(health, log=log)
    streak = health.failing_streak + 1
    return HealthState("unhealthy" if streak >= check.retries else health.status, streak, log)


def pause_before_next(check: Check, health: HealthState, started_at: int, now: int) -> int:
    """How long from now until the next probe, counted from the end of one, or from the start."""
    if health.status == "starting" and now - started_at < check.start_period:
        return check.start_interval
    return check.interval


def rest_of_pause(check: Check, health: HealthState, started_at: int, now: int) -> int:
    """The same for who comes back in the middle of it: what is left, 0 if the probe should have been already."""
    last = health.log[-1].end if health.log else 0
    since = max(last, started_at)
    pause = pause_before_next(check, health, started_at, since)
    return min(max(0, since + pause - now), pause)  # the clock may have been set back


def output_text(output: bytes) -> str:
    """A probe's output as it is kept: the first 4096 bytes, marked if there were more."""
    text = output[:OUTPUT_BYTES].decode(errors="replace")
    return f"{text}..." if len(output) > OUTPUT_BYTES else text


def too_slow(check: Check, output: bytes) -> str:
    """What is kept of a probe that was ended for its time."""
    text = output_text(output)
    return f"Health check exceeded timeout ({gotext.duration(check.timeout)})" + (f": {text}" if text else "")


def shown(health: HealthState) -> str:
    """As STATUS has it in parentheses."""
    return "health: starting" if health.status == "starting" else health.status
