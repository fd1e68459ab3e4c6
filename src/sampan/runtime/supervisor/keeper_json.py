"""docker's json-file: a file of JSON objects, made of what is in the segments. A full disk drops, and says so."""

import contextlib
import os
import struct
import time
from collections.abc import Callable, Iterator

from sampan.runtime import logframe
from sampan.runtime.logframe import HEADER, MARKER, STDERR, STDOUT, Position
from sampan.runtime.supervisor.keeper_log import DROPPED, SegmentWriter

JSON_LINE = 16 * 1024
"""Docker splits longer lines (moby daemon/logger/copier.go, defaultBufSize)."""
STREAMS = (STDOUT, STDERR, MARKER)
BLOCK = logframe.MAX_DATA + logframe.OVERHEAD
RENDERED = 2 << 20
"""What one read may become: in json-file's worst case, newlines only, every byte is an entry."""
ROTATED = 64
"""Bytes of log for each renaming of a rotation: many small files grow beyond max-size rather than make everybody wait."""
KINDS = ("", ".gz")
"""What the names of rotated files end in: sampand compresses them, and swap() puts the copies in their places."""
_ESCAPES = {
    **{code: f"\\u{code:04x}" for code in (*range(0x20), *b"<>&", 0x2028, 0x2029)},
    **dict.fromkeys(range(0xDC80, 0xDD00), "\\ufffd"),
    ord("\n"): "\n", ord("\r"): "\\r", ord('"'): '\\"', ord("\\"): "\\\\",
}  # fmt: skip
"""As docker writes strings (moby daemon/logger/jsonfilelog/jsonlog/jsonlogbytes.go); surrogates stand for bytes that are no UTF-8.

Newlines are left for _rendered()."""


class JsonFileWriter:
    """docker's json-file: a JSON object a line, lines over 16 KiB split, rotation by renaming to .1, .2, ..."""

    def __init__(self, path: str, max_size: int, max_file: int, attrs: str = "") -> None:
        """attrs: a JSON object that every line carries, or ""."""
        self.path, self.max_size, self.max_file = path, max_size, max(1, max_file)
        self.attrs = f'"attrs":{attrs},' if attrs else ""
        self.read_size = max(64, min(RENDERED // (len(self.attrs) + 80), self.max_size // 16 if self.max_size > 0 else RENDERED))
        """Bytes of output to append at once: the memory and the time of their entries, and the rotations between them, are bounded."""
        self.partial: dict[int, bytes] = {}
        self.rendered = dict.fromkeys(STREAMS, 0)
        """Bytes of each stream that are in the file, or had no room there."""
        self.on_flush: Callable[[], None] = lambda: None
        self.dropped = 0
        self.fd = -1
        self.size = self.older = 0
        self._count_older()
        self.rotated = self.older > 0
        """Whether there may be files that nobody has been told of."""
        with contextlib.suppress(OSError):
            self._open()

    def _open(self) -> None:
        self.fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
        self.size = os.fstat(self.fd).st_size

    def _count_older(self) -> None:
        """Up to the first gap, which a rotation that was killed has left: the next fills it, and overwrites nothing."""
        while self.older < self.max_file - 1 and _rotated(self.path, self.older + 1):
            self.older += 1

    def go_back(self, inode: int, size: int) -> None:
        """To where the file had this size; if it is another by now, it has been rotated since, and all that is in it came later."""
        if self.fd >= 0:
            size = size if os.fstat(self.fd).st_ino == inode else 0
            if self.size > size:
                os.ftruncate(self.fd, size)
                self.size = size

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
            self._put(stream, piece, end)

    def _put(self, stream: int, block: bytes, end: str) -> None:
        text = _rendered(block, end)
        half = len(block) // 2
        middle = block.find(b"\n", half, -1) + 1 or block.rfind(b"\n", 0, half) + 1
        if middle and self._is_full(self.size + len(text)):
            self._put(stream, block[:middle], end)
            self._put(stream, block[middle:], end)
        else:
            self._flush(text, len(block), end)
            self.rendered[stream] += len(block)
            self.on_flush()

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
            self._count_older()
            self.older = min(self.older + 1, self.max_file - 1)
            for kind in KINDS if self.older else ():  # the oldest: what comes in its place may be of the other kind
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(f"{self.path}.{self.older}{kind}")
            for number in range(self.older, 1, -1):
                for kind in KINDS:
                    with contextlib.suppress(FileNotFoundError):
                        os.rename(f"{self.path}.{number - 1}{kind}", f"{self.path}.{number}{kind}")
                        break
            if self.older:
                with contextlib.suppress(FileNotFoundError):
                    os.rename(self.path, f"{self.path}.1")
            if self.max_file == 1:
                os.truncate(self.path, 0)
            self.rotated = True
        self._open()

    def end_lines(self) -> None:
        """Write what is left without a newline."""
        now = time.time_ns()
        for stream, rest in list(self.partial.items()):
            self._write(stream, rest, now)
        self.partial.clear()

    def close(self) -> None:
        """Write what is left, and close."""
        self.end_lines()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class JsonFollower:
    """Brings what is in the segments into the json-file. A kill -9 at any instant loses nothing and repeats nothing.

    A record in the log's directory says how far it is: the file, its size then, a frame, and how much of each stream from there on is in
    the file. One write within a page, which no kill tears.
    """

    RECORD = struct.Struct("<7Q")
    """inode and size of the file, segment and offset of the frame, bytes of stdout, stderr and markers"""

    def __init__(self, writer: JsonFileWriter, segments: SegmentWriter, *, alone: bool) -> None:
        """Goes on where a former keeper was. alone: no other run of the container writes its log."""
        self.writer, self.segments = writer, segments
        self.at = segments.position
        self._fed, self._skip = dict.fromkeys(STREAMS, 0), dict.fromkeys(STREAMS, 0)
        self._begun: dict[int, tuple[Position, dict[int, int]]] = {}
        """Where the first byte of a stream's unfinished line is: the frame, and what was fed before it."""
        self._frame = (self.at, dict(self._fed))
        self._path = f"{segments.directory}/rendered"
        self._record = -1
        writer.on_flush = self._note
        if alone:
            with contextlib.suppress(OSError):
                self._record = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                self._resume(os.pread(self._record, self.RECORD.size, 0))
                self._note()  # a kill before the first entry is one, too

    def _resume(self, record: bytes) -> None:
        if len(record) == self.RECORD.size:
            inode, size, number, offset, *rendered = self.RECORD.unpack(record)
            self.writer.go_back(inode, size)
            self.at = number, offset
            self._skip = dict(zip(STREAMS, rendered, strict=True))
            self.writer.rendered = dict(self._skip)
            self.catch_up()

    def catch_up(self) -> None:
        """Render every frame that is there."""
        while self.at < self.segments.position:
            number, offset = self.at
            try:
                block = self._read(number, offset)
            except OSError:
                block = b""
            whole = logframe.whole_length(block)
            at = 0
            while at < whole:
                now, stream, length = HEADER.unpack_from(block, at)
                self._feed(stream, block[at + HEADER.size :][:length], now, (number, offset + at))
                at += length + logframe.OVERHEAD
            self.at = (number, offset + whole) if whole else (min((n for n in self.segments.kept if n > number), default=number + 1), 0)
        self._frame = (self.at, dict(self._fed))
        self._note()

    def _read(self, number: int, offset: int) -> bytes:
        if number == self.segments.number:
            return os.pread(self.segments.fd, min(self.segments.offset - offset, BLOCK), offset)
        fd = os.open(f"{self.segments.directory}/{logframe.segment_name(number)}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.pread(fd, BLOCK, offset)
        finally:
            os.close(fd)

    def _feed(self, stream: int, data: bytes, now: int, place: Position) -> None:
        self._frame = (place, dict(self._fed))
        self._fed[stream] += len(data)
        skipped = min(self._skip[stream], len(data))
        self._skip[stream] -= skipped
        before = self.writer.rendered[stream]
        for start in range(skipped, len(data), self.writer.read_size):
            self.writer.append(stream, data[start : start + self.writer.read_size], now)
        if stream not in self.writer.partial:
            self._begun.pop(stream, None)
        elif stream not in self._begun or self.writer.rendered[stream] != before:
            self._begun[stream] = self._frame

    def _note(self) -> None:
        if self._record >= 0 and self.writer.fd >= 0:
            place, fed = min([*self._begun.values(), self._frame], key=lambda frame: frame[0])
            rendered = [self.writer.rendered[stream] - fed[stream] for stream in STREAMS]
            with contextlib.suppress(OSError):
                inode = os.fstat(self.writer.fd).st_ino
                os.pwrite(self._record, self.RECORD.pack(inode, self.writer.size, *place, *rendered), 0)

    def end_line(self) -> None:
        """Unfinished lines are over."""
        self.writer.end_lines()
        self._begun.clear()

    def close(self) -> None:
        """All is rendered, and the run over."""
        self.catch_up()
        self.writer.close()
        if self._record >= 0:
            os.close(self._record)
            self._record = -1
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def _rotated(path: str, number: int) -> str:
    """The name of a rotated file, "" if there is none. Where a swap was killed both kinds are: the plain one counts, the other goes."""
    name = f"{path}.{number}"
    if not os.path.lexists(name):
        return f"{name}.gz" if os.path.lexists(f"{name}.gz") else ""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(f"{name}.gz")
    return name


def swap(path: str, number: int, original: list[int], copy: str) -> bool:
    """Put a compressed copy in the place of a rotated file, which rotations may have moved up. False: it is gone, so the copy goes.

    number: which it was. original: its inode, size and nanoseconds of its last change.
    """
    while name := _rotated(path, number):
        found = os.lstat(name)
        if [found.st_ino, found.st_size, found.st_mtime_ns] == original:
            os.rename(copy, f"{path}.{number}.gz")
            os.unlink(f"{path}.{number}")
            return True
        number += 1
    with contextlib.suppress(FileNotFoundError):
        os.unlink(copy)
    return False


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
