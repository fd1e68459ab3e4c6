"""What a new keeper and supervisor are handed: of each container what can be, whatever is the matter with another."""

import asyncio
import errno
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from sampan.daemon.readopt import Readopter
from sampan.runtime.client import RequestRefused

if TYPE_CHECKING:
    from collections.abc import Callable


class Lean:
    """A keeper or supervisor that knows nothing, and refuses to take what it is told to refuse."""

    def __init__(self, refused: dict[str, int]) -> None:
        self.refused, self.link, self.taken = refused, self, list[tuple[str, Any]]()
        self.meanwhile: Callable[[], None] = lambda: None

    async def request(self, message: dict[str, Any]) -> tuple[dict[str, Any], dict[str, int]]:
        return {"settled": True, "streams": []}, {}

    async def procs(self) -> list[dict[str, Any]]:
        return []

    async def forget(self, key: str) -> None:
        raise AssertionError(key)

    async def adopt(self, key: str, _container: str, _tty: bool, _log: Any, _fds: Any, *, exit: Any) -> None:
        if key in self.refused:
            raise RequestRefused("request", self.refused[key], "", "refused")
        self.taken.append((key, exit))
        self.meanwhile()

    async def custody(self, facts: dict[str, Any], _record: Any, _fds: Any) -> None:
        self.taken.append((facts["key"], facts["pid"]))


def container(name: str, pid: int) -> Any:
    live = SimpleNamespace(key=f"{name}.1", pidfd=7, stdin=None, followers=(), held=lambda: {"pidfd": 7, "stdout": 8})
    state = SimpleNamespace(pid=pid, start_time=1, started_at=2, exit_code=3, finished_at=4)
    return SimpleNamespace(id=name, key=live.key, live=live, state=state, config=SimpleNamespace(tty=False, open_stdin=False))


def readopt(containers: Any, keeper: Any, supervisor: Any) -> None:
    async def nothing(_procs: Any) -> None:
        pass

    logs: Any = SimpleNamespace(settings=lambda _container: {})
    execs: Any = SimpleNamespace(hand_over=nothing)
    readopter = Readopter(containers, keeper, supervisor, logs, execs, lambda _key: False)
    readopter.restored = True
    asyncio.run(readopter.readopt())


@pytest.mark.parametrize(("number", "runs_of_it"), [(errno.EEXIST, [("b.1", 12)]), (errno.EIO, [])])
def test_one_that_is_refused_keeps_none_from_the_others(
    number: int, runs_of_it: list[tuple[str, int]], caplog: pytest.LogCaptureFixture
) -> None:
    """A stream that the keeper has is one of a start that went on meanwhile: the rest of it is handed over."""
    keeper: Any = Lean({"b.1": number})
    supervisor: Any = Lean({})
    containers: Any = [container("a", 11), container("b", 12), container("c", 0)]

    readopt(containers, keeper, supervisor)
    assert keeper.taken == [("a.1", None), ("c.1", {"code": 3, "signal": None, "at": 4})]
    assert supervisor.taken == [("a.1", 11), *runs_of_it]
    assert ("container b" in caplog.text) == (number != errno.EEXIST)


def test_a_run_that_ends_meanwhile_is_not_given_to_the_supervisor() -> None:
    """Its descriptors may be those of others by then."""
    keeper: Any = Lean({})
    supervisor: Any = Lean({})
    ending: Any = container("a", 11)

    def end() -> None:
        ending.live, ending.state.pid = None, 0

    keeper.meanwhile = end
    readopt([ending, container("b", 12)], keeper, supervisor)
    assert [key for key, _ in keeper.taken] == ["a.1", "b.1"]
    assert supervisor.taken == [("b.1", 12)]
