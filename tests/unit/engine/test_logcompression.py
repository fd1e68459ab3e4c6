"""Which files are compressed when, and what is left when the disk, the keeper or sampand itself is not there to the end."""

import asyncio
import errno
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sampan.engine import logcompression
from sampan.engine.logcompression import LogCompression
from sampan.errors import Unavailable
from sampan.logs import rotated
from sampan.runtime.client import RequestRefused
from sampan.runtime.supervisor.keeper_json import swap

CONTENT = b"line\n" * 1000


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """All are given back."""
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


class Keeper:
    """Swaps at once, or fails first."""

    def __init__(self, *failures: Exception) -> None:
        self.link: Any = SimpleNamespace(is_up=True)
        self.failures = list(failures)
        self.asked: list[str] = []

    async def compressed(self, path: str, number: int, original: rotated.Origin, copy: str) -> bool:
        self.asked.append(os.path.basename(os.path.dirname(path)))
        if self.failures:
            raise self.failures.pop(0)
        return swap(path, number, list(original), copy)


class Away:
    """The link of a keeper that is away, and how often somebody wanted to know."""

    asked = 0

    @property
    def is_up(self) -> bool:
        self.asked += 1
        return False


class Counted:
    """A function, and how often it was called."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.calls = function, 0

    def __call__(self, *given: Any) -> Any:
        self.calls += 1
        return self.function(*given)


def container(root: Path, name: str, files: int) -> Any:
    """One with so many rotated files."""
    (root / name).mkdir()
    for number in range(1, files + 1):
        (root / name / f"log.{number}").write_bytes(CONTENT)
    (root / name / "log").write_bytes(CONTENT)
    return SimpleNamespace(id=name, state=SimpleNamespace(status="running"))


def made(root: Path, keeper: Keeper) -> LogCompression:
    logs: Any = SimpleNamespace(compressed_path=lambda one: "" if one.id.startswith("plain") else f"{root}/{one.id}/log")
    wire: Any = keeper
    return LogCompression(wire, logs)


def run(root: Path, keeper: Keeper, work: Callable[[LogCompression], Awaitable[None]]) -> None:
    async def main() -> None:
        compression = made(root, keeper)
        await work(compression)
        await compression.close()
        # The executor's threads have descriptors of nobody.
        await asyncio.get_running_loop().shutdown_default_executor()

    asyncio.run(asyncio.wait_for(main(), 30))


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


async def rest(compression: LogCompression) -> None:
    """Until it has nothing to do."""
    assert compression._task is not None
    await compression._task


def names(root: Path, name: str) -> list[str]:
    return sorted(os.listdir(root / name))


def test_one_container_after_the_other(tmp_path: Path) -> None:
    keeper = Keeper()
    busy, other, plain = container(tmp_path, "busy", 3), container(tmp_path, "other", 1), container(tmp_path, "plain", 1)

    async def work(compression: LogCompression) -> None:
        for one in (busy, other, plain, busy):
            compression.look(one)
        await until(lambda: len(keeper.asked) == 4 and "log.3.gz" in names(tmp_path, "busy"))

    run(tmp_path, keeper, work)
    assert keeper.asked == ["busy", "other", "busy", "busy"]
    assert names(tmp_path, "busy") == ["log", "log.1.gz", "log.2.gz", "log.3.gz"]
    assert names(tmp_path, "other") == ["log", "log.1.gz"]
    assert names(tmp_path, "plain") == ["log", "log.1"]


def test_a_keeper_that_is_away_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is compressed for it meanwhile."""
    monkeypatch.setattr(logcompression, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(rotated, "compress", compress := Counted(rotated.compress))
    keeper = Keeper(Unavailable("the connection is lost"))
    keeper.link = away = Away()
    one = container(tmp_path, "a", 1)

    async def work(compression: LogCompression) -> None:
        compression.look(one)
        await until(lambda: away.asked == 3)
        assert (keeper.asked, compress.calls) == ([], 0)
        keeper.link = SimpleNamespace(is_up=True)
        await rest(compression)

    run(tmp_path, keeper, work)
    assert (keeper.asked, compress.calls) == (["a", "a"], 2)
    assert names(tmp_path, "a") == ["log", "log.1.gz"]


def test_a_backlog_is_walked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = container(tmp_path, "a", 30)
    monkeypatch.setattr(logcompression.os, "listdir", lists := Counted(os.listdir))
    monkeypatch.setattr(logcompression.os.path, "lexists", looks := Counted(os.path.lexists))

    async def work(compression: LogCompression) -> None:
        compression.look(one)
        await rest(compression)
        assert lists.calls == 1
        assert looks.calls < 200
        monkeypatch.undo()

    run(tmp_path, Keeper(), work)
    assert names(tmp_path, "a") == sorted(["log", *(f"log.{number}.gz" for number in range(1, 31))])


def test_what_is_rotated_meanwhile_comes_first(tmp_path: Path) -> None:
    one = container(tmp_path, "a", 3)
    keeper = Keeper()
    looking: list[LogCompression] = []
    swapped: list[int] = []
    real = keeper.compressed

    async def compressed(path: str, number: int, original: rotated.Origin, copy: str) -> bool:
        if not swapped:
            for older in (3, 2, 1):
                os.rename(f"{path}.{older}", f"{path}.{older + 1}")
            os.rename(path, f"{path}.1")
            looking[0].look(one)
        swapped.append(number)
        return await real(path, number, original, copy)

    keeper.compressed = compressed  # type: ignore[method-assign]

    async def work(compression: LogCompression) -> None:
        looking.append(compression)
        compression.look(one)
        await rest(compression)

    run(tmp_path, keeper, work)
    assert swapped == [1, 1, 3, 4]
    assert names(tmp_path, "a") == ["log.1.gz", "log.2.gz", "log.3.gz", "log.4.gz"]


def test_what_is_refused_stays_until_the_next_time(tmp_path: Path) -> None:
    keeper = Keeper(RequestRefused("request", errno.EBUSY, "", "another run of the container still writes it"))
    one = container(tmp_path, "a", 1)

    async def work(compression: LogCompression) -> None:
        compression.look(one)
        await rest(compression)
        assert keeper.asked == ["a"]
        assert names(tmp_path, "a") == ["log", "log.1"]
        compression.look(one)
        await until(lambda: "log.1.gz" in names(tmp_path, "a"))

    run(tmp_path, keeper, work)


def test_a_copy_is_on_the_disk_before_the_keeper_hears_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keeper = Keeper()
    one = container(tmp_path, "a", 1)
    synced: list[tuple[str, list[str]]] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        real(fd)
        synced.append((os.path.basename(os.readlink(f"/proc/self/fd/{fd}")), list(keeper.asked)))

    monkeypatch.setattr(os, "fsync", fsync)

    async def work(compression: LogCompression) -> None:
        compression.look(one)
        await until(lambda: "log.1.gz" in names(tmp_path, "a"))

    run(tmp_path, keeper, work)
    (copy, before), directory = synced
    assert copy.endswith(".copy")
    assert before == []
    assert directory == ("a", [])


def test_a_full_disk_leaves_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    failed = Counted(full)
    one, gone = container(tmp_path, "a", 1), SimpleNamespace(id="gone", state=SimpleNamespace(status="exited"))
    keeper = Keeper()

    async def work(compression: LogCompression) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(rotated, "compress", failed)
            compression.look(one)
            await rest(compression)
            assert failed.calls == 1
            assert names(tmp_path, "a") == ["log", "log.1"]
        compression.look(gone)  # type: ignore[arg-type]
        compression.look(one)
        await until(lambda: "log.1.gz" in names(tmp_path, "a"))

    run(tmp_path, keeper, work)


@pytest.mark.parametrize("closed", [False, True])
def test_who_removes_the_container_waits_for_no_whole_file(tmp_path: Path, closed: bool) -> None:
    one = container(tmp_path, "a", 0)
    with open(tmp_path / "a" / "log.1", "wb") as file:
        file.truncate(1 << 40)

    async def work(compression: LogCompression) -> None:
        compression.look(one)
        await until(lambda: any(name.endswith(".copy") for name in names(tmp_path, "a")))
        if closed:
            await compression.close()
        else:
            one.state.status = "removing"
            await compression.leave(one)
            await rest(compression)
            compression.look(one)
            await rest(compression)
        assert names(tmp_path, "a") == ["log", "log.1"]

    run(tmp_path, Keeper(), work)


@pytest.mark.parametrize("taken", [False, True])
def test_what_a_kill_has_left_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool) -> None:
    """taken: by a keeper that does what a former sampand asked for."""
    one = container(tmp_path, "a", 1)
    for name in ("log.0123abcd.copy", "log.2.gz", "other.copy"):
        (tmp_path / "a" / name).touch()
    real = os.listdir

    def listed(directory: str) -> list[str]:
        found = real(directory)
        if taken:
            os.unlink(f"{directory}/log.0123abcd.copy")
        return found

    async def work(compression: LogCompression) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(logcompression.os, "listdir", listed)
            compression.look(one)
            await rest(compression)

    run(tmp_path, Keeper(), work)
    assert names(tmp_path, "a") == ["log", "log.1.gz", "log.2.gz", "other.copy"]
