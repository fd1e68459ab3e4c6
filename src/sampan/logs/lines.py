"""Lines out of frames: what --tail, --since, --until, --timestamps and --details are about. Lines are put together per stream."""

from collections.abc import Iterable, Mapping
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

Skip = Mapping[int, int]
"""How many lines of each stream to leave out before the first one that is wanted."""


class TailCount:
    """Which are the last count lines, told frame by frame from the log's end backwards. A line stands where its last byte is."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.lines = 0
        """All lines told so far."""
        self._wanted: dict[int, int] = {}
        self._told: dict[int, int] = {}
        self._earliest: dict[int, int] = {}
        """Of each stream: how many lines end from the earliest one known to it up to the log's end, that one included."""

    def add(self, stream: int, data: bytes) -> None:
        """The frame before the last one told."""
        lines = data.count(b"\n") + (stream not in self._told and not data.endswith(b"\n"))
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

    def feed(self, frames: Iterable[Frame]) -> list[Frame]:
        """The chosen lines that are complete now, and what has come of those too long to wait for."""
        out: list[Frame] = []
        for stream, now, data in frames:
            start, end = 0, data.rfind(b"\n") + 1
            if end and stream in self._begun:
                start = data.index(b"\n") + 1
                out += self._grow(stream, now, data[:start])
                out += self._end(stream)
            if start < end:
                out += self._lines(stream, now, data[start:end])
            if end < len(data):
                out += self._grow(stream, now, data[end:])
        return out

    def begun_by(self, time: int) -> bool:
        """Whether a line that began at time (ns) or before is still unfinished."""
        return any(line.time <= time for line in self._begun.values())

    def finish(self) -> list[Frame]:
        """The unfinished lines, when the log has ended."""
        return [frame for stream in list(self._begun) for frame in self._end(stream)]

    def _grow(self, stream: int, now: int, data: bytes) -> list[Frame]:
        line = self._begun.setdefault(stream, _Line(now))
        if line.flowing:
            return [(stream, line.time, data)] if line.wanted else []
        line.parts.append(data)
        line.size += len(data)
        if line.size <= LINE_LIMIT:
            return []
        out = self._lines(stream, line.time, b"".join(line.parts))
        line.parts.clear()
        line.flowing, line.wanted = True, bool(out)
        return out

    def _end(self, stream: int) -> list[Frame]:
        line = self._begun.pop(stream)
        return [] if line.flowing else self._lines(stream, line.time, b"".join(line.parts))

    def _lines(self, stream: int, now: int, block: bytes) -> list[Frame]:
        skip = self.skip.get(stream, 0)
        if skip:
            count = block.count(b"\n") + (not block.endswith(b"\n"))
            self.skip[stream] = max(0, skip - count)
            if count <= skip:
                return []
            left = count - skip
            block = _last_lines(block, left) if left < skip else block.split(b"\n", skip)[-1]
        if now < self.since or (self.until and now > self.until):
            return []
        head = self.prefix
        if self.timestamps:
            head = rfc3339_fixed(now).encode() + b" " + head
        if head:
            body, end = (block[:-1], b"\n") if block.endswith(b"\n") else (block, b"")
            block = head + body.replace(b"\n", b"\n" + head) + end
        return [(stream, now, block)]
