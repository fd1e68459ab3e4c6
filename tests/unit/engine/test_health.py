"""What probes come to, on a clock of the test's own: every time is a number of nanoseconds."""

import msgspec
import pytest

from sampan.engine import health
from sampan.engine.health import SECOND, Check
from sampan.engine.merging import merge_config
from sampan.errors import InvalidArgument
from sampan.spec.docker_api.container import Config, CreateRequest, HealthConfig
from sampan.spec.oci_image import ContainerConfig, Healthcheck
from sampan.state.containers import HealthState, ProbeResult

STARTED = 1_000 * SECOND
CHECK = Check(("probe",), interval=10 * SECOND, start_period=4 * SECOND, start_interval=SECOND, retries=2)


def result(at: int, code: int) -> ProbeResult:
    """A probe that began `at` nanoseconds after the start, and took no time."""
    return ProbeResult(STARTED + at, STARTED + at, code, f"{at}")


def run(*results: tuple[int, int], former: HealthState | None = None) -> HealthState:
    """The health after probes at (seconds after the start, exit code)."""
    found = health.begun(former)
    for seconds, code in results:
        found = health.after(CHECK, found, result(seconds * SECOND, code), STARTED)
    return found


@pytest.mark.parametrize(
    ("results", "status", "streak"),
    [
        ([], "starting", 0),
        ([(1, 1), (2, 1), (3, 1)], "starting", 0),  # in the start period failures do not count
        ([(3, 1), (4, 1)], "starting", 1),
        ([(3, 1), (4, 1), (5, 2)], "unhealthy", 2),
        ([(1, 0)], "healthy", 0),
        ([(1, 0), (2, 1)], "healthy", 1),  # the first success ends the start period
        ([(1, 0), (2, 1), (3, -1)], "unhealthy", 2),
        ([(5, 1), (6, 1), (7, 1)], "unhealthy", 3),
        ([(5, 1), (6, 1), (7, 0)], "healthy", 0),
    ],
)
def test_status(results: list[tuple[int, int]], status: str, streak: int) -> None:
    found = run(*results)
    assert (found.status, found.failing_streak) == (status, streak)
    assert [item.exit_code for item in found.log] == [code for _, code in results]


def test_five_results_are_kept_over_the_runs() -> None:
    found = run(*((n, 0) for n in range(7)))
    assert [item.output for item in found.log] == [f"{n * SECOND}" for n in range(2, 7)]
    again = run(former=health.stopped(found))
    assert (again.status, again.failing_streak, again.log) == ("starting", 0, found.log)


def test_stopped() -> None:
    assert health.stopped(None) is None
    found = health.stopped(run((5, 0), (6, 1)))
    assert found is not None
    assert (found.status, found.failing_streak, len(found.log)) == ("unhealthy", 1, 2)


def test_when_the_next_probe_is() -> None:
    starting, healthy = run(), run((1, 0))
    assert health.pause_before_next(CHECK, starting, STARTED, STARTED) == SECOND
    assert health.pause_before_next(CHECK, starting, STARTED, STARTED + 4 * SECOND) == 10 * SECOND
    assert health.pause_before_next(CHECK, healthy, STARTED, STARTED + 2 * SECOND) == 10 * SECOND
    plain = msgspec.structs.replace(CHECK, start_period=0)
    assert health.pause_before_next(plain, starting, STARTED, STARTED) == 10 * SECOND


@pytest.mark.parametrize(
    ("results", "now", "rest"),
    [
        ([], 0.25, 0.75),
        ([], 7, 0),  # should have been long ago
        ([(1, 1)], 1.5, 0.5),
        ([(6, 1)], 9, 7),
        ([(6, 1)], 16, 0),
        ([(6, 1)], -100, 10),  # the clock was set back
    ],
)
def test_coming_back_in_the_middle_of_a_pause(results: list[tuple[int, int]], now: float, rest: float) -> None:
    assert health.rest_of_pause(CHECK, run(*results), STARTED, STARTED + int(now * SECOND)) == int(rest * SECOND)


def test_results_of_an_earlier_run_say_nothing_of_the_pause() -> None:
    old = HealthState("starting", log=(result(-50 * SECOND, 0),))
    assert health.rest_of_pause(CHECK, old, STARTED, STARTED + SECOND // 2) == SECOND // 2


@pytest.mark.parametrize(
    ("config", "command"),
    [
        (None, None),
        (HealthConfig(), None),
        (HealthConfig(interval=SECOND), None),
        (HealthConfig(test=["NONE"]), None),
        (HealthConfig(test=["FOO", "x"]), None),
        (HealthConfig(test=["CMD", "a", "b"]), ("a", "b")),
        (HealthConfig(test=["CMD"]), ()),
        (HealthConfig(test=["CMD-SHELL", "a b"]), ("/bin/sh", "-c", "a b")),
    ],
)
def test_command(config: HealthConfig | None, command: tuple[str, ...] | None) -> None:
    found = health.check_of(Config(healthcheck=config))
    assert (found and found.command) == command
    if found:
        assert (found.interval, found.timeout, found.start_period, found.start_interval) == (30 * SECOND, 30 * SECOND, 0, 5 * SECOND)
        assert found.retries == 3


def test_command_by_the_images_own_shell() -> None:
    found = health.check_of(Config(healthcheck=HealthConfig(test=["CMD-SHELL", "x"]), shell=["ash", "-ec"]))
    assert found is not None
    assert found.command == ("ash", "-ec", "x")


def test_an_images_nonsense_is_the_default() -> None:
    image = Healthcheck(test=["CMD", "x"], interval=-5, timeout=1, start_period=-1, retries=-7)
    found = health.check_of(merge_config(CreateRequest(cmd=["c"]), ContainerConfig(healthcheck=image), "h"))
    assert found == Check(("x",), timeout=health.MINIMUM)


def test_the_image_fills_what_is_left_open() -> None:
    image = ContainerConfig(healthcheck=Healthcheck(test=["CMD", "x"], interval=7 * SECOND, retries=9, start_interval=SECOND))
    own = HealthConfig(interval=2 * SECOND, start_period=3 * SECOND)
    merged = merge_config(CreateRequest(cmd=["c"], healthcheck=own), image, "h").healthcheck
    assert merged == HealthConfig(test=["CMD", "x"], interval=2 * SECOND, start_period=3 * SECOND, start_interval=SECOND, retries=9)
    none = merge_config(CreateRequest(cmd=["c"], healthcheck=HealthConfig(test=["NONE"])), image, "h")
    assert health.check_of(none) is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (HealthConfig(interval=1), "Interval in Healthcheck cannot be less than 1ms"),
        (HealthConfig(timeout=-1), "Timeout in Healthcheck cannot be less than 1ms"),
        (HealthConfig(start_period=999_999), "StartPeriod in Healthcheck cannot be less than 1ms"),
        (HealthConfig(start_interval=7), "StartInterval in Healthcheck cannot be less than 1ms"),
        (HealthConfig(test=["NONE"], retries=-1), "Retries in Healthcheck cannot be negative"),
    ],
)
def test_refused(config: HealthConfig, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        merge_config(CreateRequest(cmd=["c"], healthcheck=config), ContainerConfig(), "h")
    assert caught.value.message == message


def test_output() -> None:
    assert health.output_text(b"x" * 4096) == "x" * 4096
    assert health.output_text(b"x" * 4097) == "x" * 4096 + "..."
    assert health.output_text(b"\xff") == "\ufffd"
    check = Check(("x",), timeout=SECOND // 2)
    assert health.too_slow(check, b"") == "Health check exceeded timeout (500ms)"
    assert health.too_slow(check, b"out\n") == "Health check exceeded timeout (500ms): out\n"
