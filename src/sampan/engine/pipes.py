"""Pipes between sampand and its workers: a stream of pieces into one, a job's output out of one."""

import asyncio
import fcntl
import os
import termios
from array import array
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from sampan.errors import EngineError
from sampan.readiness import readable, writable, write_all
from sampan.streams import InPipe, Piece, Pourable

T = TypeVar("T")
PIPE_BYTES = 1 << 20


def wide_pipe() -> tuple[int, int]:
    """(read end, write end) of a pipe of 1 MiB, if this user may have it."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with suppress(OSError):
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reader, writer


def _closing(work: Coroutine[Any, Any, T], writer: int) -> asyncio.Task[T]:
    """The work as a task, after which the pipe's write end is closed: also when it is cancelled before it has begun."""
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(lambda _: os.close(writer))
    return task


async def through_pipe(write: Callable[[int], Awaitable[object]], read: Callable[[int], Awaitable[T]]) -> T:
    """What read() makes of what write() writes, each given its end of a pipe. Both are over when this returns.

    Raises what write() raised, even when read() was content: half a stream may look like a whole one, and what came of it is the
    caller's to drop. Else what read() raised.
    """
    reader, writer = wide_pipe()

    async def begin() -> None:
        await write(writer)

    writing = _closing(begin(), writer)
    try:
        result = await read(reader)
    except BaseException:
        writing.cancel()
        with suppress(asyncio.CancelledError):
            await writing
        raise
    finally:
        os.close(reader)
    await writing
    return result


def feed(source: AsyncIterable[bytes] | Pourable) -> Callable[[int], Awaitable[None]]:
    """For through_pipe: write all of source. Ends early when nobody reads any more; the rest is left unread."""

    async def write(writer: int) -> None:
        os.set_blocking(writer, False)
        if isinstance(source, Pourable):
            await source.pour(writer)
            return
        async for piece in source:
            try:
                await write_all(writer, piece)
            except BrokenPipeError:
                return

    return write


class Resumed:
    """A source some of which was read already: that comes first."""

    def __init__(self, head: bytes, rest: AsyncIterable[bytes] | Pourable | None = None) -> None:
        self._head = head
        self._rest = rest

    async def pour(self, pipe: int) -> None:
        """See streams.Pourable."""
        os.set_blocking(pipe, False)
        try:
            await write_all(pipe, self._head)
        except BrokenPipeError:
            return
        if self._rest is not None:
            await feed(self._rest)(pipe)


async def give_from(file: int, offset: int, count: int, writer: int) -> int:
    """Move bytes of a file into a pipe, as many as it takes at once, without copying them here. Returns how many; 0: nobody reads."""
    os.set_blocking(writer, False)
    while True:
        try:
            return os.sendfile(writer, file, offset, count)
        except BrokenPipeError:
            return 0
        except BlockingIOError:
            await writable(writer)


class WorkerStream:
    """What a job writes into a pipe, as pieces. A job that still runs when it is closed is ended."""

    def __init__(self, run: Callable[[int], Coroutine[Any, Any, dict[str, Any]]]) -> None:
        """run: the job, given the pipe's write end, which is closed after it."""
        self._reader, writer = wide_pipe()
        os.set_blocking(self._reader, False)

        async def begin() -> dict[str, Any]:
            return await run(writer)

        self.task = _closing(begin(), writer)

    async def pieces(self) -> AsyncIterator[Piece]:
        """All it writes, left in the pipe for whoever takes it. Raises what the job raises, after what it wrote."""
        try:
            size = array("i", [1])
            while size[0]:
                await readable(self._reader)
                fcntl.ioctl(self._reader, termios.FIONREAD, size)
                if size[0]:  # else it is readable because it has ended
                    yield InPipe(self._reader, size[0])
            await self.task
        finally:
            await self.close()

    async def close(self) -> None:
        """End the job and close the pipe."""
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1
        self.task.cancel()
        with suppress(asyncio.CancelledError, EngineError):
            await self.task
