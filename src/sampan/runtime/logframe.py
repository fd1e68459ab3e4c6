"""The format of log segments, shared by the keeper (which writes) and logs/ (which reads). Standard library only.

A container's log directory holds segments `00000001.seg`, `00000002.seg`, ... A segment is a row of frames:

    0   u64  nanoseconds since the epoch
    8   u8   stream: 1 stdout (or the tty), 2 stderr, 3 a marker: text from the engine itself (data was dropped)
    9   3 x  zero
    12  u32  length n of the data
    16  n    the bytes as read, not lines
    16+n u32 n again, so that a reader can walk backwards

Little-endian. A position is (segment number, byte offset of a frame).
"""

import os
import struct
from typing import Final

HEADER: Final = struct.Struct("<QBxxxI")
TRAILER: Final = struct.Struct("<I")
OVERHEAD: Final = HEADER.size + TRAILER.size
STDOUT, STDERR, MARKER = 1, 2, 3
MAX_DATA: Final = 1 << 20
"""No frame is longer; a reader that meets a longer one is in a torn place."""

Position = tuple[int, int]


def segment_name(number: int) -> str:
    """The file name of a segment."""
    return f"{number:08d}.seg"


def segments(directory: str) -> list[int]:
    """Numbers of the segments that exist, oldest first; [] for no directory."""
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(int(name[:-4]) for name in names if name.endswith(".seg") and name[:-4].isdecimal())


def whole_length(data: bytes | memoryview, start: int = 0) -> int:
    """Offset after the last whole frame of data, beginning at start."""
    size, position = len(data), start
    while position + OVERHEAD <= size:
        length = HEADER.unpack_from(data, position)[2]
        end = position + OVERHEAD + length
        if length > MAX_DATA or end > size or TRAILER.unpack_from(data, end - TRAILER.size)[0] != length:
            break
        position = end
    return position


def ends_whole(fd: int, size: int) -> bool:
    """Whether the last frame of a segment of size bytes is whole."""
    if size < OVERHEAD:
        return False
    length = TRAILER.unpack(os.pread(fd, TRAILER.size, size - TRAILER.size))[0]
    start = size - OVERHEAD - length
    return bool(length <= MAX_DATA and start >= 0 and HEADER.unpack(os.pread(fd, HEADER.size, start))[2] == length)


def last_whole(fd: int) -> int:
    """Offset after the last whole frame of a segment; what follows is being written, or was torn by a kill -9."""
    size = os.fstat(fd).st_size
    if ends_whole(fd, size):
        return size
    position = 0
    while True:
        block = os.pread(fd, 4 * MAX_DATA, position)
        taken = whole_length(block)
        if not taken:
            return position
        position += taken


def mend(fd: int) -> int:
    """Make the segment end with a whole frame; returns its size.

    The keeper moves a pipe's data into the segment with splice(2): what a kill -9 left after the last header has already been taken out of
    the pipe, so a torn frame is completed with what it has, never cut off.
    """
    size = os.fstat(fd).st_size
    end = last_whole(fd)
    if end == size:
        return size
    head = os.pread(fd, HEADER.size, end)
    present = size - end - HEADER.size
    if len(head) < HEADER.size or present <= 0:
        os.ftruncate(fd, end)
        return end
    now, stream, length = HEADER.unpack(head)
    length = min(length, present, MAX_DATA)
    os.pwrite(fd, HEADER.pack(now, stream, length), end)
    os.pwrite(fd, TRAILER.pack(length), end + HEADER.size + length)
    os.ftruncate(fd, end + OVERHEAD + length)
    return int(end + OVERHEAD + length)
