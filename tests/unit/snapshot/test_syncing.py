"""Many layers written to disk at once."""

import asyncio
import threading
from pathlib import Path

import pytest

from sampan.errors import SystemFailure
from sampan.snapshot import syncing
from sampan.snapshot.syncing import Syncing


def test_those_who_ask_meanwhile_share_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, begun, go_on = [], threading.Event(), threading.Event()

    def sync(fd: int) -> None:
        runs.append(fd)
        begun.set()
        assert go_on.wait(10)

    monkeypatch.setattr(syncing, "syncfs", sync)

    async def scenario() -> None:
        one = Syncing()
        first = asyncio.ensure_future(one.everything(tmp_path))
        await asyncio.to_thread(begun.wait, 10)
        others = [asyncio.ensure_future(one.everything(tmp_path)) for _ in range(7)]
        await asyncio.sleep(0)
        others[0].cancel()  # who leaves takes nobody's run along
        go_on.set()
        await asyncio.gather(first, *others[1:])
        one.close()

    asyncio.run(scenario())
    assert len(runs) == 2, "one that had begun before they asked, one for all of them"


def test_a_disk_that_fails_is_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        one = Syncing()
        with pytest.raises(SystemFailure, match="cannot be written to disk: no such file or directory"):
            await one.everything(tmp_path / "gone")
        await one.everything(tmp_path)
        one.close()

    asyncio.run(scenario())
