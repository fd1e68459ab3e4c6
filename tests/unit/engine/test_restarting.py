"""Restart policies: after an end, and when sampand starts."""

import msgspec
import pytest

from sampan.engine.restarting import next_start, starts_with_daemon
from sampan.spec.docker_api.container import RestartPolicy
from sampan.state.containers import ContainerState

LONG, SHORT = 11.0, 1.0


@pytest.mark.parametrize(
    ("policy", "code", "tries", "duration", "following"),
    [
        ("", 1, 0, SHORT, None),
        ("no", 1, 0, SHORT, None),
        ("always", 0, 0, SHORT, (1, 0.1)),
        ("always", 1, 3, SHORT, (4, 0.8)),
        ("always", 1, 9, SHORT, (10, 51.2)),
        ("always", 1, 50, SHORT, (51, 60.0)),
        ("always", 1, 50, LONG, (1, 0.1)),
        ("unless-stopped", 0, 1, SHORT, (2, 0.2)),
        ("on-failure", 0, 0, SHORT, None),
        ("on-failure", 1, 7, SHORT, (8, 12.8)),
        ("on-failure:3", 1, 2, SHORT, (3, 0.4)),
        ("on-failure:3", 1, 3, SHORT, None),
        ("on-failure:3", 1, 3, LONG, None),
    ],
)
def test_after_an_end(policy: str, code: int, tries: int, duration: float, following: tuple[int, float] | None) -> None:
    state = ContainerState(restart_count=tries, backoff=tries)
    found = next_start(parsed(policy), state, code, duration)
    assert found == (following and (following[0], pytest.approx(following[1])))
    assert next_start(parsed(policy), msgspec.structs.replace(state, manually_stopped=True), code, duration) is None


def test_long_runs_end_the_back_off_but_are_counted() -> None:
    assert next_start(parsed("on-failure:3"), ContainerState(restart_count=2, backoff=1), 1, LONG) == (1, 0.1)
    assert next_start(parsed("on-failure:3"), ContainerState(restart_count=3, backoff=1), 1, LONG) is None


@pytest.mark.parametrize(
    ("policy", "code", "tries", "stopped", "starts"),
    [
        ("no", 1, 0, False, False),
        ("always", 0, 0, False, True),
        ("always", 0, 0, True, True),
        ("unless-stopped", 0, 0, False, True),
        ("unless-stopped", 0, 0, True, False),
        ("on-failure", 0, 0, False, False),
        ("on-failure", 1, 5, False, True),
        ("on-failure:5", 1, 5, False, False),
    ],
)
def test_when_sampand_starts(policy: str, code: int, tries: int, stopped: bool, starts: bool) -> None:
    ended = ContainerState(status="exited", started_at=1, exit_code=code, restart_count=tries, manually_stopped=stopped)
    assert starts_with_daemon(parsed(policy), ended) is starts
    assert starts_with_daemon(parsed(policy), ContainerState()) is False  # it was never started


def parsed(policy: str) -> RestartPolicy:
    name, _, most = policy.partition(":")
    return RestartPolicy(name=name, maximum_retry_count=int(most or 0))
