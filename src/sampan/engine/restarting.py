"""When a restart policy has a container started again (moby restartmanager/restartmanager.go). Pure."""

from typing import Final

from sampan.spec.docker_api.container import RestartPolicy
from sampan.state.containers import ContainerState

RESET_SECONDS: Final = 10.0
"""A run of this length ends the back-off."""
FIRST_SECONDS: Final = 0.1
MAX_SECONDS: Final = 60.0


def starts_with_daemon(policy: RestartPolicy, state: ContainerState) -> bool:
    """Whether a container that does not run is started when sampand starts (moby daemon.restore)."""
    if not state.started_at:
        return False
    if policy.name == "on-failure":
        return state.exit_code != 0 and not _used_up(policy, state)
    return policy.name == "always" or (policy.name == "unless-stopped" and not state.manually_stopped)


def _used_up(policy: RestartPolicy, state: ContainerState) -> bool:
    return 0 < policy.maximum_retry_count <= state.restart_count


def next_start(policy: RestartPolicy, state: ContainerState, code: int, duration: float) -> tuple[int, float] | None:
    """(step of the back-off, seconds until then) after a run of duration seconds that ended with code; None: it stays as it is."""
    if policy.name in ("", "no") or state.manually_stopped:
        return None
    if policy.name == "on-failure" and (code == 0 or _used_up(policy, state)):
        return None
    step = 0 if duration >= RESET_SECONDS else state.backoff
    return step + 1, min(FIRST_SECONDS * 2 ** min(step, 10), MAX_SECONDS)
