"""The directories of cache mounts: who is using one, since when nobody does, and how one goes."""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sampan.build.instructions import CacheMount
from sampan.engine.buildmounts import CacheDirectories
from sampan.errors import NotFound

SHARED, LOCKED = CacheMount(target="/c", id="c"), CacheMount(target="/c", id="c", sharing="locked")


def making(tmp_path: Path) -> Callable[[], Awaitable[Path]]:
    """Gives a new directory each time."""

    async def make() -> Path:
        await asyncio.sleep(0)  # as those that copy do
        return Path(tempfile.mkdtemp(dir=tmp_path))

    return make


def test_one_is_in_use_until_its_last_user_has_gone(tmp_path: Path) -> None:
    async def run() -> None:
        directories = CacheDirectories(tmp_path / "mounts")
        async with AsyncExitStack() as second:
            async with directories.use(SHARED, making(tmp_path)) as path:
                assert await second.enter_async_context(directories.use(SHARED, making(tmp_path))) == path
            assert directories.take_out(path) is None
            assert [one.busy for one in directories.all()] == [True]
        gone = directories.take_out(path)
        assert gone is not None
        assert directories.left() == [gone]
        assert directories.all() == []
        assert directories.take_out(path) is None

    asyncio.run(run())


def test_of_two_that_come_at_once_one_makes_it(tmp_path: Path) -> None:
    made: list[Path] = []

    async def run() -> None:
        directories = CacheDirectories(tmp_path / "mounts")

        async def make() -> Path:
            made.append(await making(tmp_path)())
            return made[-1]

        async def use(mount: CacheMount) -> Path:
            async with directories.use(mount, make) as path:
                return path

        first, second = await asyncio.gather(use(SHARED), use(LOCKED))
        assert first == second
        assert [one.uses for one in directories.all()] == [2]

    asyncio.run(run())
    assert len(made) == 1


def test_one_that_cannot_be_made_is_not_there(tmp_path: Path) -> None:
    async def fail() -> Path:
        raise NotFound("no such file")

    async def run() -> None:
        directories = CacheDirectories(tmp_path / "mounts")
        with pytest.raises(NotFound):
            async with directories.use(SHARED, fail):
                pass
        assert directories.all() == []
        async with directories.use(SHARED, making(tmp_path)) as path:
            assert path.is_dir()

    asyncio.run(run())


def test_what_it_began_with_is_not_told(tmp_path: Path) -> None:
    async def run() -> None:
        directories = CacheDirectories(tmp_path / "mounts")
        async with directories.use(CacheMount(target="/c", id="c\0sha256:aa\0d"), making(tmp_path)):
            pass
        assert [one.id for one in directories.all()] == ["c"]

    asyncio.run(run())


@pytest.mark.parametrize("mount", [SHARED, LOCKED], ids=["shared", "locked"])
def test_its_last_use_is_noted(tmp_path: Path, mount: CacheMount) -> None:
    async def run() -> None:
        directories = CacheDirectories(tmp_path / "mounts")
        async with directories.use(mount, making(tmp_path)):
            pass
        async with directories.use(mount, making(tmp_path)) as path:
            os.utime(path, (0, 0))
        (found,) = CacheDirectories(tmp_path / "mounts").all()
        assert (found.id, found.uses, found.busy) == ("c", 2, False)
        assert 0 < found.created < found.last_used

    asyncio.run(run())


def test_what_is_noted_may_be_lost(tmp_path: Path) -> None:
    async def run() -> None:
        directories = CacheDirectories(tmp_path / "mounts")
        async with directories.use(SHARED, making(tmp_path)) as path:
            pass
        path.with_name(f"{path.name}.json").write_bytes(b"{")
        (found,) = directories.all()
        assert (found.id, found.uses) == ("", 0)
        async with directories.use(SHARED, making(tmp_path)):
            pass
        assert [(one.id, one.uses) for one in directories.all()] == [("c", 1)]

    asyncio.run(run())
