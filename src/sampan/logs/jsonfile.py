"""Reading docker's json-file: rotated files from the oldest, then the current one for as long as it grows."""

import asyncio
import calendar
import contextlib
import itertools
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import msgspec

from sampan.linux.nameless import nameless_file
from sampan.logs.frames import Frame
from sampan.logs.lines import LINE_LOOKBACK, Skip, TailCount
from sampan.logs.rotated import CompressedFile, LogFile, PlainFile, opened, same
from sampan.runtime.logframe import MARKER, STDERR, STDOUT

BLOCK = 1 << 20
FIRST_BLOCK = 64 * 1024
"""What is read of the end first: most who ask for the last lines want few."""

OVERTAKEN = b"[sampan: the log was rotated faster than it was read; lines may be missing here]\n"
DAMAGED = b"[sampan: a rotated file of the log cannot be read to its end; lines are missing here]\n"
LOOK_SECONDS = 0.05
"""How long a log is looked at again because it was rotated meanwhile; then its files may come in a wrong order, but none twice."""

_unpacking = ThreadPoolExecutor(1, "unpack")
"""One file at a time, whoever reads: neither the processors nor the threads of the others are for that."""


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
    """LogPath and its rotated predecessors path.1 (youngest), path.2, ..., plain or compressed (path.1.gz)."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._rest = b""
        self._files: list[LogFile] = []
        """What is left to read, the oldest first."""
        self._overtaken = False
        """Of the files since ours some may have been rotated away."""
        self._reopen()

    def read(self) -> list[Frame]:
        """The next entries as frames; [] when there are none now."""
        while True:
            if not self._files and not self._reopen():
                return []
            file = self._files[0]
            block = file.read(BLOCK)
            if block:
                lines = (self._rest + block).split(b"\n")
                self._rest = lines.pop()
                if len(self._rest) > LINE_LOOKBACK:  # no entry is so long
                    self._rest = b""
                frames = decode(lines)
                if frames:
                    return frames
            elif file.damaged:
                file.damaged, self._rest = False, b""
                return [(MARKER, 0, DAMAGED)]
            elif len(self._files) > 1:
                self._files.pop(0).close()
                self._rest = b""
            elif self._reopen():  # what was written before the rotation and after we looked comes first
                if self._overtaken:
                    self._overtaken = False
                    return [(MARKER, 0, OVERTAKEN)]
            else:
                if file.rewind_if_truncated():  # max-file=1 truncates in place
                    self._rest = b""
                return []

    def _reopen(self) -> bool:
        """After rotations, the files that came after ours; whether there are any."""
        ends_at = time.monotonic() + LOOK_SECONDS
        while True:
            with contextlib.ExitStack() as undo:
                newer, met = self._newer(undo)
                if (met and not newer) or self._is_current(newer) or time.monotonic() >= ends_at:
                    undo.pop_all()
                    break
        self._overtaken = bool(self._files) and not met and len(newer) > 1
        self._files += reversed(newer)
        return bool(newer)

    def _newer(self, undo: contextlib.ExitStack) -> tuple[list[LogFile], bool]:
        """The files that are younger than ours, the youngest first, which undo closes; whether ours is there still.

        A rotation under way, or one that was killed, leaves out a number; a file it has just renamed is met twice.
        """
        newer: list[LogFile] = []
        known: set[tuple[int, ...]] = set()
        missing = 0
        for number in itertools.count():
            file = opened(self.path, number)
            if file is None:
                missing += 1
                if missing > 1:
                    return newer, False
                continue
            missing = 0
            its = file.marks()
            if self._files and not its.isdisjoint(self._files[-1].marks()):
                file.close()
                return newer, True
            if known.isdisjoint(its):
                known |= its
                newer.append(file)
                undo.callback(file.close)
            else:
                file.close()
        raise AssertionError

    def _is_current(self, newer: list[LogFile]) -> bool:
        """Whether the log has not been rotated since these were opened: their order is right, and none is left out between them."""
        youngest = newer[0] if newer else self._files[-1] if self._files else None
        now = opened(self.path, 0) or opened(self.path, 1)  # a rotation has renamed it, and is about to make the next
        if now is None:
            return True
        current = youngest is not None and same(now, youngest)
        now.close()
        return current

    async def seek_tail(self, count: int) -> Skip:
        """See frames.Source: read backwards in growing blocks, from the current file's end to older ones."""
        tail = TailCount(count)
        reached = place = 0
        for place in reversed(range(len(self._files))):
            file = self._files[place]
            if isinstance(file, CompressedFile):
                reached = await self._walk_unpacked(place, file, tail)
            else:
                reached = await _walk(file.fd, tail)
            if tail.done:
                break
        for file in self._files[:place]:
            file.close()
        self._files = self._files[place:]
        if self._files and isinstance(self._files[0], PlainFile):  # else it is to be read from its beginning
            os.lseek(self._files[0].fd, reached, os.SEEK_SET)
        return tail.skip()

    async def _walk_unpacked(self, place: int, file: CompressedFile, tail: TailCount) -> int:
        """See _walk. What is unpacked stays if the reading begins in there, or if it is not all there is."""
        plain = await _unpacked(file, os.path.dirname(self.path))
        with contextlib.ExitStack() as undo:
            undo.callback(plain.close)
            reached = await _walk(plain.fd, tail)
            if tail.done or plain.damaged:
                undo.pop_all()
                self._files[place] = plain
                file.close()
            else:
                file.rewind()
        return reached

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.close()
        self._files = []


async def _unpacked(file: CompressedFile, directory: str) -> PlainFile:
    """A compressed file as a plain one, whose end can be read first: on the disk in directory, by no name."""
    try:
        target = nameless_file(directory)
    except OSError:
        return PlainFile(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC), file.origin, damaged=True)
    stop = threading.Event()

    def unpack(source: CompressedFile, into: int) -> bool:
        try:
            return source.unpack_into(into, stop)
        except OSError:
            return False
        finally:
            source.close()
            os.close(into)

    with contextlib.ExitStack() as undo:
        plain = PlainFile(target, file.origin)
        undo.callback(plain.close)
        with contextlib.ExitStack() as owned:  # by the thread: it may go on for a while when nobody waits any more
            source = CompressedFile(os.dup(file.fd))
            owned.callback(source.close)
            into = os.dup(target)
            owned.callback(os.close, into)
            undo.callback(stop.set)
            work = asyncio.get_running_loop().run_in_executor(_unpacking, unpack, source, into)
            owned.pop_all()
        plain.damaged = not await asyncio.shield(work)
        os.lseek(target, 0, os.SEEK_SET)
        undo.pop_all()
    return plain


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
