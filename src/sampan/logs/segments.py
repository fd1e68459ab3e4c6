"""Reading the keeper's log segments: forwards from any position, and backwards to find the last lines."""

import contextlib
import mmap
import os

from sampan.logs.frames import Frame
from sampan.logs.lines import Skip, TailCount
from sampan.runtime import logframe
from sampan.runtime.logframe import HEADER, MARKER, OVERHEAD, TRAILER, Position

BLOCK = 1 << 20
LINE_LOOKBACK = 4 << 20
"""How far before the last lines the beginning of one is looked for: a stream may have written half a line hours ago."""


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
                with contextlib.suppress(FileNotFoundError):
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

    def seek_tail(self, count: int) -> Skip:
        """See frames.Source: walk backwards until the last count lines are complete."""
        walk = _Walk(count)
        numbers = logframe.segments(self.directory)
        self.close()
        for number in reversed(numbers):
            try:
                fd = os.open(self._path(number), os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                break
            try:
                offset = walk.segment(fd)
            finally:
                os.close(fd)
            self.position = (number, offset)
            if walk.done:
                break
        return walk.tail.skip()

    def close(self) -> None:
        """Close the segments."""
        for fd in self._held.values():
            os.close(fd)
        self._held.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Walk:
    """State of a walk backwards over frames."""

    def __init__(self, count: int) -> None:
        self.tail = TailCount(count)
        self.done = False
        self._enough_at = -1
        self._walked = 0

    def segment(self, fd: int) -> int:
        """Walk over one segment from its end; returns the offset reached."""
        end = logframe.last_whole(fd)
        if not end:
            return 0
        with mmap.mmap(fd, end, prot=mmap.PROT_READ) as view:
            while end and not self.done:
                length = TRAILER.unpack_from(view, end - TRAILER.size)[0]
                start = end - OVERHEAD - length
                _, stream, again = HEADER.unpack_from(view, start)
                if again != length:
                    break
                self._frame(stream, view[start + HEADER.size : end - TRAILER.size])
                end = start
        return end

    def _frame(self, stream: int, data: bytes) -> None:
        self._walked += len(data)
        self.tail.add(stream, data)
        if self.tail.lines > self.tail.count and self._enough_at < 0:
            self._enough_at = self._walked
        self.done = not self.tail.count or self.tail.begun or 0 <= self._enough_at < self._walked - LINE_LOOKBACK
