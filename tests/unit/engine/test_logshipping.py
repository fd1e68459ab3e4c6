"""How a log is cut for its server."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sampan.engine.logshipping import SLICE_BYTES, SLICE_LINES, LogShipping, _Progress, _slices
from sampan.logs.outgoing import Line, LineSplitter


def test_slices_are_small_and_hold_everything() -> None:
    lines = [Line(number, False, b"x" * (number % 20000), False) for number in range(3000)]
    cut = list(_slices(lines))
    assert [line for one in cut for line in one] == lines
    assert max(map(len, cut)) <= SLICE_LINES
    assert max(sum(len(line.data) for line in one) for one in cut) < SLICE_BYTES + 20000
    assert list(_slices([])) == []


def test_lines_are_made_as_they_are_taken() -> None:
    frames = iter([(1, 1, b"\n" * SLICE_LINES)] * 100)
    slices = _slices(LineSplitter().feed(frames))
    assert len(next(slices)) == SLICE_LINES
    assert len(list(frames)) == 99


class Silent:
    """A server that takes nothing, and what is connected to it."""

    def __init__(self) -> None:
        self.sinks = 0
        self.started = asyncio.Event()

    async def send(self, lines: Sequence[Line]) -> None:
        self.started.set()
        await asyncio.Event().wait()

    def close(self) -> None:
        self.sinks -= 1

    def connect(self, _container: object) -> "Silent":
        self.sinks += 1
        return self


def test_runs_that_wait_for_a_silent_server_are_one_at_most(tmp_path: Path) -> None:
    server, followed = Silent(), set[str]()

    async def follow(_key: str, name: str, *_: object) -> dict[str, Any]:
        followed.add(name)
        return {"pos": [1, 0]}

    async def unfollow(name: str) -> None:
        followed.discard(name)

    async def main() -> None:
        containers: Any = SimpleNamespace(get=lambda _: None)
        keeper: Any = SimpleNamespace(follow=follow, unfollow=unfollow)
        logs: Any = SimpleNamespace(sink=server.connect, is_blocking=lambda _: True)
        paths: Any = SimpleNamespace(container=lambda _: str(tmp_path), log=lambda _: str(tmp_path))
        container: Any = SimpleNamespace(id="c")
        _Progress(str(tmp_path)).store((1, 0), {1: (1, b"begun")})
        shipping = LogShipping(containers, keeper, logs, paths)
        for _ in range(10):
            container.live = SimpleNamespace(key="k", pidfd=0, followers=set(), drained=asyncio.Event())
            await shipping.begin(container)
            for follower in container.live.followers:
                follower.ended(None)
            await asyncio.sleep(0)
        await server.started.wait()
        for _ in range(3):
            await asyncio.sleep(0)
        assert (server.sinks, len(followed)) == (2, 2)
        await shipping.close()
        assert (server.sinks, len(followed)) == (0, 0)

    asyncio.run(asyncio.wait_for(main(), 20))
