"""Reads a container's log segments: what there is, and what comes. The log is the buffer of `logs -f` and of attach."""

import asyncio
import os
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import msgspec

from sampan.clock import rfc3339_fixed
from sampan.runtime import logframe
from sampan.runtime.logframe import HEADER, MARKER, OVERHEAD, STDERR, STDOUT, Position

CHUNK = 1 << 20
_MUX = struct.Struct(">BxxxI")


class LogQuery(msgspec.Struct, frozen=True):
    """What a reader wants. Times in nanoseconds since the epoch, 0 = no bound; tail -1 = all lines."""

    stdout: bool = True
    stderr: bool = True
    since: int = 0
    until: int = 0
    tail: int = -1
    timestamps: bool = False
    details: str = ""
    multiplexed: bool = True

    @property
    def by_line(self) -> bool:
        """Whether lines matter; else whole chunks are passed on as they are."""
        return self.timestamps or bool(self.since) or bool(self.until) or self.tail >= 0 or bool(self.details)


class Follower(Protocol):
    """Tells of growth."""

    @property
    def ended(self) -> bool:
        """Whether the log is complete."""

    async def wait(self) -> None:
        """Return when something may be new."""

    def progress(self, position: Position) -> None:
        """Everything before position has been sent."""


class Frame(msgspec.Struct, frozen=True):
    """One read of the keeper's."""

    time_ns: int
    stream: int
    data: bytes


class Line(msgspec.Struct, frozen=True):
    """One line of one stream, with its newline if it has ended."""

    time_ns: int
    stream: int
    text: bytes


class SegmentReader:
    """Walks a directory's segments from a position on. Rotation may take segments away: then `lost` counts them."""

    def __init__(self, directory: str, position: Position | None = None) -> None:
        self._directory = directory
        present = logframe.segments(directory)
        self.number, self.offset = position if position is not None else (present[0] if present else 1, 0)
        self.lost = 0
        self._fd = -1

    @property
    def position(self) -> Position:
        """Where the next frame is."""
        return self.number, self.offset

    def _open(self) -> bool:
        if self._fd >= 0:
            return True
        present = [number for number in logframe.segments(self._directory) if number >= self.number]
        if not present:
            return False
        if present[0] > self.number:
            self.lost += present[0] - self.number
            self.number, self.offset = present[0], 0
        try:
            self._fd = os.open(f"{self._directory}/{logframe.segment_name(self.number)}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        return True

    def read(self) -> list[Frame]:
        """The next frames, about CHUNK bytes of them; [] at the end."""
        while self._open():
            block = os.pread(self._fd, CHUNK, self.offset)
            end = logframe.whole_length(block)
            if not end and len(block) == CHUNK:
                block = os.pread(self._fd, logframe.MAX_DATA + OVERHEAD, self.offset)
                end = logframe.whole_length(block)
            if end:
                self.offset += end
                return list(_frames(block, end))
            if not any(number > self.number for number in logframe.segments(self._directory)):
                return []
            # A newer segment exists, so this one is complete; it may have grown since the read above.
            if os.fstat(self._fd).st_size >= self.offset + OVERHEAD and logframe.whole_length(os.pread(self._fd, CHUNK, self.offset)):
                continue
            self.close()
            self.number, self.offset = self.number + 1, 0
        return []

    def close(self) -> None:
        """Close the segment. May be called twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _frames(block: bytes, end: int) -> Iterator[Frame]:
    position = 0
    while position < end:
        time_ns, stream, length = HEADER.unpack_from(block, position)
        start = position + HEADER.size
        yield Frame(time_ns, stream, block[start : start + length])
        position = start + length + 4


def wanted(frame: Frame | Line, query: LogQuery) -> bool:
    """Whether the query has asked for its stream; markers of the engine go to whoever reads."""
    return (frame.stream == STDOUT and query.stdout) or (frame.stream == STDERR and query.stderr) or frame.stream == MARKER


def multiplex(stream: int, data: bytes) -> bytes:
    """docker's frame: stream, length, data."""
    return _MUX.pack(STDERR if stream == MARKER else stream, len(data)) + data


def render(frames: list[Frame], query: LogQuery) -> bytes:
    """Whole frames as the client gets them; frames of one stream that follow each other become one."""
    if not query.multiplexed:
        return b"".join(frame.data for frame in frames if wanted(frame, query))
    out: list[bytes] = []
    run: list[bytes] = []
    current = 0
    for frame in frames:
        if not wanted(frame, query):
            continue
        if frame.stream != current and run:
            out.append(multiplex(current, b"".join(run)))
            run = []
        current = frame.stream
        run.append(frame.data)
    if run:
        out.append(multiplex(current, b"".join(run)))
    return b"".join(out)


class Lines:
    """Assembles lines, which cross frames, for each stream on its own."""

    def __init__(self) -> None:
        self._partial: dict[int, tuple[int, list[bytes]]] = {}

    def feed(self, frame: Frame) -> Iterator[Line]:
        """The lines a frame completes. A line's time is that of its first byte."""
        pieces = frame.data.split(b"\n")
        for piece in pieces[:-1]:
            started, before = self._partial.pop(frame.stream, (frame.time_ns, []))
            yield Line(started, frame.stream, b"".join([*before, piece, b"\n"]))
        if pieces[-1]:
            started, before = self._partial.get(frame.stream, (frame.time_ns, []))
            before.append(pieces[-1])
            self._partial[frame.stream] = (started, before)

    def rest(self) -> list[Line]:
        """What has no newline yet; taken out."""
        left = [Line(started, stream, b"".join(pieces)) for stream, (started, pieces) in self._partial.items()]
        self._partial.clear()
        return sorted(left, key=lambda line: line.time_ns)


def _line_bytes(line: Line, query: LogQuery) -> bytes:
    text = line.text
    if query.details:
        text = query.details.encode() + b" " + text
    if query.timestamps:
        text = rfc3339_fixed(line.time_ns).encode() + b" " + text
    return multiplex(line.stream, text) if query.multiplexed else text


def _in_time(line: Line, query: LogQuery) -> bool:
    return line.time_ns >= query.since and (not query.until or line.time_ns <= query.until)


def tail_position(directory: str, query: LogQuery) -> Position | None:
    """A position from which at least query.tail wanted lines (and a partial one) follow; None: from the beginning.

    Walks frames backwards by their trailers, a segment at a time, counting newlines.
    """
    needed = query.tail + 2
    for number in reversed(logframe.segments(directory)):
        try:
            fd = os.open(f"{directory}/{logframe.segment_name(number)}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        try:
            end = logframe.end_of_segment(fd)
            while end > 0:
                length = logframe.TRAILER.unpack(os.pread(fd, 4, end - 4))[0]
                start = end - OVERHEAD - length
                stream = HEADER.unpack(os.pread(fd, HEADER.size, start))[1]
                frame = Frame(0, stream, os.pread(fd, length, start + HEADER.size))
                if wanted(frame, query):
                    needed -= frame.data.count(b"\n")
                if needed <= 0:
                    return number, start
                end = start
        finally:
            os.close(fd)
    return None


async def read_log(directory: str, query: LogQuery, follower: Follower | None = None) -> AsyncIterator[bytes]:
    """Everything that is there, then (with a follower) what comes until it has ended. Chunks as the client gets them."""
    start = tail_position(directory, query) if query.tail >= 0 else None
    reader = SegmentReader(directory, start)
    try:
        if not query.by_line:
            async for chunk in _stream(reader, query, follower):
                yield chunk
            return
        lines = Lines()
        past: list[Line] = []
        while frames := reader.read():
            found = [line for frame in frames for line in lines.feed(frame) if wanted(line, query) and _in_time(line, query)]
            past.extend(found)
            if query.tail >= 0:
                del past[: max(0, len(past) - query.tail)]
            elif past:
                yield b"".join(_line_bytes(line, query) for line in past)
                past.clear()
            await asyncio.sleep(0)
        if follower is None:
            past.extend(line for line in lines.rest() if wanted(line, query) and _in_time(line, query))
            if query.tail >= 0:
                del past[: max(0, len(past) - query.tail)]
        if past:
            yield b"".join(_line_bytes(line, query) for line in past)
        if follower is not None:
            async for chunk in _follow_lines(reader, lines, query, follower):
                yield chunk
    finally:
        reader.close()


async def _follow_lines(reader: SegmentReader, lines: Lines, query: LogQuery, follower: Follower) -> AsyncIterator[bytes]:
    while True:
        ended = follower.ended
        while frames := reader.read():
            found = [line for frame in frames for line in lines.feed(frame) if wanted(line, query)]
            if query.until and any(line.time_ns > query.until for line in found):
                found = [line for line in found if line.time_ns <= query.until]
                ended = True
            if found:
                yield b"".join(_line_bytes(line, query) for line in found)
            follower.progress(reader.position)
        if ended:
            left = [line for line in lines.rest() if wanted(line, query) and _in_time(line, query)]
            if left:
                yield b"".join(_line_bytes(line, query) for line in left)
            return
        await follower.wait()


async def _stream(reader: SegmentReader, query: LogQuery, follower: Follower | None) -> AsyncIterator[bytes]:
    lost = 0
    while True:
        ended = follower is None or follower.ended
        while frames := reader.read():
            chunk = render(frames, query)
            if reader.lost > lost:
                lost = reader.lost
                text = b"[sampan: this reader was too slow, and log rotation has taken what it had not read]\n"
                yield multiplex(MARKER, text) if query.multiplexed else text
            if chunk:
                yield chunk
            if follower is not None:
                follower.progress(reader.position)
            else:
                await asyncio.sleep(0)
        if ended or follower is None:
            return
        await follower.wait()


async def read_from(directory: str, position: Position, query: LogQuery, follower: Follower) -> AsyncIterator[bytes]:
    """Attach: output from position on until the follower has ended. With an attached follower nothing is lost."""
    reader = SegmentReader(directory, position)
    try:
        async for chunk in _stream(reader, query, follower):
            yield chunk
    finally:
        reader.close()


def end_position(directory: str) -> Position:
    """Where the next frame will be written."""
    present = logframe.segments(directory)
    if not present:
        return 1, 0
    fd = os.open(f"{directory}/{logframe.segment_name(present[-1])}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return present[-1], logframe.end_of_segment(fd)
    finally:
        os.close(fd)
