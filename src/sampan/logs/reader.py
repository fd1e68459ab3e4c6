"""`docker logs`: a log as the client gets it, whole chunks where no lines are asked about.

source = open_log(settings)                       # settings: LOG of logs.options.log_settings
async for chunk in read_log(source, query, wakeup):   # wakeup None: what is there now; else until wakeup.end()
    await stream.send(chunk)
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import msgspec

from sampan.errors import NotImplementedYet
from sampan.logs.frames import Frame, Source, encode
from sampan.logs.jsonfile import JsonFileSource
from sampan.logs.lines import LineFilter, details_prefix, pieces
from sampan.logs.segments import SegmentSource
from sampan.logs.wakeup import Wakeup, no_action


class LogQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for. since, until: nanoseconds since the epoch, 0 = no bound; tail -1 = all; details: the attributes or None."""

    stdout: bool = True
    stderr: bool = True
    timestamps: bool = False
    details: Mapping[str, str] | None = None
    since: int = 0
    until: int = 0
    tail: int = -1
    multiplexed: bool = True


def open_log(settings: Mapping[str, Any]) -> Source:
    """The log that settings describe. NotImplementedYet for driver none, in docker's words."""
    driver = settings["driver"]
    if driver == "none":
        raise NotImplementedYet("configured logging driver does not support reading")
    if driver == "json-file":
        return JsonFileSource(settings["path"])
    return SegmentSource(settings["dir"])


async def read_log(source: Source, query: LogQuery, wakeup: Wakeup | None = None) -> AsyncIterator[bytes]:
    """Encoded chunks, oldest first. Closes source at the end; wakeup stays the caller's."""
    try:
        lines = await _line_filter(source, query)
        if wakeup is not None and isinstance(source, SegmentSource):
            wakeup.at_end(source.hold)
        while True:
            more = await _next(source, wakeup)
            if more is None:
                break
            async for chunk in _chunks(lines.feed(more) if lines else more, query):
                yield chunk
            # A line belongs to the time it begins at, so its rest is waited for; not from a process, which may never write it.
            if query.until and more[-1][1] > query.until and (wakeup is not None or lines is None or not lines.begun_by(query.until)):
                break
        if lines:
            async for chunk in _chunks(lines.finish(), query):
                yield chunk
    finally:
        if wakeup is not None:
            wakeup.at_end(no_action)
        source.close()


async def _line_filter(source: Source, query: LogQuery) -> LineFilter | None:
    skip = await source.seek_tail(query.tail) if query.tail >= 0 else {}
    prefix = details_prefix(query.details) if query.details is not None else b""
    if query.tail < 0 and not (query.since or query.until or query.timestamps or prefix):
        return None
    return LineFilter(skip=skip, since=query.since, until=query.until, timestamps=query.timestamps, prefix=prefix)


async def _next(source: Source, wakeup: Wakeup | None) -> list[Frame] | None:
    """The next frames, waiting for them if the log is followed; None at the end."""
    while True:
        frames = source.read()
        if frames:
            return frames
        if wakeup is None or not await wakeup.wait():
            if wakeup is not None and isinstance(source, SegmentSource):
                source.limit = wakeup.limit
            return source.read() or None


async def _chunks(frames: Iterable[Frame], query: LogQuery) -> AsyncIterator[bytes]:
    for piece in pieces(frames):
        chunk = encode(piece, stdout=query.stdout, stderr=query.stderr, multiplexed=query.multiplexed, by_line=True)
        if chunk:
            yield chunk
        # Reading from the page cache never waits: let the others have a turn.
        await asyncio.sleep(0)
