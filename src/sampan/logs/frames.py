"""What a log is to its readers: batches of (stream, nanoseconds, data), and the wire form of docker's multiplexed streams."""

import re
import struct
from collections.abc import Iterable, Mapping
from typing import Protocol

from sampan.runtime.logframe import STDERR, STDOUT

Frame = tuple[int, int, bytes]
"""(stream 1, 2 or 3 = a notice of the engine's own; nanoseconds since the epoch; the bytes as the container wrote them)"""

LINES_MAX = 1 << 16
"""Bytes of one stream at once that are sent line by line."""
_LINE = re.compile(rb"[^\n]{0,16384}\n|[^\n]{1,16384}")
"""A line as docker's log has it: long ones come in parts (moby daemon/logger/copier.go)."""
_MUX = struct.Struct(">BxxxI")
"""stdcopy's header: stream, three zeros, length (moby pkg/stdcopy)."""


class Source(Protocol):
    """A log that is read forwards; it may grow."""

    def read(self) -> list[Frame]:
        """The next frames, about 1 MiB of them; [] when there are none now."""

    async def seek_tail(self, count: int) -> Mapping[int, int]:
        """Go to a place from which the last count lines are complete; returns how many lines of each stream to skip from there.

        A line stands where its last byte is: an unfinished one where it last grew. Where no line begins for long
        (lines.LINE_LOOKBACK), it ends looking: that line is given from its middle. Others have their turns meanwhile.
        """

    def close(self) -> None:
        """Give descriptors back."""


def encode(frames: Iterable[Frame], *, stdout: bool, stderr: bool, multiplexed: bool, by_line: bool = False) -> bytes:
    """Frames as a client gets them: neighbours of one stream joined under one header, or raw bytes for a tty. Notices go to stderr.

    by_line: a header for each line, as docker's logs have it; programs take what comes under one header for a line. That has a price for
    both ends, so more than LINES_MAX at once is joined.
    """
    parts: list[bytes] = []
    run: list[bytes] = []
    current = 0

    def flush() -> None:
        size = sum(map(len, run))
        if size and multiplexed and by_line and size <= LINES_MAX:
            for line in _LINE.findall(b"".join(run)):
                parts.extend((_MUX.pack(current, len(line)), line))
        elif size:
            if multiplexed:
                parts.append(_MUX.pack(current, size))
            parts.extend(run)
        run.clear()

    for stream, _, data in frames:
        target = STDOUT if stream == STDOUT else STDERR
        if not data or not (stdout if target == STDOUT else stderr or not multiplexed):
            continue
        if target != current:
            flush()
            current = target
        run.append(data)
    flush()
    return b"".join(parts)
