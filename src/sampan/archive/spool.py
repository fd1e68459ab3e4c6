"""Write a tar stream to a file as it comes, and say where in it each member's bytes are. Nothing is extracted."""

import errno
import os
from collections.abc import Iterator
from typing import Final, NamedTuple

from sampan.archive import compression
from sampan.archive.apply import printable
from sampan.archive.reader import BLOCK, HARDLINK, REGULAR, SYMLINK, InvalidArchive, TarReader
from sampan.archive.room import Room
from sampan.archive.source import Source, TruncatedArchive

MEMBERS_MAX: Final = 65_536
_NAME_MAX: Final = 4095
"""Bytes of a name, and of what a symlink says: the kernel's PATH_MAX without its end."""
TEXT_MAX: Final = 16 << 20
"""Bytes of all names and targets of links together: sampand keeps them."""
_STEP = 1 << 20
_READ = 1 << 16
_TAR_MAGIC = slice(257, 262)


class Member(NamedTuple):
    """One file or link of the archive."""

    name: str
    """Cleaned: relative, without `.` and `..`; bytes that are not UTF-8 as surrogates."""
    offset: int
    """Of its bytes in the spooled file; -1: they do not lie there in one piece (a sparse member)."""
    size: int
    link: str
    """A symlink's target or (hard, cleaned) another member's name; then there are no bytes."""
    symlink: bool
    layer: bool
    """Whether its bytes begin as a tar does, compressed or not."""


class SpoolSource(Source):
    """Takes a pipe's bytes into a file; those that the reader skips are moved there by the kernel."""

    def __init__(self, pipe: int, output: int, room: Room) -> None:
        super().__init__(lambda limit: os.read(pipe, limit))
        self._pipe, self._output, self._room = pipe, output, room
        self._splices = True

    def begin(self, head: bytes) -> None:
        """Take bytes that were read from the pipe already."""
        self._keep(head)

    def _keep(self, piece: bytes) -> None:
        self._room.take(len(piece), 0)
        rest = self._buffer = memoryview(piece)
        while rest:
            rest = rest[os.write(self._output, rest) :]

    def _fill(self) -> bool:
        self._keep(self._read(_READ))
        return bool(self._buffer)

    def peek(self, size: int) -> bytes:
        """The next size bytes, at most a block, or fewer at the end; they stay to be read."""
        while len(self._buffer) < size:
            rest = bytes(self._buffer)
            if not self._fill():
                self._buffer = memoryview(rest)
                break
            self._buffer = memoryview(rest + bytes(self._buffer))
        return bytes(self._buffer[:size])

    def skip(self, size: int) -> None:
        """See Source.skip."""
        buffered = min(len(self._buffer), size)
        self._buffer = self._buffer[buffered:]
        self.consumed += buffered
        size -= buffered
        while size:
            moved = self._move(min(size, _STEP))
            if not moved:
                raise TruncatedArchive("unexpected EOF")
            self.consumed += moved
            size -= moved

    def _move(self, limit: int) -> int:
        self._room.take(limit, 0)
        if self._splices:
            try:
                return os.splice(self._pipe, self._output, limit)
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self._splices = False  # a file system without splice
        piece = os.read(self._pipe, limit)
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(self._output, rest) :]
        return len(piece)

    def drop_rest(self) -> None:
        """Read what follows the archive to the end of the stream, and forget it: the writer must not be killed by SIGPIPE."""
        while self._read(_STEP):
            pass


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def clean_member(name: bytes) -> str:
    """A member's name relative to the archive's root. Raises InvalidArchive for one that leads out, is absolute or too long."""
    shown = printable(name[:200])
    if len(name) > _NAME_MAX:
        raise InvalidArchive(f"the name of a member is too long: {len(name)} bytes, {shown!r}...")
    if name.startswith(b"/"):
        raise InvalidArchive(f"{shown!r} is outside of the archive: an absolute name")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise InvalidArchive(f"{shown!r} is outside of the archive: breakout")
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return _text(b"/".join(parts))


def _looks_like_layer(head: bytes) -> bool:
    return head[_TAR_MAGIC] == b"ustar" or bool(compression.detect(head))


def spool(source: SpoolSource) -> Iterator[Member]:
    """Write the whole stream; yields each file and link once its bytes are in the file.

    Directories are left out, devices and fifos too: nothing in an image archive is one. Raises InvalidArchive, TruncatedArchive,
    NoRoom, OSError.
    """
    pending: Member | None = None
    text = 0
    for count, entry in enumerate(TarReader(source)):
        if count >= MEMBERS_MAX:
            raise InvalidArchive(f"the archive has more than {MEMBERS_MAX} members")
        if pending is not None:
            yield pending  # the reader has moved past its bytes
        pending = None
        name = clean_member(entry.name)
        if entry.type == SYMLINK and len(entry.link) > _NAME_MAX:
            raise InvalidArchive(f"the target of a symlink is too long: {len(entry.link)} bytes")
        text += len(entry.name) + len(entry.link)
        if text > TEXT_MAX:
            raise InvalidArchive(f"the names of the archive's members take more than {TEXT_MAX} bytes")
        if entry.type == SYMLINK:
            pending = Member(name, -1, 0, _text(entry.link), True, False)
        elif entry.type == HARDLINK:
            pending = Member(name, -1, 0, clean_member(entry.link), False, False)
        elif entry.type == REGULAR and entry.sparse is not None:
            pending = Member(name, -1, entry.size, "", False, False)
        elif entry.type == REGULAR:
            layer = entry.size > 0 and _looks_like_layer(source.peek(min(entry.size, BLOCK)))
            pending = Member(name, source.consumed, entry.size, "", False, layer)
    if pending is not None:
        yield pending
    source.drop_rest()
