"""Reading docker's json-file: rotated files from the oldest, then the current one for as long as it grows."""

import calendar
import contextlib
import os
import time
from collections.abc import Iterator
from functools import lru_cache

import msgspec

from sampan.logs.frames import Frame
from sampan.logs.lines import Skip, TailCount
from sampan.runtime.logframe import STDERR, STDOUT

BLOCK = 1 << 20


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
            elif len(self._fds) > 1 or self._reopen():
                os.close(self._fds.pop(0))
                self._rest = b""
            else:
                self._rewind_if_truncated()
                return []

    def _reopen(self) -> bool:
        """After a rotation, the new current file."""
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        if self._fds and os.path.sameopenfile(fd, self._fds[-1]):
            os.close(fd)
            return False
        self._fds.append(fd)
        return True

    def _rewind_if_truncated(self) -> None:
        """max-file=1 truncates in place."""
        fd = self._fds[0]
        if os.fstat(fd).st_size < os.lseek(fd, 0, os.SEEK_CUR):
            os.lseek(fd, 0, os.SEEK_SET)
            self._rest = b""

    def seek_tail(self, count: int) -> Skip:
        """See frames.Source: read the current file's end in growing pieces; where that does not suffice, everything, twice."""
        if self._fds:
            fd = self._fds[-1]
            size = os.fstat(fd).st_size
            span = 64 * 1024
            while span < size:
                start = size - span
                lines = os.pread(fd, span, start).split(b"\n")
                start += len(lines[0]) + 1
                tail = TailCount(count)
                for stream, _, data in reversed(decode(lines[1:-1])):
                    tail.add(stream, data)
                if tail.begun:
                    for older in self._fds[:-1]:
                        os.close(older)
                    self._fds = [fd]
                    os.lseek(fd, start, os.SEEK_SET)
                    return tail.skip()
                span *= 4
        return self._skip_of_all(count)

    def _skip_of_all(self, count: int) -> Skip:
        total, last = 0, {}
        for place, (stream, _, data) in enumerate(self._from_start()):
            total += data.count(b"\n")
            last[stream] = (place, not data.endswith(b"\n"))
        unwanted = total + sum(unfinished for _, unfinished in last.values()) - count
        skip: dict[int, int] = {}
        for place, (stream, _, data) in enumerate(self._from_start()):
            if unwanted <= 0:
                break
            lines = min(data.count(b"\n") + (last.get(stream) == (place, True)), unwanted)
            skip[stream] = skip.get(stream, 0) + lines
            unwanted -= lines
        self._restart()
        return skip

    def _from_start(self) -> Iterator[Frame]:
        self._restart()
        while frames := self.read():
            yield from frames

    def _restart(self) -> None:
        self.close()
        self._rest = b""
        self._open_all()

    def close(self) -> None:
        """Close the files."""
        for fd in self._fds:
            os.close(fd)
        self._fds = []
