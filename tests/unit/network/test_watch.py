"""What is made of the kernel's news of packet filters."""

import asyncio
import socket

import pytest

from sampan.linux.nftables import Change
from sampan.network import watch


class News:
    """A monitor that has what it is given."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.ends = socket.socketpair()

    def fileno(self) -> int:
        return self.ends[0].fileno()

    def read(self) -> list[Change]:
        self.ends[0].recv(1)
        found, self.changes = self.changes, []
        return found

    def close(self) -> None:
        for end in self.ends:
            end.close()

    def come(self, *changes: Change) -> None:
        self.changes += changes
        self.ends[1].send(b"x")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([Change("sampan", is_deletion=True)], [watch.REMOVED, ""]),
        ([Change("", is_deletion=True)], [watch.UNKNOWN, ""]),
        ([Change("sampan", is_deletion=True), Change("", is_deletion=True)], [watch.REMOVED, ""]),
        ([Change("filter", is_deletion=False), Change("other", is_deletion=True), Change("sampan", is_deletion=False)], [""]),
    ],
)
def test_what_is_restored_and_why(monkeypatch: pytest.MonkeyPatch, changes: list[Change], said: list[str]) -> None:
    news = News()
    monkeypatch.setattr(watch, "Monitor", lambda: news)
    monkeypatch.setattr(watch, "SETTLE", 0.01)
    found: list[str] = []

    async def main() -> None:
        done = asyncio.Event()

        async def restore(why: str) -> None:
            found.append(why)
            if not why:
                done.set()

        watching = watch.RulesetWatch("sampan", restore)
        news.come(*changes)
        async with asyncio.timeout(30):
            await done.wait()
        await watching.stop()

    asyncio.run(main())
    assert found == said
