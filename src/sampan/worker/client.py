"""sampand's side of the workers: start the zygote, give it jobs, a few at a time, wait for their answers."""

import asyncio
import itertools
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import sampan
from sampan.errors import EngineError, InvalidArgument, NotFound, SystemFailure
from sampan.readiness import readable
from sampan.worker import wire

Progress = Callable[[dict[str, Any]], None]


class Gone(SystemFailure):
    """The container that a job was to look into has just ended: nothing was done."""


_KINDS: dict[str, type[EngineError]] = {"invalid": InvalidArgument, "missing": NotFound, "gone": Gone}


def _ignore(_: dict[str, Any]) -> None:
    pass


IDLE_SECONDS = 15.0
"""How long the zygote stays when there is nothing to do: it is 7 MB, and starts in less than 0.1 s."""


class WorkerPool:
    """Runs jobs in children of a warm zygote, which is started by the first of them and ends when there has been none for a while."""

    def __init__(self, *, python: str = sys.executable, parallel: int | None = None, idle_seconds: float = IDLE_SECONDS) -> None:
        """parallel: jobs at a time; default: the number of CPUs, 2 to 8."""
        self._python = python
        self.parallel = parallel or min(max(os.cpu_count() or 2, 2), 8)
        self._slots = asyncio.Semaphore(self.parallel)
        self._numbers = itertools.count(1)
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = asyncio.Lock()
        self._idle_seconds = idle_seconds
        self._jobs = 0
        self._idle: asyncio.TimerHandle | None = None
        self._ending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the zygote, if it does not run. Raises SystemFailure."""
        async with self._starting:
            if self._process is not None and self._process.poll() is None and self._control is not None:
                return
            await self._end()
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            package_root = str(Path(sampan.__path__[0]).parent)
            environment = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONPATH": package_root, "LC_ALL": "C.UTF-8"}
            try:
                # not asyncio's subprocess: its transports outlive a closed loop, and warn when they are collected
                command = [self._python, "-m", "sampan.worker.main"]
                self._process = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=environment, cwd="/")  # noqa: ASYNC220
            except OSError as error:
                ours.close()
                raise SystemFailure(f"cannot start the worker process: {error}") from error
            finally:
                theirs.close()
            ours.setblocking(False)
            self._control = ours

    async def stop(self) -> None:
        """End the zygote and every job. May be called twice."""
        if self._idle is not None:
            self._idle.cancel()
        async with self._starting:
            await self._end()

    def _end_if_idle(self) -> None:
        if not self._jobs:
            self._ending = asyncio.ensure_future(self.stop())

    async def _end(self) -> None:
        """Close the control socket, at which the zygote ends, and wait for that."""
        self._drop()
        if self._process is None:
            return
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                pidfd = os.pidfd_open(self._process.pid)
                try:
                    await readable(pidfd)
                finally:
                    os.close(pidfd)
        self._process.wait()
        self._process = None

    def _drop(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None

    async def run(self, name: str, args: dict[str, Any], fds: Sequence[int]) -> dict[str, Any]:
        """Do one job; the descriptors stay the caller's. When cancelled it returns only once the job has really ended.

        Raises InvalidArgument for what the job refused, SystemFailure for what the machine refused or when the worker died.
        """
        async with self._slots:
            return await self._run(name, args, fds, _ignore)

    async def stream(self, name: str, args: dict[str, Any], fds: Sequence[int], progress: Progress = _ignore) -> dict[str, Any]:
        """As run(), for a job at somebody else's pace (a client that reads, another job): it waits for no turn and takes none.

        progress is told what the job says of itself. Raises NotFound and Gone as well.
        """
        return await self._run(name, args, fds, progress)

    async def _run(self, name: str, args: dict[str, Any], fds: Sequence[int], progress: Progress) -> dict[str, Any]:
        self._jobs += 1
        if self._idle is not None:
            self._idle.cancel()
        try:
            return await self._run_job(name, args, fds, progress)
        finally:
            self._jobs -= 1
            if not self._jobs:
                self._idle = asyncio.get_running_loop().call_later(self._idle_seconds, self._end_if_idle)

    async def _run_job(self, name: str, args: dict[str, Any], fds: Sequence[int], progress: Progress) -> dict[str, Any]:
        await self.start()
        number = next(self._numbers)
        reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with reply:
            reply.setblocking(False)
            with theirs:
                await self._submit({"job": number, "name": name, "args": args}, [theirs.fileno(), *fds])
            try:
                answer = await self._answer(reply, progress)
            except asyncio.CancelledError:
                with suppress(OSError, SystemFailure):
                    await self._send({"cancel": number}, [])
                await self._end_of(reply)
                raise
        if answer is None:
            raise SystemFailure(f"the worker died in the job {name}")
        if "error" in answer:
            raise _KINDS.get(answer["error"]["kind"], SystemFailure)(answer["error"]["message"])
        result: dict[str, Any] = answer["result"]
        return result

    async def _submit(self, message: dict[str, Any], fds: list[int]) -> None:
        """Send a job; to a new zygote if the one we had turns out to be dead."""
        try:
            await self._send(message, fds)
        except SystemFailure:
            await self.start()
            await self._send(message, fds)

    async def _send(self, message: dict[str, Any], fds: list[int]) -> None:
        for _ in range(1000):
            if self._control is None:
                break
            try:
                wire.send(self._control, message, fds)
                return
            except BlockingIOError:
                await asyncio.sleep(0.01)
            except OSError:
                break
        self._drop()
        raise SystemFailure("the worker process is gone")

    @staticmethod
    async def _answer(reply: socket.socket, progress: Progress) -> dict[str, Any] | None:
        """The job's last word, or None when it died without one."""
        while True:
            await readable(reply.fileno())
            received = wire.recv(reply)
            if received is None:
                return None
            message, fds = received
            for fd in fds:
                os.close(fd)
            if "result" in message or "error" in message:
                return message
            progress(message["progress"])

    async def _end_of(self, reply: socket.socket) -> None:
        """Wait, shielded from further cancelling, until every holder of the other end is gone."""

        async def drained() -> None:
            while await self._answer(reply, _ignore) is not None:
                pass

        task = asyncio.ensure_future(drained())
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(task)
