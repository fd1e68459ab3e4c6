"""Bytes between a client's hijacked connection and a process: stdin with half-close and detach keys, output in frames."""

import asyncio
import contextlib
import fcntl
import os
import struct
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

from sampan.errors import InvalidArgument
from sampan.readiness import readable, writable, write_all
from sampan.streams import Duplex

DEFAULT_DETACH = b"\x10\x11"
"""ctrl-p, ctrl-q"""
READ = 128 * 1024
PIPE_SIZE = 256 * 1024


def detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q`, `a,b` ... as bytes; "" is the default. Raises InvalidArgument in docker's words."""
    if not text:
        return DEFAULT_DETACH
    result = bytearray()
    for word in text.split(","):
        if len(word) == 1:
            result += word.encode("latin-1", "replace")
        elif word.startswith("ctrl-") and len(word) == 6 and (word[5].isalpha() or word[5] in "@[\\]^_"):
            result.append(ord(word[5].upper()) & 0x1F)
        else:
            raise InvalidArgument(f"Invalid detach keys ({text}) provided")
    return bytes(result)


class DetachScanner:
    """Finds the detach sequence in a stream; bytes that may be its beginning are held back until it is known."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(bytes to pass on, whether the sequence was completed: the rest is dropped)."""
        out = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    return bytes(out), True
                continue
            if self._matched:
                out += self._keys[: self._matched]
                self._matched = 1 if byte == self._keys[0] else 0
                if self._matched:
                    continue
            out.append(byte)
        return bytes(out), False


async def splice_some(source: int, pipe: int) -> int:
    """Move bytes of a readable socket into a pipe without copying them; 0 at the socket's end. Raises BrokenPipeError, OSError."""
    while True:
        try:
            return os.splice(source, pipe, PIPE_SIZE, flags=os.SPLICE_F_NONBLOCK)
        except BlockingIOError:
            if fcntl.fcntl(pipe, fcntl.F_GETPIPE_SZ) < PIPE_SIZE:
                # Much is coming: fewer, longer turns. Refused where the user's share of pipes is used up.
                with contextlib.suppress(OSError):
                    fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_SIZE)
            await writable(pipe)


async def read_some(fd: int) -> bytes:
    """Read what a non-blocking descriptor has, waiting for the first byte; b"" at the end (EIO of a closed terminal included)."""
    while True:
        try:
            return os.read(fd, READ)
        except BlockingIOError:
            await readable(fd)
        except OSError:
            return b""


_FRAME = struct.Struct(">BxxxI")


def multiplex(stream: int, data: bytes) -> bytes:
    """docker's frame of an attached stream: number, length, data."""
    return _FRAME.pack(stream, len(data)) + data


async def _into(fd: Callable[[], int | None], write: Callable[[int], Awaitable[int]]) -> int | None:
    """Run write() on the process's side; None when that is gone."""
    target = fd()
    if target is None:
        return None
    try:
        # A descriptor of our own: the process's end closes the other while we may be waiting to write.
        own = os.dup(target)
        try:
            return await write(own)
        finally:
            os.close(own)
    except OSError:
        return None


def _write(data: bytes, fd: int) -> Awaitable[int]:
    return write_all(fd, data)


async def pump_input(
    stream: Duplex, fd: Callable[[], int | None], scanner: DetachScanner | None, on_eof: Callable[[], Awaitable[None]]
) -> bool:
    """Client to process until the client ends its side, the process is gone, or the detach keys come (True)."""
    while True:
        source = await stream.readable() if scanner is None else -1
        if source >= 0:
            moved = await _into(fd, partial(splice_some, source))
            if moved is None:
                return False
            if moved:
                continue
        data = await stream.recv(READ)
        if not data:
            await on_eof()
            return False
        detached = False
        if scanner is not None:
            data, detached = scanner.feed(data)
        if data and await _into(fd, partial(_write, data)) is None:
            return detached
        if detached:
            return True


async def converse(stream: Duplex, output: Awaitable[None], taking: Awaitable[bool] | None) -> Literal["ended", "left", "detached"]:
    """Run both directions of an attached stream until the output has ended, the client leaves, or its detach keys come.

    output: sends everything. taking: see pump_input; the end of the client's input alone ends nothing. Raises what output raises.
    """
    sending, gone = asyncio.ensure_future(output), asyncio.ensure_future(stream.wait_closed())
    tasks: set[asyncio.Future[Any]] = {sending, gone}
    if taking is not None:
        tasks.add(receiving := asyncio.ensure_future(taking))
    try:
        while not sending.done() and not gone.done():
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if taking is not None and receiving in tasks and receiving.done():
                tasks.discard(receiving)
                if receiving.exception() is None and receiving.result():
                    return "detached"
        if not sending.done():
            return "left"
        sending.result()
        return "ended"
    finally:
        everything = [sending, gone, *([receiving] if taking is not None else [])]
        for task in everything:
            task.cancel()
        await asyncio.gather(*everything, return_exceptions=True)


async def pump_output(stream: Duplex, fd: int, kind: int | None) -> None:
    """Process to client until the process's side ends. kind: the frame's stream number, None: raw (a tty)."""
    while data := await read_some(fd):
        with contextlib.suppress(ConnectionError):
            await stream.send(data if kind is None else multiplex(kind, data))
