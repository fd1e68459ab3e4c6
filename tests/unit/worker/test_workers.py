"""The workers: what they give up, what their deaths do to others, nothing left behind."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sampan.errors import SystemFailure
from sampan.worker.client import WorkerPool
from tests.support.tars import pipe_of, tar

pytestmark = pytest.mark.root


def run(body: Callable[[WorkerPool], Awaitable[None]]) -> None:
    async def whole() -> None:
        workers = WorkerPool(parallel=4)
        try:
            await asyncio.wait_for(body(workers), 30)
        finally:
            await workers.stop()

    asyncio.run(whole())


async def blocked_job(workers: WorkerPool, directory: int) -> tuple["asyncio.Task[object]", int, int]:
    """An unpack that waits for its archive, the pipe's write end and the PID of its process."""
    reader, writer = os.pipe()
    os.write(writer, tar(("f", "x", "1"))[:600])
    null = os.open(os.devnull, os.O_WRONLY)
    task: asyncio.Task[object] = asyncio.ensure_future(workers.run("unpack", {}, [reader, directory, null]))
    while True:
        await asyncio.sleep(0.01)
        zygote = workers._process.pid if workers._process is not None else 0
        children = Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split() if zygote else []
        # confined: its root is the directory it fills
        for child in children:
            if os.readlink(f"/proc/{child}/root") != "/":
                os.close(reader)
                os.close(null)
                return task, writer, int(child)


def status_of(pid: int) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def test_an_idle_zygote_ends_and_the_next_job_starts_another(tmp_path: Path) -> None:
    async def body() -> None:
        workers = WorkerPool(idle_seconds=0.05)
        directory = os.open(tmp_path, os.O_RDONLY)
        try:
            assert (await workers.run("usage", {}, [directory]))["size"] == 0
            first = workers._process
            assert first is not None
            while workers._process is not None:  # noqa: ASYNC110 - nothing tells of it
                await asyncio.sleep(0.01)
            assert first.returncode is not None
            assert (await workers.run("usage", {}, [directory]))["size"] == 0
        finally:
            os.close(directory)
            await workers.stop()

    asyncio.run(asyncio.wait_for(body(), 30))


def test_a_worker_is_confined(tmp_path: Path) -> None:
    async def body(workers: WorkerPool) -> None:
        directory = os.open(tmp_path, os.O_RDONLY)
        task, writer, pid = await blocked_job(workers, directory)
        # The filter is the last thing it does to itself.
        while status_of(pid)["Seccomp"] != "2":  # noqa: ASYNC110 - another process's state has no event
            await asyncio.sleep(0.01)
        assert os.readlink(f"/proc/{pid}/root") == str(tmp_path)
        assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
        kept = int(status_of(pid)["CapEff"], 16)
        assert status_of(pid)["NoNewPrivs"] == "1"
        for dropped in (2, 12, 16, 18, 19, 22):  # DAC_READ_SEARCH NET_ADMIN SYS_MODULE SYS_CHROOT SYS_PTRACE SYS_BOOT
            assert not kept >> dropped & 1
        # the standard three, the answer socket, archive, directory, recipe, and what is being written
        assert len(os.listdir(f"/proc/{pid}/fd")) <= 9
        os.close(writer)
        await asyncio.gather(task, return_exceptions=True)
        os.close(directory)

    run(body)


def test_a_killed_worker_fails_its_own_job_only(tmp_path: Path) -> None:
    async def body(workers: WorkerPool) -> None:
        directory = os.open(tmp_path, os.O_RDONLY)
        task, writer, pid = await blocked_job(workers, directory)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(SystemFailure, match="the worker died in the job unpack"):
            await task
        assert "size" in await workers.run("usage", {}, [directory])
        os.close(writer)
        os.close(directory)

    run(body)


def test_a_killed_zygote_is_started_again(tmp_path: Path) -> None:
    async def body(workers: WorkerPool) -> None:
        directory = os.open(tmp_path, os.O_RDONLY)
        task, writer, _ = await blocked_job(workers, directory)
        process = workers._process
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(SystemFailure):
            await task
        assert "size" in await workers.run("usage", {}, [directory])
        os.close(writer)
        os.close(directory)

    run(body)


def test_a_cancelled_job_has_ended_when_run_returns(tmp_path: Path) -> None:
    async def body(workers: WorkerPool) -> None:
        directory = os.open(tmp_path, os.O_RDONLY)
        task, writer, pid = await blocked_job(workers, directory)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # on its way out of the kernel perhaps, but nothing is open any more through which it could write
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            assert os.listdir(f"/proc/{pid}/fd") == []
        os.close(writer)
        os.close(directory)

    run(body)


def descriptors() -> set[tuple[str, str]]:
    """This process's, with what they are of: others may go meanwhile, by the garbage collector."""
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


def test_no_descriptors_are_left(tmp_path: Path) -> None:
    async def body(workers: WorkerPool) -> None:
        directory = os.open(tmp_path, os.O_RDONLY)
        await workers.run("usage", {}, [directory])
        null = os.open(os.devnull, os.O_WRONLY)
        before = descriptors()
        for number in range(20):
            fd = pipe_of(tar(("f", f"x{number}", "1")))
            await workers.run("unpack", {}, [fd, directory, null])
            os.close(fd)
        assert descriptors() <= before
        os.close(null)
        os.close(directory)

    run(body)


FORBIDDEN = """
import os, socket, sys
from sampan.worker import confine
confine.compile_filter()
root = os.open(sys.argv[1], os.O_RDONLY)
(confine.into_nothing if sys.argv[2] == "nothing" else confine.into_root)(root)
for attempt in (lambda: socket.socket(), lambda: os.execv("/bin/true", ["true"]), lambda: os.chroot(".")):
    try:
        attempt()
    except PermissionError:
        print("refused")
"""


@pytest.mark.parametrize("kind", ["nothing", "root"])
def test_a_confined_worker_cannot_open_sockets_or_execute(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-c", FORBIDDEN, str(tmp_path), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "refused\n" * 3, done.stderr
