"""Messages that are too large, cut or no messages at all fail one job; the zygote and other jobs live on."""

import asyncio
import contextlib
import os
import select
import signal
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from sampan.errors import SystemFailure
from sampan.worker import main, wire
from sampan.worker.client import WorkerPool
from tests.unit.worker.test_workers import blocked_job, run

pytestmark = pytest.mark.root


def beside_another(body: Callable[[WorkerPool, int], Awaitable[None]], path: Path) -> None:
    """Run body while somebody else's job is under way, which then ends well, by the same zygote."""

    async def whole(workers: WorkerPool) -> None:
        target = path / "others"
        target.mkdir()
        directory, others = os.open(path, os.O_RDONLY), os.open(target, os.O_RDONLY)
        task, writer, _ = await blocked_job(workers, others)
        zygote = workers._process
        await body(workers, directory)
        assert workers._process is zygote
        os.write(writer, bytes(1024 + 424))
        os.close(writer)
        assert "diff_id" in await task  # type: ignore[operator]
        os.close(directory)
        os.close(others)

    run(whole)


def test_arguments_of_any_length_reach_the_job(tmp_path: Path) -> None:
    async def body(workers: WorkerPool, directory: int) -> None:
        args = {"diff_id": "ä" * 300_000}
        assert "size" in await workers.run("usage", args, [directory])

    beside_another(body, tmp_path)


def test_too_much_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async def body(workers: WorkerPool, directory: int) -> None:
        with pytest.raises(SystemFailure, match="bytes of arguments are too many"):
            await workers.run("usage", {"text": "x" * (17 << 20)}, [directory])
        with pytest.raises(SystemFailure, match="301 descriptors are too many"):
            await workers.run("usage", {}, [directory] * 300)
        with pytest.raises(SystemFailure, match="cannot begin the job usage"):
            await workers.run("usage", {"text": "\ud800"}, [directory])

    beside_another(body, tmp_path)


@pytest.mark.parametrize("packet", [b"x" * 150_000, b"{", b"[" * 100_000, b"3", b"\xff", b"{}"])
def test_a_bad_packet_does_not_end_the_zygote(tmp_path: Path, packet: bytes) -> None:
    async def body(workers: WorkerPool, directory: int) -> None:
        assert workers._control is not None
        reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        socket.send_fds(workers._control, [packet], [theirs.fileno()])
        theirs.close()
        reply.settimeout(20)
        while reply.recv(4096):  # until nobody holds the other end
            pass
        reply.close()
        assert "size" in await workers.run("usage", {}, [directory])

    beside_another(body, tmp_path)


def test_a_job_that_cannot_be_forked_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", no_fork)
    control, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with control, ours, reply, theirs:
        wire.send(ours, {"name": "usage", "args": {}}, [theirs.fileno()])
        assert main.Zygote(control, 1 << 30)._serve()
        received = wire.recv(reply)
        assert received is not None
        assert received[0]["error"] == {"kind": "system", "message": "cannot begin the job: Resource temporarily unavailable"}


def test_an_answer_that_is_too_long_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(main.JOBS, "usage", lambda _args, _fds: {"text": "x" * 200_000})
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        main._answer({"name": "usage", "args": {}}, [], theirs)
        received = wire.recv(ours)
        assert received is not None
        assert "too long" in received[0]["error"]["message"]


def test_names_that_are_not_utf8_take_no_more_room() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        text = os.fsdecode(b"\xff" * 100_000)
        wire.send(ours, {"progress": text})
        assert wire.recv(theirs) == ({"progress": text}, [])


def test_a_job_that_comes_as_the_pool_goes_to_rest(tmp_path: Path) -> None:
    async def body(workers: WorkerPool) -> None:
        directory = os.open(tmp_path, os.O_RDONLY)
        for _ in range(5):
            await workers.run("usage", {}, [directory])
            workers._end_if_idle()
            assert "size" in await workers.run("usage", {}, [directory])
        os.close(directory)

    run(body)


def test_a_job_is_ended_while_the_zygote_stands_still(tmp_path: Path) -> None:
    async def body(workers: WorkerPool) -> None:
        directory = os.open(tmp_path, os.O_RDONLY)
        task, writer, _ = await blocked_job(workers, directory)
        assert workers._process is not None
        os.kill(workers._process.pid, signal.SIGSTOP)
        try:
            task.cancel()
            await asyncio.wait([task], timeout=10)
            assert task.cancelled()
        finally:
            os.kill(workers._process.pid, signal.SIGCONT)
            os.close(writer)
            os.close(directory)

    run(body)


def children_of(pid: int) -> list[int]:
    found = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return found + [below for child in found for below in children_of(child)]


def test_who_has_become_nobody_ends_with_the_zygote(tmp_path: Path) -> None:
    async def body(workers: WorkerPool) -> None:
        directory = os.open(tmp_path, os.O_RDONLY)
        output = os.open(tmp_path / "layer", os.O_RDWR | os.O_CREAT)
        reader, writer = os.pipe()
        os.write(writer, b"\x1f\x8b\x08\0\0\0\0\0\0\0")  # a gzip stream that goes no further
        task = asyncio.ensure_future(workers.stream("index", {}, [reader, output, directory]))
        pids: list[int] = []
        while sum(map(is_nobody, pids)) < 2:
            await asyncio.sleep(0.01)
            pids = children_of(workers._process.pid) if workers._process is not None else []
        ends = [os.pidfd_open(pid) for pid in pids]
        assert workers._process is not None
        os.kill(workers._process.pid, signal.SIGKILL)
        with pytest.raises(SystemFailure, match="the worker died"):
            await task
        for end in ends:
            await asyncio.to_thread(signal_wait, end)
        for fd in (directory, output, reader, writer):
            os.close(fd)

    run(body)


def test_the_child_that_waits_for_the_next_job(tmp_path: Path) -> None:
    """It holds nothing of the job that runs; if it is killed, another one takes its place."""

    async def body(workers: WorkerPool) -> None:
        directory = os.open(tmp_path, os.O_RDONLY)
        task, writer, _ = await blocked_job(workers, directory)
        assert workers._process is not None
        waiting: list[int] = []
        while not waiting:
            await asyncio.sleep(0.01)
            waiting = [pid for pid in children_of(workers._process.pid) if targets_of(pid) == ["/dev/null", "its own", "socket"]]
        for pid in waiting:
            end = os.pidfd_open(pid)
            os.kill(pid, signal.SIGKILL)
            await asyncio.to_thread(signal_wait, end)
        assert "size" in await workers.run("usage", {}, [directory])
        assert "size" in await workers.run("usage", {}, [directory])
        task.cancel()
        await asyncio.wait([task], timeout=10)
        os.close(writer)
        os.close(directory)

    run(body)


def targets_of(pid: int) -> list[str]:
    """What a process has open beside its standard output and error; its own: a pidfd."""
    found = []
    with contextlib.suppress(OSError):
        found = [os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")[0] for fd in os.listdir(f"/proc/{pid}/fd") if fd not in "12"]
    return sorted("its own" if target in ("pidfd", "anon_inode") else target for target in found)


def is_nobody(pid: int) -> bool:
    return "Uid:\t65534" in Path(f"/proc/{pid}/status").read_text()


def signal_wait(pidfd: int) -> None:
    """Until the process has ended; by the time limit of the test."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    assert poll.poll(10_000), "it lives on"
    os.close(pidfd)
