"""What a log is to its readers: batches of (stream, nanoseconds, data), and the wire form of docker's multiplexed streams."""

import struct
from collections.abc import Iterable, Mapping
from typing import Protocol

from sampan.runtime.logframe import STDERR, STDOUT

Frame = tuple[int, int, bytes]
"""(stream 1, 2 or 3 = a notice of the engine's own; nanoseconds since the epoch; the bytes as the container wrote them)"""

_MUX = struct.Struct(">BxxxI")
"""stdcopy's header: stream, three zeros, length (moby pkg/stdcopy)."""


class Source(Protocol):
    """A log that is read forwards; it may grow."""

    def read(self) -> list[Frame]:
        """The next frames, about 1 MiB of them; [] when there are none now."""

    def seek_tail(self, count: int) -> Mapping[int, int]:
        """Go to a place from which the last count lines are complete; returns how many lines of each stream to skip from there.

        A line stands where its last byte is: an unfinished one where it last grew.
        """

    def close(self) -> None:
        """Give descriptors back."""


def encode(frames: Iterable[Frame], *, stdout: bool, stderr: bool, multiplexed: bool) -> bytes:
    """Frames as a client gets them: neighbours of one stream joined under one header, or raw bytes for a tty. Notices go to stderr."""
    parts: list[bytes] = []
    run: list[bytes] = []
    current = 0

    def flush() -> None:
        if run:
            if multiplexed:
                parts.append(_MUX.pack(current, sum(map(len, run))))
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
