"""The keeper's writers: log segments (always; they are also attach's buffer) and docker's json-file. A full disk drops, and says so."""

import contextlib
import mmap
import os
import struct
import time

from sampan.runtime import logframe
from sampan.runtime.logframe import HEADER, MARKER, TRAILER, Position

JSON_LINE = 16 * 1024
"""Docker splits longer lines (moby daemon/logger/copier.go, defaultBufSize)."""
DROPPED = b"[sampan: %d bytes of output were dropped: the log's disk was full]\n"
BUFFER_SIZE, BUFFER_FILES = 4 << 20, 3
"""The segments of drivers none and json-file keep only what attached readers may still need."""


class SegmentWriter:
    """Appends frames; rotates. Continues the directory's last segment, unless it is ephemeral: then it begins its own and removes them."""

    def __init__(self, directory: str, max_size: int, max_file: int, *, ephemeral: bool = False) -> None:
        """max_size in bytes, max_file segments are kept; -1 or 0 is unlimited. Raises OSError."""
        self.directory = directory
        self.max_size, self.max_file, self.ephemeral = max_size, max_file, ephemeral
        self.dropped = 0
        os.makedirs(directory, 0o710, exist_ok=True)
        there = logframe.segments(directory)
        self.kept = [] if ephemeral else there
        self.fd = -1
        last = there[-1] if there else 0
        self._open(last + 1 if ephemeral else max(last, 1))

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
        self._open(self.number + 1)
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
    ord("\n"): "\\n", ord("\r"): "\\r", ord('"'): '\\"', ord("\\"): "\\\\",
}  # fmt: skip
"""As docker writes strings (moby daemon/logger/jsonfilelog/jsonlog/jsonlogbytes.go); surrogates stand for bytes that are no UTF-8."""


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

    def take(self, log: SegmentWriter, stream: int, fd: int, now: int) -> bool:
        """Move what a terminal has into one frame; False at its end. Raises BlockingIOError, EIO."""
        area = self.map
        name = os.fsencode(log.directory)
        if area is None or len(name) > mmap.PAGESIZE - self.HEAD.size:
            data = os.read(fd, self.SIZE)
            if data:
                log.append(stream, data, now)
            return bool(data)
        log.make_room(now)
        area[: self.HEAD.size + len(name)] = self.HEAD.pack(now, log.number, log.offset, 0, stream, len(name)) + name
        with memoryview(area) as view:
            length = os.readv(fd, [view[mmap.PAGESIZE :]])
        self.HEAD.pack_into(area, 0, now, log.number, log.offset, length, stream, len(name))
        if length:
            end = mmap.PAGESIZE + length
            log.append(stream, area[mmap.PAGESIZE : end], now)
            area[mmap.PAGESIZE : end] = bytes(length)
        return length > 0


class JsonFileWriter:
    """docker's json-file: a JSON object a line, lines over 16 KiB split, rotation by renaming to .1, .2, ..."""

    def __init__(self, path: str, max_size: int, max_file: int, attrs: str = "") -> None:
        """attrs: a JSON object that every line carries, or ""."""
        self.path, self.max_size, self.max_file = path, max_size, max(1, max_file)
        self.attrs = f'"attrs":{attrs},' if attrs else ""
        self.partial: dict[int, bytes] = {}
        self.dropped = 0
        self.fd = -1
        self.size = 0
        with contextlib.suppress(OSError):
            self._open()

    def _open(self) -> None:
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.size = os.fstat(self.fd).st_size

    def append(self, stream: int, data: bytes, now: int) -> None:
        """Write the whole lines there are now. On a full or broken disk they are counted, and an entry says so once there is room."""
        lines = (self.partial.pop(stream, b"") + data).split(b"\n")
        rest = lines.pop()
        entries = [line + b"\n" for line in lines]
        while len(rest) >= JSON_LINE:
            entries.append(rest[:JSON_LINE])
            rest = rest[JSON_LINE:]
        if rest:
            self.partial[stream] = rest
        self._write(stream, entries, now)

    def _write(self, stream: int, entries: list[bytes], now: int) -> None:
        """Entries of one time, rotating between them where a file is full."""
        seconds, fraction = divmod(now, 1_000_000_000)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"
        name = "stderr" if stream == logframe.STDERR else "stdout"
        end = f'","stream":"{name}",{self.attrs}"time":"{stamp}"}}\n'
        text, length = bytearray(), 0
        for entry in entries:
            for start in range(0, len(entry), JSON_LINE):
                piece = entry[start : start + JSON_LINE].decode("utf-8", "surrogateescape").translate(_ESCAPES)
                text += f'{{"log":"{piece}{end}'.encode()
            length += len(entry)
            if 0 < self.max_size <= self.size + len(text):
                self._flush(text, length, end)
                text, length = bytearray(), 0
        if text:
            self._flush(text, length, end)

    def _flush(self, text: bytearray, length: int, end: str) -> None:
        """Write whole entries, which stand for length bytes of output."""
        if self.dropped:
            text[:0] = f'{{"log":"{(DROPPED % self.dropped).decode().strip()}\\n{end}'.encode()
        try:
            if self.fd < 0 or 0 < self.max_size <= self.size:
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
            for number in range(self.max_file - 1, 0, -1):
                older = self.path if number == 1 else f"{self.path}.{number - 1}"
                with contextlib.suppress(FileNotFoundError):
                    os.rename(older, f"{self.path}.{number}")
            if self.max_file == 1:
                os.truncate(self.path, 0)
        self._open()

    def close(self) -> None:
        """Write what is left without a newline, and close."""
        now = time.time_ns()
        for stream, rest in list(self.partial.items()):
            self._write(stream, [rest], now)
        self.partial.clear()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
