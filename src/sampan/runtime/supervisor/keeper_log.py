"""The keeper's writers: log segments (always; they are also attach's buffer) and docker's json-file. A full disk drops, and says so."""

import contextlib
import json
import os
import time

from sampan.runtime import logframe
from sampan.runtime.logframe import HEADER, MARKER, TRAILER, Position

JSON_LINE = 16 * 1024
"""Docker splits longer lines (moby daemon/logger/copier.go, defaultBufSize)."""
NONE_SEGMENT = 4 << 20
"""Driver none keeps only what attached readers may still need."""


class SegmentWriter:
    """Appends frames; rotates. Continues the directory's last segment."""

    def __init__(self, directory: str, max_size: int, max_file: int) -> None:
        """max_size in bytes, max_file segments are kept; -1 or 0 is unlimited."""
        self.directory = directory
        self.max_size, self.max_file = max_size, max_file
        self.dropped = 0
        os.makedirs(directory, 0o710, exist_ok=True)
        self.kept = logframe.segments(directory)
        self.fd = -1
        self._open(self.kept[-1] if self.kept else 1)

    def _open(self, number: int) -> None:
        fd = os.open(f"{self.directory}/{logframe.segment_name(number)}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_APPEND, 0o640)
        end = logframe.end_of_segment(fd)
        os.ftruncate(fd, end)
        if self.fd >= 0:
            os.close(self.fd)
        self.fd, self.number, self.offset = fd, number, end
        if number not in self.kept:
            self.kept.append(number)

    @property
    def position(self) -> Position:
        """The end."""
        return self.number, self.offset

    def append(self, stream: int, data: bytes, now: int) -> None:
        """One frame. On a full or broken disk the data is counted as dropped, and a marker says so once there is room."""
        if self.dropped:
            text = f"[sampan: {self.dropped} bytes of output were dropped: the log's disk was full]\n".encode()
            if not self._write(MARKER, text, now):
                self.dropped += len(data)
                return
            self.dropped = 0
        if not self._write(stream, data, now):
            self.dropped += len(data)

    def _write(self, stream: int, data: bytes, now: int) -> bool:
        length = len(data)
        try:
            if 0 < self.max_size <= self.offset:
                self._rotate()
            written = os.writev(self.fd, (HEADER.pack(now, stream, length), data, TRAILER.pack(length)))
        except OSError:
            written = -1
        if written == length + logframe.OVERHEAD:
            self.offset += written
            return True
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, self.offset)
        return False

    def _rotate(self) -> None:
        self._open(self.number + 1)
        while 0 < self.max_file < len(self.kept):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self.directory}/{logframe.segment_name(self.kept.pop(0))}")

    def distance(self, position: Position) -> int:
        """About how many bytes lie between position and the end."""
        number, offset = position
        if number >= self.number:
            return self.offset - offset
        return self.offset + (self.number - number) * max(self.max_size, 0) - offset

    def close(self, *, remove: bool = False) -> None:
        """Close; remove: delete every segment (driver none)."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if remove:
            for number in self.kept:
                with contextlib.suppress(OSError):
                    os.unlink(f"{self.directory}/{logframe.segment_name(number)}")


class JsonFileWriter:
    """docker's json-file: a JSON object a line, lines over 16 KiB split, rotation by renaming to .1, .2, ..."""

    def __init__(self, path: str, max_size: int, max_file: int) -> None:
        self.path, self.max_size, self.max_file = path, max_size, max(1, max_file)
        self.partial: dict[int, bytes] = {}
        self.fd = -1
        with contextlib.suppress(OSError):
            self._open()

    def _open(self) -> None:
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.size = os.fstat(self.fd).st_size

    def append(self, stream: int, data: bytes, now: int) -> None:
        """Write the whole lines there are now. A failing disk loses them here; the segments say what was dropped."""
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
        if not entries:
            return
        seconds, fraction = divmod(now, 1_000_000_000)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{fraction:09d}".rstrip("0").rstrip(".") + "Z"
        name = "stderr" if stream == logframe.STDERR else "stdout"
        text = bytearray()
        for entry in entries:
            for start in range(0, len(entry), JSON_LINE):
                piece = entry[start : start + JSON_LINE].decode("utf-8", "replace")
                line = {"log": piece, "stream": name, "time": stamp}
                text += json.dumps(line, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        try:
            if self.fd < 0 or 0 < self.max_size <= self.size:
                self._rotate()
            self.size += os.write(self.fd, text)
        except OSError:
            pass

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
