"""The workers: what they give up, what their deaths do to others, nothing left behind."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sampan.errors import InvalidArgument, SystemFailure
from sampan.linux import seccomp, seccomp_bpf
from sampan.worker import client, confine, jobs
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


def root_of(pid: str) -> str:
    """A process's root; "" when it has gone, as the zygote's trial of its filter does."""
    try:
        return os.readlink(f"/proc/{pid}/root")
    except FileNotFoundError:
        return ""


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
            if root_of(child) not in ("", "/"):
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
import os, resource, signal, socket, sys
from sampan.worker import confine
confine.compile_filter()
root = os.open(sys.argv[1], os.O_RDONLY)
other = os.getppid()
if sys.argv[2] == "nothing":
    confine.into_nothing(root)
elif sys.argv[2] == "root":
    confine.into_root(root, confine.EXTRACT)
else:
    confine.limit(confine.WRITE, confine.capabilities.bounding_set())
for attempt in (
    lambda: socket.socket(),
    lambda: os.execv("/bin/true", ["true"]),
    lambda: os.chroot("."),
    lambda: os.kill(other, 0),
    lambda: os.pidfd_open(other),
    lambda: resource.prlimit(other, resource.RLIMIT_NOFILE, (10, 10)),
    lambda: os.setpriority(os.PRIO_PROCESS, other, 10),
    lambda: os.sched_setaffinity(other, {0}),
):
    try:
        attempt()
    except PermissionError:
        print("refused")
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # its own
"""


@pytest.mark.parametrize("kind", ["nothing", "root", "view"])
def test_a_confined_worker_cannot_reach_others(tmp_path: Path, kind: str) -> None:
    command = [sys.executable, "-c", FORBIDDEN, str(tmp_path), kind]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "refused\n" * 8, done.stderr
    assert done.stderr == ""


def test_the_filters_names_are_system_calls() -> None:
    known = {name for table in seccomp_bpf.syscall_numbers().values() for name in table}
    assert set(confine._NEVER.split()) <= known


def test_a_machine_without_a_filter_is_told_of(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def refused(_program: bytes) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(confine, "_filters", [])
    monkeypatch.setattr(seccomp, "install", refused)
    confine.compile_filter()
    assert capfd.readouterr().err == "worker: no seccomp filter: [Errno 22] Invalid argument\n"
    assert confine._filters == []


@pytest.mark.parametrize(
    ("name", "keep"),
    [("usage", confine.READ), ("empty", confine.REMOVE), ("archive", confine.READ), ("unpack", confine.EXTRACT)],
)
def test_each_job_keeps_only_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, keep: tuple[str, ...]) -> None:
    class Seen(Exception):
        pass

    def into_root(_fd: int, kept: tuple[str, ...]) -> None:
        raise Seen(kept)

    monkeypatch.setattr(confine, "into_root", into_root)
    fd = os.open(tmp_path, os.O_RDONLY)
    archive = pipe_of(tar(("f", "f")))
    fds = {"unpack": [archive, fd, fd], "archive": [fd, fd, fd]}.get(name, [fd])
    with pytest.raises(Seen) as caught:
        jobs.JOBS[name]({"diff_id": ""}, fds)
    assert caught.value.args == (keep,)
    os.close(fd)
    os.close(archive)


def test_a_worker_imports_nothing_from_where_it_is() -> None:
    script = (
        "import sys\nfrom sampan.worker import confine, main\nconfine.forget_modules()\nassert sys.path == []\n"
        "try:\n    import this\nexcept ImportError:\n    print('no')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "no\n", done.stderr


def test_all_jobs_together_take_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def machine(gibibytes: int) -> None:
        monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": gibibytes << 18, "SC_PAGE_SIZE": 4096}.__getitem__)

    machine(8)
    assert confine.share_of_memory(8) == 512 << 20
    machine(256)
    assert confine.share_of_memory(8) == 2 << 30
    machine(1)
    assert confine.share_of_memory(4) == 256 << 20


def test_what_makes_layers_takes_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        workers = WorkerPool(parallel=1)
        first, second = tmp_path / "1", tmp_path / "2"
        first.mkdir()
        second.mkdir()
        directories = [os.open(path, os.O_RDONLY) for path in (first, second)]
        null = os.open(os.devnull, os.O_WRONLY)
        reader, writer = os.pipe()
        good = pipe_of(tar(("f", "f", "1")))
        slow = asyncio.ensure_future(workers.stream("unpack", {}, [reader, directories[0], null]))
        fast = asyncio.ensure_future(workers.stream("unpack", {}, [good, directories[1], null]))
        try:
            assert "size" in await workers.run("usage", {}, [directories[0]])
            assert not fast.done()
            if client.TURN_SECONDS > 10:
                os.close(writer)
                with pytest.raises(InvalidArgument, match="unexpected EOF"):
                    await slow
            assert "diff_id" in await fast  # when the turn is over, or has lasted too long
            slow.cancel()
            await asyncio.gather(slow, return_exceptions=True)
        finally:
            await workers.stop()
            for fd in (*directories, null, reader, good, *([writer] if client.TURN_SECONDS <= 10 else [])):
                os.close(fd)

    for seconds in (100.0, 1.0):
        monkeypatch.setattr(client, "TURN_SECONDS", seconds)
        asyncio.run(asyncio.wait_for(body(), 30))
        for path in (tmp_path / "1", tmp_path / "2"):
            shutil.rmtree(path)


def test_what_costs_too_much_is_ended() -> None:
    script = (
        "from sampan.worker.budget import Budget, TooMuchWork\nbudget = Budget(1)\n"
        "def spin():\n    while True: sum(range(1000))\ntry: spin()\nexcept TooMuchWork: print('ended')\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "ended\n", done.stderr


def test_what_reads_much_may_compute_more() -> None:
    script = (
        "import resource\nfrom sampan.worker.budget import Budget, STEP\nbudget = Budget(10)\n"
        "read = budget.metered(lambda limit: bytes(STEP // 4))\n"
        "for _ in range(9): read(1)\nprint(resource.getrlimit(resource.RLIMIT_CPU)[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "30\n", done.stderr
