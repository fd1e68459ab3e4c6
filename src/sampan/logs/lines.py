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


class LineFilter:
    """Frames in, frames of whole chosen lines out. A line has the time of the frame it begins in."""

    def __init__(self, *, skip: int = 0, since: int = 0, until: int = 0, timestamps: bool = False, prefix: bytes = b"") -> None:
        """skip lines first, in the order in which they end; since and until in nanoseconds, 0 = no bound; prefix after the time stamp."""
        self.skip, self.since, self.until, self.timestamps, self.prefix = skip, since, until, timestamps, prefix
        self._begun: dict[int, tuple[int, bytes]] = {}

    def feed(self, frames: Iterable[Frame]) -> list[Frame]:
        """The chosen lines that are complete now."""
        out: list[Frame] = []
        for stream, now, data in frames:
            start, end = 0, data.rfind(b"\n") + 1
            begun = self._begun.get(stream)
            if not end:
                self._begun[stream] = (begun[0], begun[1] + data) if begun else (now, data)
                continue
            if begun:
                start = data.index(b"\n") + 1
                out += self._lines(stream, begun[0], begun[1] + data[:start])
                del self._begun[stream]
            if start < end:
                out += self._lines(stream, now, data[start:end])
            if end < len(data):
                self._begun[stream] = (now, data[end:])
        return out

    def finish(self) -> list[Frame]:
        """The unfinished lines, when the log has ended."""
        out: list[Frame] = []
        for stream, (now, data) in self._begun.items():
            out += self._lines(stream, now, data)
        self._begun.clear()
        return out

    def _lines(self, stream: int, now: int, block: bytes) -> list[Frame]:
        if self.skip:
            count = block.count(b"\n") + (not block.endswith(b"\n"))
            if count <= self.skip:
                self.skip -= count
                return []
            left = count - self.skip
            block = _last_lines(block, left) if left < self.skip else block.split(b"\n", self.skip)[-1]
            self.skip = 0
        if now < self.since or (self.until and now > self.until):
            return []
        head = self.prefix
        if self.timestamps:
            head = rfc3339_fixed(now).encode() + b" " + head
        if head:
            body, end = (block[:-1], b"\n") if block.endswith(b"\n") else (block, b"")
            block = head + body.replace(b"\n", b"\n" + head) + end
        return [(stream, now, block)]
