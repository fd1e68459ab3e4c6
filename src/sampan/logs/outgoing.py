"""Output on its way to a log server: lines with their times, and what takes them."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from sampan.logs.frames import Frame
from sampan.runtime.logframe import STDERR

PART = 16 * 1024
"""A longer line goes in parts (moby daemon/logger/copier.go)."""


class Line(NamedTuple):
    """One, without its end; or a part of a long one, of which more follows."""

    time_ns: int
    is_error: bool
    data: bytes
    is_part: bool


class Sink(Protocol):
    """A connection to a log server."""

    async def send(self, lines: Sequence[Line]) -> None:
        """Hand over all of them. Raises OSError; some may have arrived then."""

    def close(self) -> None:
        """Drop the connection; send() makes another. May be called twice."""


class LineSplitter:
    """Makes lines of what a container wrote. begun: what of a line has come of each stream, as of the last feed()."""

    def __init__(self, begun: dict[int, tuple[int, bytes]] | None = None) -> None:
        self.begun = begun or {}

    def feed(self, frames: Iterable[Frame]) -> Iterator[Line]:
        """The lines that have become whole, made as they are taken: a block of empty ones takes a hundred times what it is."""
        for stream, now, data in frames:
            since, rest = self.begun.pop(stream, (now, b""))
            *whole, rest = (rest + data).split(b"\n")
            for line in whole:
                yield from self._parts(stream, since, line, whole=True)
                since = now
            if len(rest) >= PART:
                *parts, last = self._parts(stream, since, rest, whole=False)
                yield from parts
                rest = last.data
            if rest:
                self.begun[stream] = (since, rest)

    def finish(self) -> list[Line]:
        """What has no end, and will get none."""
        left = [Line(since, stream != 1, rest, is_part=False) for stream, (since, rest) in sorted(self.begun.items())]
        self.begun = {}
        return left

    @staticmethod
    def _parts(stream: int, now: int, line: bytes, *, whole: bool) -> list[Line]:
        """whole: the line ends here."""
        pieces = [line[at : at + PART] for at in range(0, len(line), PART)] or [line]
        error = stream >= STDERR  # notices of the engine's own, too
        return [Line(now, error, piece, is_part=not whole or number < len(pieces)) for number, piece in enumerate(pieces, 1)]
