"""The keeper's writers: log segments (always; they are also attach's buffer) and docker's json-file. A full disk drops, and says so."""

import contextlib
import mmap
import os
import struct
import time
from collections.abc import Iterator

from sampan.runtime import logframe
from sampan.runtime.logframe import HEADER, MARKER, TRAILER, Position

JSON_LINE = 16 * 1024
"""Docker splits longer lines (moby daemon/logger/copier.go, defaultBufSize)."""
DROPPED = b"[sampan: %d bytes of output were dropped: the log's disk was full]\n"
BUFFER_SIZE, BUFFER_FILES = 4 << 20, 3
"""The segments of drivers none and json-file keep only what attached readers may still need."""


class SegmentWriter:
    """Appends frames; rotates. Continues the directory's last segment, unless it is ephemeral: then it begins its own and removes them."""

    def __init__(self, directory: str, max_size: int, max_file: int, *, ephemeral: bool = False, fresh: bool = False) -> None:
        """max_size in bytes, max_file segments are kept; -1 or 0 is unlimited. fresh: begin a segment. Raises OSError."""
        self.directory = directory
        self.max_size, self.max_file, self.ephemeral = max_size, max_file, ephemeral
        self.dropped = 0
        os.makedirs(directory, 0o710, exist_ok=True)
        there = logframe.segments(directory)
        self.kept = [] if ephemeral else there
        self.fd = -1
        last = there[-1] if there else 0
        self._open(last + 1 if ephemeral or fresh else max(last, 1))

    def _open(self, number: int) -> None:
        # Not O_APPEND: splice(2) refuses such a file. There is one writer.
        fd = os.open(f"{self.directory}/{logframe.segment_name(number)}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            end = logframe.mend(fd)
        except OSError:
            os.close(fd)
            raise
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self.number, self.offset = fd, number, end
        if number not in self.kept:
            self.kept.append(number)

    @property
    def position(self) -> Position:
        """The end."""
        return self.number, self.offset

    def would_overrun(self, position: Position) -> bool:
        """Whether the next write would rotate away what a reader at position has not read."""
        return 0 < self.max_size <= self.offset and 0 < self.max_file <= self.number + 1 - position[0] and position < self.position

    def append(self, stream: int, data: bytes, now: int) -> None:
        """One frame. On a full or broken disk the data is counted as dropped, and a marker says so once there is room."""
        if not self._tell_dropped(now) or not self._write(stream, data, now):
            self.dropped += len(data)

    def take(self, stream: int, pipe: int, length: int, now: int) -> int:
        """Move at most length bytes from a pipe into one frame; returns how many left the pipe. Raises BlockingIOError when it is empty.

        By splice: a kill -9 at any instant finds each byte either in the pipe or in the segment (logframe.mend completes the frame).
        """
        start, moved = -1, 0
        try:
            if self._tell_dropped(now):
                self._room()
                os.pwrite(self.fd, HEADER.pack(now, stream, length), self.offset)
                start = self.offset + HEADER.size
                moved = os.splice(pipe, self.fd, length, offset_dst=start, flags=os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE)
                if moved < length:
                    os.pwrite(self.fd, HEADER.pack(now, stream, moved), self.offset)
                if moved and os.pwrite(self.fd, TRAILER.pack(moved), start + moved) == TRAILER.size:
                    self.offset += moved + logframe.OVERHEAD
                    return moved
        except BlockingIOError:
            self._cut()
            raise
        except OSError:
            pass
        self._cut()
        if not moved:
            moved = len(os.read(pipe, length))
        self.dropped += moved
        return moved

    def _tell_dropped(self, now: int) -> bool:
        if self.dropped:
            if not self._write(MARKER, DROPPED % self.dropped, now):
                return False
            self.dropped = 0
        return True

    def _write(self, stream: int, data: bytes, now: int) -> bool:
        length = len(data)
        try:
            self._room()
            parts = (HEADER.pack(now, stream, length), data, TRAILER.pack(length))
            if os.pwritev(self.fd, parts, self.offset) == length + logframe.OVERHEAD:
                self.offset += length + logframe.OVERHEAD
                return True
        except OSError:
            pass
        self._cut()
        return False

    def _cut(self) -> None:
        """Take a frame that could not be finished back."""
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, self.offset)

    def make_room(self, now: int) -> None:
        """Have position be where the next frame will be."""
        if self._tell_dropped(now):
            with contextlib.suppress(OSError):
                self._room()

    def _room(self) -> None:
        """Rotate if the segment is full."""
        if not 0 < self.max_size <= self.offset:
            return
        number = self.number + 1
        while os.path.lexists(f"{self.directory}/{logframe.segment_name(number)}"):  # another run of the container writes it
            number += 1
        self._open(number)
        while 0 < self.max_file < len(self.kept):
            with contextlib.suppress(OSError):
                os.unlink(f"{self.directory}/{logframe.segment_name(self.kept.pop(0))}")

    def close(self) -> None:
        """Close; an ephemeral one leaves nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self.ephemeral:
            for number in self.kept:
                with contextlib.suppress(OSError):
                    os.unlink(f"{self.directory}/{logframe.segment_name(number)}")
            self.kept = []


_ESCAPES = {
    **{code: f"\\u{code:04x}" for code in (*range(0x20), *b"<>&", 0x2028, 0x2029)},
    **dict.fromkeys(range(0xDC80, 0xDD00), "\\ufffd"),
    ord("\n"): "\n", ord("\r"): "\\r", ord('"'): '\\"', ord("\\"): "\\\\",
}  # fmt: skip
"""As docker writes strings (moby daemon/logger/jsonfilelog/jsonlog/jsonlogbytes.go); surrogates stand for bytes that are no UTF-8.

Newlines are left for _rendered()."""


class Stage:
    """Where a terminal's output is read to on its way into a segment: a file, so that a kill -9 between the two loses nothing.

    splice(2), which pipes are emptied with, cannot read a terminal. A page says which log's end the data belongs to; the data follows,
    zeroes after it. What the former keeper left is put into that log now. Without room for the file it goes without.
    """

    HEAD = struct.Struct("<QQQIBH")
    """nanoseconds, segment, offset, length (0: not known yet), stream, length of the directory's name, which follows"""
    SIZE = 64 * 1024

    def __init__(self, path: str) -> None:
        self.map: mmap.mmap | None = None
        with contextlib.suppress(OSError):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, mmap.PAGESIZE + self.SIZE)  # a hole without room behind it would be a SIGBUS
                self.map = mmap.mmap(fd, mmap.PAGESIZE + self.SIZE)
            finally:
                os.close(fd)
            self._replay(self.map)

    def _replay(self, area: mmap.mmap) -> None:
        now, number, offset, length, stream, name = self.HEAD.unpack_from(area)
        data = area[mmap.PAGESIZE : mmap.PAGESIZE + length] if length else area[mmap.PAGESIZE :].rstrip(b"\0")
        directory = os.fsdecode(area[self.HEAD.size : self.HEAD.size + name])
        if data and logframe.segments(directory)[-1:] == [number]:
            log = SegmentWriter(directory, 0, 0)
            if log.offset < offset + logframe.OVERHEAD + len(data):  # not there, or a torn piece of it
                log.offset = offset
                log.append(stream, data, now)
            log.close()
        area[:] = bytes(len(area))

    def take(self, log: SegmentWriter, stream: int, fd: int, now: int) -> int:
        """Move what a terminal has into one frame; returns how much, 0 at its end. Raises BlockingIOError, EIO."""
        area = self.map
        name = os.fsencode(log.directory)
        if area is None or len(name) > mmap.PAGESIZE - self.HEAD.size:
            data = os.read(fd, self.SIZE)
            if data:
                log.append(stream, data, now)
            return len(data)
        log.make_room(now)
        area[: self.HEAD.size + len(name)] = self.HEAD.pack(now, log.number, log.offset, 0, stream, len(name)) + name
        with memoryview(area) as view:
            length = os.readv(fd, [view[mmap.PAGESIZE :]])
        self.HEAD.pack_into(area, 0, now, log.number, log.offset, length, stream, len(name))
        if length:
            end = mmap.PAGESIZE + length
            log.append(stream, area[mmap.PAGESIZE : end], now)
            area[mmap.PAGESIZE : end] = bytes(length)
        return length


RENDERED = 2 << 20
"""What one read may become: in json-file's worst case, newlines only, every byte is an entry."""
ROTATED = 64
"""Bytes of log for each renaming of a rotation: many small files grow beyond max-size rather than make everybody wait."""


class JsonFileWriter:
    """docker's json-file: a JSON object a line, lines over 16 KiB split, rotation by renaming to .1, .2, ..."""

    def __init__(self, path: str, max_size: int, max_file: int, attrs: str = "") -> None:
        """attrs: a JSON object that every line carries, or ""."""
        self.path, self.max_size, self.max_file = path, max_size, max(1, max_file)
        self.attrs = f'"attrs":{attrs},' if attrs else ""
        self.read_size = max(64, min(RENDERED // (len(self.attrs) + 80), self.max_size // 16 if self.max_size > 0 else RENDERED))
        """Bytes of output to append at once: the memory and the time of their entries, and the rotations between them, are bounded."""
        self.partial: dict[int, bytes] = {}
        self.dropped = 0
        self.fd = -1
        self.size = self.older = 0
        while self.older < self.max_file - 1 and os.path.lexists(f"{path}.{self.older + 1}"):
            self.older += 1
        with contextlib.suppress(OSError):
            self._open()

    def _open(self) -> None:
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.size = os.fstat(self.fd).st_size

    def _is_full(self, size: int) -> bool:
        return self.max_size > 0 and size >= max(self.max_size, ROTATED * self.older)

    def append(self, stream: int, data: bytes, now: int) -> None:
        """Write the whole lines there are now. On a full or broken disk they are counted, and an entry says so once there is room."""
        data = self.partial.pop(stream, b"") + data
        rest = (len(data) - data.rfind(b"\n") - 1) % JSON_LINE
        if rest:
            self.partial[stream] = data[-rest:]
        self._write(stream, data[: len(data) - rest], now)

    def _write(self, stream: int, block: bytes, now: int) -> None:
        """Entries of one time, rotating between them where a file is full."""
        seconds, fraction = divmod(now, 1_000_000_000)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"
        name = "stderr" if stream == logframe.STDERR else "stdout"
        end = f'","stream":"{name}",{self.attrs}"time":"{stamp}"}}\n'
        for piece in _pieces(block):
            self._put(piece, end)

    def _put(self, block: bytes, end: str) -> None:
        text = _rendered(block, end)
        half = len(block) // 2
        middle = block.find(b"\n", half, -1) + 1 or block.rfind(b"\n", 0, half) + 1
        if middle and self._is_full(self.size + len(text)):
            self._put(block[:middle], end)
            self._put(block[middle:], end)
        else:
            self._flush(text, len(block), end)

    def _flush(self, text: bytes, length: int, end: str) -> None:
        """Write whole entries, which stand for length bytes of output."""
        if self.dropped:
            text = f'{{"log":"{(DROPPED % self.dropped).decode().strip()}\\n{end}'.encode() + text
        try:
            if self.fd < 0 or self._is_full(self.size):
                self._rotate()
            if os.write(self.fd, text) == len(text):
                self.size += len(text)
                self.dropped = 0
                return
            os.ftruncate(self.fd, self.size)  # half an entry is no JSON
        except OSError:
            pass
        self.dropped += length

    def _rotate(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            self.older = min(self.older + 1, self.max_file - 1)
            for number in range(self.older, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self.path if number == 1 else f"{self.path}.{number - 1}", f"{self.path}.{number}")
            if self.max_file == 1:
                os.truncate(self.path, 0)
        self._open()

    def close(self) -> None:
        """Write what is left without a newline, and close."""
        now = time.time_ns()
        for stream, rest in list(self.partial.items()):
            self._write(stream, rest, now)
        self.partial.clear()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _pieces(block: bytes) -> Iterator[bytes]:
    """Lines, cut so that none is over 16 KiB."""
    start = at = 0
    while len(block) - at >= JSON_LINE:
        newline = block.rfind(b"\n", at, at + JSON_LINE)
        if newline >= 0:
            at = newline + 1
            continue
        if start < at:
            yield block[start:at]
        start = at = at + JSON_LINE
        yield block[at - JSON_LINE : at]
    if start < len(block):
        yield block[start:]


def _rendered(lines: bytes, end: str) -> bytes:
    """Entries of lines, none over 16 KiB; the last may be without its newline."""
    text = lines.decode("utf-8", "surrogateescape").translate(_ESCAPES)
    last = "\\n" if text.endswith("\n") else ""
    return ('{"log":"' + text.removesuffix("\n").replace("\n", f'\\n{end}{{"log":"') + last + end).encode()
