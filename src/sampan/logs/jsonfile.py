"""Reading docker's json-file: rotated files from the oldest, then the current one for as long as it grows."""

import asyncio
import calendar
import contextlib
import itertools
import os
import time
from functools import lru_cache

import msgspec

from sampan.logs.frames import Frame
from sampan.logs.lines import LINE_LOOKBACK, Skip, TailCount
from sampan.runtime.logframe import MARKER, STDERR, STDOUT

BLOCK = 1 << 20
FIRST_BLOCK = 64 * 1024
"""What is read of the end first: most who ask for the last lines want few."""

OVERTAKEN = b"[sampan: the log was rotated faster than it was read; lines may be missing here]\n"


class _Entry(msgspec.Struct):
    log: str = ""
    stream: str = "stdout"
    time: str = ""


_decoder = msgspec.json.Decoder(_Entry)
_many = msgspec.json.Decoder(list[_Entry])


@lru_cache(maxsize=64)
def _seconds(text: str) -> int:
    return calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))


def _nanoseconds(stamp: str) -> int:
    """RFC 3339 in UTC with up to nine digits, as docker writes it; 0 for anything else."""
    try:
        return _seconds(stamp[:19]) * 1_000_000_000 + int(stamp[19:].strip(".Z").ljust(9, "0")[:9])
    except ValueError:
        return 0


def _entries(lines: list[bytes]) -> list[_Entry]:
    """Entries of whole lines of the file; a line that is no JSON (a crash tore it) is left out."""
    try:
        return _many.decode(b"[" + b",".join(lines) + b"]")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        found: list[_Entry] = []
        for line in lines:
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError):
                found.append(_decoder.decode(line))
        return found


def decode(lines: list[bytes]) -> list[Frame]:
    """Frames of whole lines of the file. Neighbours of one read of the keeper (same stream, same time) are one frame."""
    frames: list[Frame] = []
    stream, stamp = "", ""
    texts: list[str] = []
    for entry in [*_entries(lines), _Entry(stream="", time="")]:
        if entry.stream != stream or entry.time != stamp:
            if texts:
                frames.append((STDERR if stream == "stderr" else STDOUT, _nanoseconds(stamp), "".join(texts).encode()))
                texts = []
            stream, stamp = entry.stream, entry.time
        texts.append(entry.log)
    return frames


class JsonFileSource:
    """LogPath and its rotated predecessors path.1 (youngest), path.2, ..."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._rest = b""
        self._fds: list[int] = []
        self._overtaken = False
        """Of the files since ours some may have been rotated away."""
        self._open_all()

    def _open_all(self) -> None:
        paths = [self.path]
        while os.path.exists(f"{self.path}.{len(paths)}"):
            paths.append(f"{self.path}.{len(paths)}")
        for path in reversed(paths):
            with contextlib.suppress(FileNotFoundError):
                self._fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def read(self) -> list[Frame]:
        """The next entries as frames; [] when there are none now."""
        while True:
            if not self._fds and not self._reopen():
                return []
            block = os.read(self._fds[0], BLOCK)
            if block:
                lines = (self._rest + block).split(b"\n")
                self._rest = lines.pop()
                frames = decode(lines)
                if frames:
                    return frames
            elif len(self._fds) > 1:
                os.close(self._fds.pop(0))
                self._rest = b""
            elif self._reopen():  # what was written before the rotation and after we looked comes first
                if self._overtaken:
                    self._overtaken = False
                    return [(MARKER, 0, OVERTAKEN)]
            else:
                self._rewind_if_truncated()
                return []

    def _reopen(self) -> bool:
        """After rotations, the files that came after ours; whether there are any."""
        newer: list[int] = []
        for number in itertools.count():
            try:
                fd = os.open(f"{self.path}.{number}" if number else self.path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                self._overtaken = bool(self._fds) and number > 1
                break
            if self._fds and os.path.sameopenfile(fd, self._fds[-1]):
                os.close(fd)
                break
            if newer and os.path.sameopenfile(fd, newer[-1]):  # rotated just now
                os.close(fd)
            else:
                newer.append(fd)
        self._fds += reversed(newer)
        return bool(newer)

    def _rewind_if_truncated(self) -> None:
        """max-file=1 truncates in place."""
        fd = self._fds[0]
        if os.fstat(fd).st_size < os.lseek(fd, 0, os.SEEK_CUR):
            os.lseek(fd, 0, os.SEEK_SET)
            self._rest = b""

    async def seek_tail(self, count: int) -> Skip:
        """See frames.Source: read backwards in growing blocks, from the current file's end to older ones."""
        tail = TailCount(count)
        reached = place = 0
        for place in reversed(range(len(self._fds))):
            reached = await _walk(self._fds[place], tail)
            if tail.done:
                break
        for fd in self._fds[:place]:
            os.close(fd)
        self._fds = self._fds[place:]
        if self._fds:
            os.lseek(self._fds[0], reached, os.SEEK_SET)
        return tail.skip()

    def close(self) -> None:
        """Close the files."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []


async def _walk(fd: int, tail: TailCount) -> int:
    """Tell tail the entries of one file from its end, in blocks; returns the offset reached."""
    reached = begin = os.fstat(fd).st_size
    size = FIRST_BLOCK
    rest: bytes | None = None
    """The line that begins before the block: its end. None: its end is missing, too, or it is too long to be an entry."""
    while begin and not tail.done:
        end, begin = begin, max(0, begin - size)
        block = os.pread(fd, end - begin, begin)
        block = block[: block.rfind(b"\n") + 1] if rest is None else block + rest
        first = block.find(b"\n") + 1 if begin else 0
        for stream, _, data in reversed(decode(block[first:].split(b"\n")[:-1])):
            tail.add(stream, data)
        rest = block[:first] if 0 < first < LINE_LOOKBACK else None
        reached, size = begin + first, min(4 * size, BLOCK)
        if not tail.done:
            await asyncio.sleep(0)
    return reached
