"""When a restart policy has a container started again (moby restartmanager/restartmanager.go). Pure."""

from typing import Final

from sampan.spec.docker_api.container import RestartPolicy
from sampan.state.containers import ContainerState

RESET_SECONDS: Final = 10.0
"""A run of this length ends the back-off."""
FIRST_SECONDS: Final = 0.1
MAX_SECONDS: Final = 60.0


def next_start(policy: RestartPolicy, state: ContainerState, code: int, duration: float) -> tuple[int, float] | None:
    """(which try it is, seconds until then) after a run of duration seconds that ended with code; None: it stays as it is."""
    if policy.name in ("", "no") or state.manually_stopped:
        return None
    if policy.name == "on-failure" and (code == 0 or 0 < policy.maximum_retry_count <= state.restart_count):
        return None
    tries = 0 if duration >= RESET_SECONDS else state.restart_count
    return tries + 1, min(FIRST_SECONDS * 2 ** min(tries, 10), MAX_SECONDS)
