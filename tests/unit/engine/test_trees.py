"""Jobs on containers' trees: what they are given, and that it is given back."""

import asyncio
import contextlib
import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sampan.engine.trees import Trees
from sampan.snapshot.api import Mounts
from sampan.worker import tree_jobs
from sampan.worker.needs import NEEDS


class Workers:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.views: list[dict[str, Any]] = []

    async def stream(self, job: str, args: dict[str, Any], fds: list[int], progress: object) -> dict[str, Any]:
        self.views.append(args["view"])
        return {}


def trees(workers: Workers) -> Trees:
    async def mounts(key: str) -> Mounts:
        return Mounts(("/a", "/b"), f"/upper/{key}", f"/work/{key}")

    snapshots = SimpleNamespace(upper=lambda key: f"/upper/{key}", mounts=mounts)
    return Trees(cast("Any", snapshots), cast("Any", workers), cast("Any", None), lambda _: [])


def container(pidfd: int) -> Any:
    return SimpleNamespace(
        id="c",
        is_running=True,
        removing=False,
        live=SimpleNamespace(pidfd=pidfd),
        state=SimpleNamespace(pid=1, user_maps=None),
        host_config=None,
    )


def test_a_job_that_is_ended_before_it_began_keeps_no_descriptor() -> None:
    async def body() -> None:
        pidfd = os.pidfd_open(os.getpid())
        before = os.listdir("/proc/self/fd")
        task = await trees(Workers())._begin(container(pidfd), "path_stat", {}, [], lambda _: None)
        assert len(os.listdir("/proc/self/fd")) == len(before) + 1
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await asyncio.sleep(0)
        assert len(os.listdir("/proc/self/fd")) == len(before)
        os.close(pidfd)

    asyncio.run(body())


@pytest.mark.parametrize(("job", "enters"), [("path_stat", True), ("tree_export", True), ("tree_diff", False)])
def test_a_job_is_given_what_it_needs(job: str, enters: bool) -> None:
    async def body() -> None:
        workers = Workers()
        pidfd = os.pidfd_open(os.getpid())
        await trees(workers).run(container(pidfd), job, {}, [])
        assert ("pidfd" in workers.views[0]) == enters
        assert "binds" not in workers.views[0]
        os.close(pidfd)

    asyncio.run(body())


def test_every_job_says_what_it_needs() -> None:
    assert set(NEEDS) == set(tree_jobs.JOBS) - {"tree_pack"}  # it is given a directory
