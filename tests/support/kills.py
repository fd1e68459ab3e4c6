"""kill -9 of an engine's own processes, and the wait until what comes back holds all again."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator, Sequence

from sampan.runtime.protocol import ChannelClosed
from tests.support.engine import Engine
from tests.support.strays import ask, pid_of

SETTLE_SECONDS = 60.0


@contextlib.contextmanager
def standing_still(engine: Engine, roles: Sequence[str]) -> Iterator[None]:
    """The processes of these roles do nothing within the block."""
    pids = [pid for pid in (pid_of(engine, role) for role in roles) if pid is not None]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def kill(engine: Engine, *roles: str, frozen: Sequence[str] = (), seconds: float = 0.0) -> None:
    """Kill the processes of these roles at once, and wait until there are new ones and each holds all again.

    frozen: those that stand still for so many seconds before it: what the others have told them by then they have not heard.
    """
    before: dict[str, int] = {}
    for role in roles:
        pid = pid_of(engine, role)
        assert pid is not None, role
        before[role] = pid
    with standing_still(engine, frozen):
        time.sleep(seconds)
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
    if "sampand" in roles:
        assert engine.process is not None
        engine.process.wait(10)
        engine.start()
    deadline = time.monotonic() + SETTLE_SECONDS
    while any(pid_of(engine, role) in (None, pid) for role, pid in before.items() if role != "sampand"):
        assert time.monotonic() < deadline, f"no new {roles}"
        time.sleep(0.02)
    while not all_held(engine):
        assert time.monotonic() < deadline, f"{roles} do not come back"
        time.sleep(0.02)


def all_held(engine: Engine) -> bool:
    """Whether keeper and supervisor have every running container: another kill then leaves one holder at least."""
    keys = {item["Id"] for item in engine.request("GET", "/containers/json")[1]}
    try:
        keeper, supervisor = ask(engine, "keeper", {"op": "hello"}), ask(engine, "supervisor", {"op": "list"})
    except (OSError, ChannelClosed):
        return False
    held = [{item["key"].partition(".")[0] for item in items} for items in (keeper["streams"], supervisor["procs"])]
    return bool(keeper["settled"]) and all(keys <= found for found in held)
