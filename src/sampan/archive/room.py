"""How much an archive may take: the disk's free space and inodes are respected, so that a bomb never fills the host's disk."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from sampan.errors import SystemFailure

ENTRIES_MAX: Final = 4_000_000
"""Entries of one archive, whatever the disk has."""
_RESERVE_PART, _RESERVE_MAX = 20, 1 << 30
_BYTES_BETWEEN, _ENTRIES_BETWEEN = 32 << 20, 1000
_PARTS = 16


class NoRoom(Exception):
    """The disk has too little left for an archive. Nothing is wrong with the archive itself, as far as was seen."""


@contextmanager
def making(what: str) -> Iterator[None]:
    """Around making files of ours: raises SystemFailure for an OSError, which says why, and not where they lie."""
    try:
        yield
    except OSError as error:
        raise SystemFailure(f"cannot make {what}: {(error.strerror or str(error)).lower()}") from error


class Room:
    """Looks at a file system while an archive is written to it. A twentieth of it, at most 1 GiB, is left free; so are inodes."""

    def __init__(self, fd: int, *, entries_max: int = ENTRIES_MAX) -> None:
        """fd: anything on that file system; stays the caller's."""
        self._fd = fd
        self._entries_max = entries_max
        self._entries = 0
        self._bytes_left = 0
        self._entries_left = 0
        stat = os.fstatvfs(fd)
        self.capacity = stat.f_blocks * stat.f_frsize
        """Bytes that the file system could hold if it were empty"""

    def take(self, size: int, entries: int = 1) -> None:
        """Say that size bytes and some entries are about to be written. Raises NoRoom."""
        self._entries += entries
        if self._entries > self._entries_max:
            raise NoRoom(f"the archive has more than {self._entries_max} entries")
        self._bytes_left -= size
        self._entries_left -= entries
        if self._bytes_left >= 0 and self._entries_left >= 0:
            return
        stat = os.fstatvfs(self._fd)
        free, kept = stat.f_bavail * stat.f_frsize, min(stat.f_blocks * stat.f_frsize // _RESERVE_PART, _RESERVE_MAX)
        if free - size < kept:
            raise NoRoom(f"no space left on device: {size} bytes to write, {free} free, {kept} of them kept for others")
        # others may be at it too: the nearer the limit, the shorter the way to the next look
        self._bytes_left, self._entries_left = min(_BYTES_BETWEEN, (free - size - kept) // _PARTS), _ENTRIES_BETWEEN
        if stat.f_files:  # a file system without a fixed number of inodes says 0
            spare = stat.f_favail - entries - stat.f_files // _RESERVE_PART
            if spare < 0:
                kept = stat.f_files // _RESERVE_PART
                raise NoRoom(f"no space left on device: {stat.f_favail} inodes free, {kept} of them kept for others")
            self._entries_left = min(_ENTRIES_BETWEEN, spare // _PARTS)

    def asked(self, write: Callable[[memoryview], object]) -> Callable[[memoryview], None]:
        """A writer that asks before each piece."""

        def asked(piece: memoryview) -> None:
            self.take(len(piece), 0)
            write(piece)

        return asked
