"""The directories of cache mounts: who is using one, since when nobody does, and how one goes."""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sampan.build.instructions import CacheMount
from sampan.engine.buildmounts import CacheDirectories

SHARED, LOCKED = CacheMount(target="/c", id="c"), CacheMount(target="/c", id="c", sharing="locked")


def test_one_is_in_use_until_its_last_user_has_gone(tmp_path: Path) -> None:
    async def run() -> None:
        directories = CacheDirectories(tmp_path / "mounts")
        async with AsyncExitStack() as second:
            async with directories.use(SHARED) as (path, new):
                assert new
                assert await second.enter_async_context(directories.use(SHARED)) == (path, False)
            assert directories.take_out(path) is None
            assert [one.busy for one in directories.all()] == [True]
        gone = directories.take_out(path)
        assert gone is not None
        assert directories.left() == [gone]
        assert directories.all() == []
        assert directories.take_out(path) is None

    asyncio.run(run())


@pytest.mark.parametrize("mount", [SHARED, LOCKED], ids=["shared", "locked"])
def test_its_last_use_is_noted(tmp_path: Path, mount: CacheMount) -> None:
    async def run() -> None:
        directories = CacheDirectories(tmp_path / "mounts")
        async with directories.use(mount):
            pass
        async with directories.use(mount) as (path, _):
            os.utime(path, (0, 0))
        (found,) = CacheDirectories(tmp_path / "mounts").all()
        assert (found.id, found.uses, found.busy) == ("c", 2, False)
        assert 0 < found.created < found.last_used

    asyncio.run(run())


def test_what_is_noted_may_be_lost(tmp_path: Path) -> None:
    async def run() -> None:
        directories = CacheDirectories(tmp_path / "mounts")
        async with directories.use(SHARED) as (path, _):
            pass
        path.with_name(f"{path.name}.json").write_bytes(b"{")
        (found,) = directories.all()
        assert (found.id, found.uses) == ("", 0)
        async with directories.use(SHARED):
            pass
        assert [(one.id, one.uses) for one in directories.all()] == [("c", 1)]

    asyncio.run(run())
