"""Lines out of frames: what --tail, --since, --until, --timestamps and --details are about. Lines are put together per stream."""

from collections.abc import Iterable, Iterator, Mapping
from urllib.parse import quote_plus

from sampan.clock import rfc3339_fixed
from sampan.logs.frames import Frame


def details_prefix(attributes: Mapping[str, str]) -> bytes:
    """`k=v,k2=v2 `, sorted and URL-escaped as docker writes them (moby api/server/httputils/write_log_stream.go)."""
    text = ",".join(f"{quote_plus(key)}={quote_plus(attributes[key])}" for key in sorted(attributes))
    return f"{text} ".encode()


def _last_lines(block: bytes, count: int) -> bytes:
    """The last count lines of more, an unfinished one included: few are wanted of many (--tail), so they are sought from the end."""
    at = len(block) - block.endswith(b"\n")
    for _ in range(count):
        at = block.rfind(b"\n", 0, at)
    return block[at + 1 :]


LINE_LIMIT = 1 << 20
"""What is kept of an unfinished line before it is passed on as it comes: a container may never write a newline."""

LINE_LOOKBACK = 4 << 20
"""Bytes back from a line that was found in which the one before it, or its beginning, is looked for: it may be hours away."""
PIECE = 1 << 20
"""What time stamps and details may make of a block at once: newlines are all it may consist of."""

Skip = Mapping[int, int]
"""How many lines of each stream to leave out before the first one that is wanted."""


class TailCount:
    """Which are the last count lines, told frame by frame from the log's end backwards. A line stands where its last byte is."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.lines = 0
        """All lines told so far."""
        self._bytes = self._found_at = 0
        """Bytes told so far, and when the last line was found that was still sought."""
        self._wanted: dict[int, int] = {}
        self._told: dict[int, int] = {}
        self._earliest: dict[int, int] = {}
        """Of each stream: how many lines end from the earliest one known to it up to the log's end, that one included."""

    def add(self, stream: int, data: bytes) -> None:
        """The frame before the last one told."""
        lines = data.count(b"\n") + (stream not in self._told and not data.endswith(b"\n"))
        self._bytes += len(data)
        if lines and self.lines <= self.count:
            self._found_at = self._bytes
        self._wanted[stream] = self._wanted.get(stream, 0) + min(lines, max(0, self.count - self.lines))
        self._told[stream] = self._told.get(stream, 0) + lines
        if lines:
            self.lines += lines
            self._earliest[stream] = self.lines

    @property
    def begun(self) -> bool:
        """All that is wanted has ended in what was told, and has begun there too.

        The first line of a stream to end there may have begun before, so it must not be among those wanted.
        """
        return self.lines > self.count and all(at > self.count for at in self._earliest.values())

    @property
    def done(self) -> bool:
        """Whether there is no use in telling more."""
        return bool(self._told) and (not self.count or self.begun or self._bytes - self._found_at > LINE_LOOKBACK)

    def skip(self) -> Skip:
        """What to leave out from where the telling has stopped."""
        return {stream: told - self._wanted[stream] for stream, told in self._told.items()}


class _Line:
    """A line whose end has not come yet. flowing: it is too long to be kept, so its parts are passed on (wanted) or dropped."""

    __slots__ = ("flowing", "parts", "size", "time", "wanted")

    def __init__(self, time: int) -> None:
        self.time = time
        self.parts: list[bytes] = []
        self.size = 0
        self.flowing = self.wanted = False


class LineFilter:
    """Frames in, frames of whole chosen lines out. A line has the time of the frame it begins in."""

    def __init__(self, *, skip: Skip, since: int = 0, until: int = 0, timestamps: bool = False, prefix: bytes = b"") -> None:
        """since and until in nanoseconds, 0 = no bound; prefix after the time stamp."""
        self.skip, self.since, self.until, self.timestamps, self.prefix = dict(skip), since, until, timestamps, prefix
        self._begun: dict[int, _Line] = {}

    def feed(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """The chosen lines that are complete now, and what has come of those too long to wait for: to be taken to the end."""
        for stream, now, data in frames:
            start, end = 0, data.rfind(b"\n") + 1
            if end and stream in self._begun:
                start = data.index(b"\n") + 1
                yield from self._grow(stream, now, data[:start])
                yield from self._end(stream)
            if start < end:
                yield from self._lines(stream, now, data[start:end])
            if end < len(data):
                yield from self._grow(stream, now, data[end:])

    def begun_by(self, time: int) -> bool:
        """Whether a line that began at time (ns) or before is still unfinished."""
        return any(line.time <= time for line in self._begun.values())

    def finish(self) -> Iterator[Frame]:
        """The unfinished lines, when the log has ended."""
        for stream in list(self._begun):
            yield from self._end(stream)

    def _grow(self, stream: int, now: int, data: bytes) -> Iterator[Frame]:
        line = self._begun.setdefault(stream, _Line(now))
        if line.flowing:
            if line.wanted:
                yield stream, line.time, data
            return
        line.parts.append(data)
        line.size += len(data)
        if line.size > LINE_LIMIT:
            block = b"".join(line.parts)
            line.parts.clear()
            line.flowing = True
            for frame in self._lines(stream, line.time, block):
                line.wanted = True
                yield frame

    def _end(self, stream: int) -> Iterator[Frame]:
        line = self._begun.pop(stream)
        if not line.flowing:
            yield from self._lines(stream, line.time, b"".join(line.parts))

    def _lines(self, stream: int, now: int, block: bytes) -> Iterator[Frame]:
        skip = self.skip.get(stream, 0)
        if skip:
            count = block.count(b"\n") + (not block.endswith(b"\n"))
            self.skip[stream] = max(0, skip - count)
            if count <= skip:
                return
            left = count - skip
            block = _last_lines(block, left) if left < skip else block.split(b"\n", skip)[-1]
        if now < self.since or (self.until and now > self.until):
            return
        head = self.prefix
        if self.timestamps:
            head = rfc3339_fixed(now).encode() + b" " + head
        if not head:
            yield stream, now, block
            return
        start, step = 0, max(1, PIECE // len(head))
        while start < len(block):
            end = block.find(b"\n", min(start + step, len(block)) - 1) + 1 or len(block)
            body, newline = (block[start : end - 1], b"\n") if block[end - 1] == 10 else (block[start:end], b"")
            yield stream, now, head + body.replace(b"\n", b"\n" + head) + newline
            start = end


def pieces(frames: Iterable[Frame]) -> Iterator[list[Frame]]:
    """Frames in lists of about PIECE bytes."""
    held: list[Frame] = []
    size = 0
    for frame in frames:
        held.append(frame)
        size += len(frame[2])
        if size >= PIECE:
            yield held
            held, size = [], 0
    if held:
        yield held
