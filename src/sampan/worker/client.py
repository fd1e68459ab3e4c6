"""sampand's side of the workers: start the zygote, give it jobs, a few at a time, wait for their answers.

A job that fails, whatever its messages are, fails alone: the zygote and everybody else's jobs live on.
"""

import asyncio
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import sampan
from sampan.errors import EngineError, InvalidArgument, NotFound, SystemFailure
from sampan.readiness import readable
from sampan.worker import wire

Progress = Callable[[dict[str, Any]], None]


class Gone(SystemFailure):
    """The container that a job was to look into has just ended: nothing was done."""


class Damaged(SystemFailure):
    """What is stored of a layer is not what was unpacked."""


_KINDS: dict[wire.Kind, type[EngineError]] = {
    wire.Kind.INVALID: InvalidArgument,
    wire.Kind.MISSING: NotFound,
    wire.Kind.GONE: Gone,
    wire.Kind.SYSTEM: SystemFailure,
    wire.Kind.DAMAGED: Damaged,
}


def _ignore(_: dict[str, Any]) -> None:
    pass


_MAKE_LAYERS = frozenset(("unpack", "index"))
"""Jobs that may need much memory: each up to confine.MEMORY_MAX."""
TURN_SECONDS = 120.0
"""A layer that takes longer than this waits for somebody (a client that sends slowly), and no longer keeps others from their turn."""
IDLE_SECONDS = 15.0
"""How long the zygote stays when there is nothing to do: it is 7 MB, and starts in less than 0.1 s."""


class WorkerPool:
    """Runs jobs in children of a warm zygote, which is started by the first of them and ends when there has been none for a while."""

    def __init__(self, *, python: str = sys.executable, parallel: int | None = None, idle_seconds: float = IDLE_SECONDS) -> None:
        """parallel: jobs at a time; default: the number of CPUs, 2 to 8."""
        self._python = python
        self.parallel = parallel or min(max(os.cpu_count() or 2, 2), 8)
        self._slots = asyncio.Semaphore(self.parallel)
        self._layers = asyncio.Semaphore(self.parallel)
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
            environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
            # -I and no -m: the current directory and what the environment names are no places to load modules from
            program = f"import sys; sys.path.insert(0, {package_root!r}); from sampan.worker.main import main; main({self.parallel})"
            try:
                # not asyncio's subprocess: its transports outlive a closed loop, and warn when they are collected
                command = [self._python, "-I", "-c", program]
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
            self._ending = asyncio.ensure_future(self._end_when_idle())

    async def _end_when_idle(self) -> None:
        async with self._starting:
            if not self._jobs:  # one may have begun since: it counts itself before it asks for a zygote
                await self._end()

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

        But those that make a layer, whoever asks for it, take a turn for TURN_SECONDS at most: together they have a bound on memory.
        progress is told what the job says of itself. Raises NotFound and Gone as well.
        """
        async with _Turn(self._layers) if name in _MAKE_LAYERS else nullcontext():
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
        reply, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        reply.setblocking(False)
        with reply:
            with theirs:
                await self._submit(name, args, [theirs.fileno(), *fds])
            job = _Job(name, reply)
            try:
                return await job.result(progress)
            except BaseException:
                await job.end()
                raise
            finally:
                job.close()

    async def _submit(self, name: str, args: dict[str, Any], fds: list[int]) -> None:
        """Send a job; to a new zygote if the one we had turns out to be dead. Raises SystemFailure."""
        message: dict[str, Any] = {"name": name, "args": args}
        spilled = -1
        try:
            if len(wire.encoded(message)) > wire.MAX_PACKET:
                spilled = wire.spilled(args)
                del message["args"]
                message["spilled"] = True
                fds = [fds[0], spilled, *fds[1:]]
            if not await self._send(message, fds):
                await self.start()
                if not await self._send(message, fds):
                    raise SystemFailure("the worker process is gone")
        except (wire.BadMessage, OSError) as error:  # of this job alone: the zygote has not seen it
            raise SystemFailure(f"cannot begin the job {name}: {error}") from None
        finally:
            if spilled >= 0:
                os.close(spilled)

    async def _send(self, message: dict[str, Any], fds: list[int]) -> bool:
        """Give the zygote a message; False when there is no zygote any more. Raises BadMessage, OSError: it lives, but has got nothing."""
        for _ in range(1000):
            if self._control is None:
                return False
            try:
                wire.send(self._control, message, fds)
                return True
            except BlockingIOError:
                await asyncio.sleep(0.01)
            except ConnectionError:
                self._drop()
                return False
        raise OSError(errno.EAGAIN, "the worker process does not answer")


class _Turn:
    """A turn among a few, given back when the block is left or after TURN_SECONDS, whichever comes first."""

    def __init__(self, turns: asyncio.Semaphore) -> None:
        self._turns = turns
        self._timer: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> None:
        await self._turns.acquire()
        self._timer = asyncio.get_running_loop().call_later(TURN_SECONDS, self._give_back)

    async def __aexit__(self, *_: object) -> None:
        self._give_back()

    def _give_back(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._turns.release()


class _Job:
    """One job under way: our end of its reply socket, and a pidfd of its process once that has told."""

    def __init__(self, name: str, reply: socket.socket) -> None:
        self._name = name
        self._reply = reply
        self._pidfd = -1
        self._ending = False

    async def result(self, progress: Progress) -> dict[str, Any]:
        """What it comes to. Raises what the job says, SystemFailure when it died or says nothing that can be understood."""
        while True:
            await readable(self._reply.fileno())
            try:
                message = self._next()
                if message is None:
                    raise SystemFailure(f"the worker died in the job {self._name}")
                if "error" in message:
                    raise _KINDS[wire.Kind(message["error"]["kind"])](str(message["error"]["message"]))
                if "result" in message:
                    result: dict[str, Any] = message["result"]
                    return result
            except (ValueError, KeyError, TypeError) as error:
                raise SystemFailure(f"the job {self._name} gave no answer that can be understood: {error!r}") from None
            if "progress" in message:
                progress(message["progress"])

    def _next(self) -> dict[str, Any] | None:
        """The next message, or None when every holder of the other end is gone. Raises BadMessage."""
        received = wire.recv(self._reply)
        if received is None:
            return None
        message, fds = received
        if "started" in message and fds and self._pidfd < 0:
            self._pidfd = fds.pop(0)
            if self._ending:
                self._kill()
        for fd in fds:
            os.close(fd)
        return message

    def _kill(self) -> None:
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def end(self) -> None:
        """Kill it, also when the zygote is dead; returns, however often it is cancelled, once nobody holds the other end any more."""
        self._ending = True
        self._kill()

        async def drained() -> None:
            while True:
                await readable(self._reply.fileno())
                with suppress(wire.BadMessage):
                    if self._next() is None:
                        return

        task = asyncio.ensure_future(drained())
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.shield(task)

    def close(self) -> None:
        """Give the pidfd back; the socket is its maker's."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1
