"""Files of a json-file log: plain ones, and rotated ones that were compressed since. A copy says in its header whose it is.

The header's extra field (RFC 1952, 2.3.1.1) has a subfield `sp`: inode, size and nanoseconds of the last change of the file it was made of.
That is how a reader that holds the file itself knows it again.
"""

import contextlib
import os
import struct
import threading
import time
import zlib
from typing import NamedTuple

RAW = 64 * 1024
"""What is read of a compressed file at once."""
BARREN = 16
"""Reads of a compressed file, one after the other, of which nothing comes: no copy of ours has so much of that."""
PIECE = 256 * 1024
_HEADER = struct.Struct("<4sIBBHHHQQQ")
"""magic, method and flags; time; extra flags; system; length of the extra field; its subfield's name and length; Origin"""
_START = b"\x1f\x8b\x08\x04"
_UNIX = 3
_SUBFIELD = int.from_bytes(b"sp", "little")
_TRAILER = struct.Struct("<II")


class Origin(NamedTuple):
    """Whose content a file has, for as long as somebody holds the one or the other. mtime: nanoseconds."""

    inode: int
    size: int
    mtime: int


def origin(fd: int) -> Origin:
    """A file as its own."""
    return _own(os.fstat(fd))


def _own(found: os.stat_result) -> Origin:
    return Origin(found.st_ino, found.st_size, found.st_mtime_ns)


class PlainFile:
    """A file of entries. Owns its descriptor."""

    def __init__(self, fd: int, copied: Origin | None = None, *, damaged: bool = False) -> None:
        """copied: what it was unpacked of. damaged: more was to come."""
        self.fd = fd
        self._copied = copied
        self.damaged = damaged
        """Whether less is here than there was; at the end."""

    @property
    def origin(self) -> Origin:
        """Whose content it has: final once it has been rotated."""
        return self._copied or origin(self.fd)

    def marks(self) -> set[tuple[int, ...]]:
        """Two files that have one in common are the same, or one is the other's compressed copy; while both are open."""
        found = os.fstat(self.fd)
        return {(found.st_dev, found.st_ino), self._copied or _own(found)}

    def read(self, size: int) -> bytes:
        """At most size bytes; b"" at the end, for now."""
        return os.read(self.fd, size)

    def rewind_if_truncated(self) -> bool:
        """To the beginning, if it has become shorter than what was read of it."""
        truncated = os.fstat(self.fd).st_size < os.lseek(self.fd, 0, os.SEEK_CUR)
        if truncated:
            os.lseek(self.fd, 0, os.SEEK_SET)
        return truncated

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


class CompressedFile:
    """A gzip file, unpacked as it is read, a block at a time. Owns its descriptor."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.origin = _copied_of(fd) or origin(fd)
        self.damaged = False
        """See PlainFile."""
        self._inflater: zlib._Decompress | None = None
        """Made when it is first read: all files of a log are open at once."""
        self._ended = False

    def marks(self) -> set[tuple[int, ...]]:
        """See PlainFile."""
        found = os.fstat(self.fd)
        return {(found.st_dev, found.st_ino), self.origin}

    def read(self, size: int) -> bytes:
        """At most size bytes; b"" at the end: of what could be read, if it is damaged."""
        inflater = self._inflater = self._inflater or zlib.decompressobj(zlib.MAX_WBITS | 16)
        for _ in range(BARREN):
            if self._ended or inflater.eof:
                return b""
            raw = inflater.unconsumed_tail or os.read(self.fd, RAW)
            try:
                data = inflater.decompress(raw, size)
            except zlib.error:
                break
            if data:
                return data
            if not raw and not inflater.eof:
                break
        self.damaged = self._ended = True
        return b""

    def rewind_if_truncated(self) -> bool:
        """It never is."""
        return False

    def unpack_into(self, target: int, stop: threading.Event) -> bool:
        """All of it, from the beginning, into another file; whether it was. Blocks. Raises OSError.

        No more than the header promises: a copy of another origin is asked for the size at its end.
        """
        copied = _copied_of(self.fd)
        left = copied.size if copied is not None else _promised(self.fd)
        while not stop.is_set() and (data := self.read(PIECE)):
            left -= len(data)
            if left < 0:
                return False
            _write(target, data)
        return not self.damaged

    def rewind(self) -> None:
        """To the beginning."""
        os.lseek(self.fd, 0, os.SEEK_SET)
        self._inflater, self._ended, self.damaged = None, False, False

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


LogFile = PlainFile | CompressedFile


def _copied_of(fd: int) -> Origin | None:
    """What a compressed file was made of, None if it does not say so."""
    head = os.pread(fd, _HEADER.size, 0)
    if len(head) < _HEADER.size:
        return None
    start, _, _, _, extra, name, length, *values = _HEADER.unpack(head)
    known = (start, name) == (_START, _SUBFIELD) and length == 24 and extra >= 28
    return Origin(*values) if known else None


def _promised(fd: int) -> int:
    size = os.fstat(fd).st_size
    return _TRAILER.unpack(os.pread(fd, _TRAILER.size, size - _TRAILER.size))[1] if size > _TRAILER.size else 0


def opened(path: str, number: int) -> LogFile | None:
    """A file of the log at path: the current one (0), or a rotated one, of either kind. None: there is none. Raises OSError.

    Of both kinds the plain one counts: a copy is put in its place before it goes.
    """
    for name in (f"{path}.{number}", f"{path}.{number}.gz") if number else (path,):
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            file = CompressedFile(fd) if name.endswith(".gz") and number else PlainFile(fd)
            undo.pop_all()
        return file
    return None


def same(one: LogFile, other: LogFile) -> bool:
    """See PlainFile.marks."""
    return not one.marks().isdisjoint(other.marks())


def compress(source: int, target: int, stop: threading.Event) -> Origin | None:
    """Write a compressed copy of source into target, with its rights; what it is a copy of, None if stop was set or source has changed.

    Half of the time it does nothing, for others to have the processor. Raises OSError.
    """
    made_of, found = origin(source), os.fstat(source)
    os.fchown(target, found.st_uid, found.st_gid)
    os.fchmod(target, found.st_mode & 0o7777)
    deflater, checksum, offset = zlib.compressobj(wbits=-zlib.MAX_WBITS), 0, 0
    head = _HEADER.pack(_START, int(found.st_mtime) & 0xFFFFFFFF, 0, _UNIX, 28, _SUBFIELD, 24, *made_of)
    _write(target, head)
    while data := os.pread(source, min(PIECE, made_of.size - offset), offset):
        began = time.thread_time()
        offset += len(data)
        checksum = zlib.crc32(data, checksum)
        _write(target, deflater.compress(data))
        if stop.wait(time.thread_time() - began):
            return None
    _write(target, deflater.flush() + _TRAILER.pack(checksum, offset & 0xFFFFFFFF))
    os.utime(target, ns=(found.st_mtime_ns, found.st_mtime_ns))
    return made_of if origin(source) == made_of and offset == made_of.size else None


def _write(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
