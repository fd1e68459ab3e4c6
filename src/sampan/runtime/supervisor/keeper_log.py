"""The keeper's log segments, into which all output goes, and the stage of what terminals write. A full disk drops, and says so."""

import contextlib
import mmap
import os
import struct

from sampan.runtime import logframe
from sampan.runtime.logframe import HEADER, MARKER, TRAILER, Position

DROPPED = b"[sampan: %d bytes of output were dropped: the log's disk was full]\n"
BUFFER_SIZE, BUFFER_FILES = 4 << 20, 3
"""The segments of drivers none and json-file keep only what attached readers may still need."""


class SegmentWriter:
    """Appends frames; rotates. Continues the directory's last segment."""

    def __init__(self, directory: str, max_size: int, max_file: int, *, ephemeral: bool = False, fresh: bool = False) -> None:
        """max_size in bytes, max_file segments are kept; -1 or 0 is unlimited. ephemeral: none is left at the end. fresh: begin one."""
        self.directory = directory
        self.max_size, self.max_file, self.ephemeral = max_size, max_file, ephemeral
        self.dropped = self.offset = 0
        self.fd = -1
        self.kept = logframe.segments(directory)
        last = self.kept[-1] if self.kept else 0
        self.number = last + 1 if fresh else max(last, 1)
        with contextlib.suppress(OSError):  # a full disk: until there is room, what comes is dropped
            os.makedirs(directory, 0o710, exist_ok=True)
            self._open(self.number)

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
        """Rotate if the segment is full. Raises OSError."""
        if self.fd < 0:
            self._open(self.number)
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
