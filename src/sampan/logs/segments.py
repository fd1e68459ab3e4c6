"""Reading the keeper's log segments: forwards from any position, and backwards to find the last lines."""

import asyncio
import contextlib
import os

from sampan.logs.frames import Frame
from sampan.logs.lines import Skip, TailCount
from sampan.runtime import logframe
from sampan.runtime.logframe import HEADER, MARKER, OVERHEAD, TRAILER, Position

BLOCK = 1 << 20
FIRST_BLOCK = 64 * 1024
"""What is read at once on the way back: most want few lines, and the smallest frames take 10 ms for it."""


class SegmentSource:
    """The segments of one container's log directory."""

    def __init__(self, directory: str, position: Position | None = None) -> None:
        """Begins at position, or with the oldest segment."""
        self.directory = directory
        self._fd = -1
        self._held: dict[int, int] = {}
        """Descriptors of segments to come, by number."""
        first = logframe.segments(directory)
        self.position: Position = position if position is not None else (first[0] if first else 1, 0)
        self.limit: Position | None = None
        """Where to stop for good: the end of a run whose successor writes on into the same log."""

    def hold(self) -> None:
        """Open all that is left to read: the end of a run may be followed by its removal (`--rm`), and a slow reader is not done then."""
        current = self.position[0] - (self._fd < 0)
        for number in logframe.segments(self.directory):
            if number > current and number not in self._held:
                with contextlib.suppress(OSError):  # gone, or too many for our descriptors: the reader is told then
                    self._held[number] = os.open(self._path(number), os.O_RDONLY | os.O_CLOEXEC)

    def _following(self) -> list[int]:
        return sorted(number for number in {*logframe.segments(self.directory), *self._held} if number > self.position[0])

    def read(self) -> list[Frame]:
        """The next whole frames; goes on to the next segment where one ends. A notice tells what rotation took away unread."""
        while True:
            if self.limit is not None and self.position >= self.limit:
                return []
            notice = self._open()
            if notice:
                return notice
            if self._fd < 0:
                return []
            frames = self._block()
            if frames:
                return frames
            if not self._advance():
                return []

    def _open(self) -> list[Frame]:
        """Open the current segment unless it is open; if it is gone, the oldest that is left."""
        if self._fd >= 0:
            return []
        with contextlib.suppress(FileNotFoundError):
            held = self._held.pop(self.position[0], -1)
            self._fd = held if held >= 0 else os.open(self._path(self.position[0]), os.O_RDONLY | os.O_CLOEXEC)
            return []
        kept = self._following()
        if not kept:
            return []
        lost = kept[0] - self.position[0]
        self.position = (kept[0], 0)
        return [(MARKER, 0, f"[sampan: {lost} log segment(s) were rotated away before they were read]\n".encode())]

    def _path(self, number: int) -> str:
        return f"{self.directory}/{logframe.segment_name(number)}"

    def _block(self) -> list[Frame]:
        number, offset = self.position
        size = BLOCK
        if self.limit is not None and self.limit[0] == number:
            size = min(size, self.limit[1] - offset)
        block = os.pread(self._fd, size, offset)
        taken = logframe.whole_length(block)
        if not taken and len(block) == BLOCK:
            block = os.pread(self._fd, logframe.MAX_DATA + OVERHEAD, offset)
            taken = logframe.whole_length(block)
        frames: list[Frame] = []
        at = 0
        while at < taken:
            now, stream, length = HEADER.unpack_from(block, at)
            start = at + HEADER.size
            frames.append((stream, now, block[start : start + length]))
            at += OVERHEAD + length
        self.position = (number, offset + taken)
        return frames

    def _advance(self) -> bool:
        """To the next segment, if there is one and the current one holds no more."""
        following = self._following()
        if not following:
            return False
        # The segment may have grown between our last read and the birth of the next one.
        if logframe.whole_length(os.pread(self._fd, BLOCK, self.position[1])):
            return True
        os.close(self._fd)
        self._fd = -1
        if following[0] == self.position[0] + 1:
            self.position = (following[0], 0)
        return True

    async def seek_tail(self, count: int) -> Skip:
        """See frames.Source: walk backwards until the last count lines are complete."""
        tail = TailCount(count)
        self.close()
        for number in reversed(logframe.segments(self.directory)):
            try:
                fd = os.open(self._path(number), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                break
            self.close()
            self._fd, self.position = fd, (number, 0)
            self.position = (number, await self._walk(fd, tail))
            if tail.done:
                break
        return tail.skip()

    async def _walk(self, fd: int, tail: TailCount) -> int:
        """Tell tail the frames of one segment from its end, in blocks; returns the offset reached."""
        end = await _last_whole(fd)
        size = FIRST_BLOCK
        while end and not tail.done:
            begin = max(0, end - size)
            block = os.pread(fd, end - begin, begin)
            at = _tell_backwards(block, tail)
            if at < len(block):
                end, size = begin + at, FIRST_BLOCK
            else:
                wanted = OVERHEAD + TRAILER.unpack_from(block, at - TRAILER.size)[0] if at >= OVERHEAD else 0
                if not len(block) < wanted <= min(end, logframe.MAX_DATA + OVERHEAD):
                    break  # torn: what is before cannot be told
                size = wanted
            if not tail.done:
                await asyncio.sleep(0)
        return end

    def close(self) -> None:
        """Close the segments."""
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _tell_backwards(block: bytes, tail: TailCount) -> int:
    """Tell tail the whole frames that block ends in, until it is done; returns the offset of the first one told."""
    at = len(block)
    while at >= OVERHEAD and not tail.done:
        length = TRAILER.unpack_from(block, at - TRAILER.size)[0]
        start = at - OVERHEAD - length
        if start < 0:
            break
        _, stream, again = HEADER.unpack_from(block, start)
        if again != length:
            break
        tail.add(stream, block[start + HEADER.size : at - TRAILER.size])
        at = start
    return at


async def _last_whole(fd: int) -> int:
    """logframe.last_whole with turns for others."""
    size = os.fstat(fd).st_size
    if logframe.ends_whole(fd, size):
        return size
    position = 0
    while taken := logframe.whole_length(os.pread(fd, logframe.MAX_DATA + OVERHEAD, position)):
        position += taken
        await asyncio.sleep(0)
    return position
