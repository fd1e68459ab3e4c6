"""A build's context on its way in: a tar becomes a directory, and each member gets the hash that COPY goes by.

The hashes are a file beside the directory: 64 hexadecimal digits, a blank, the member's name from the context's root, a NUL. A large file
that the Dockerfile is not likely to copy is moved to its place by the kernel, and hashed when COPY means it all the same: until then it has
a `+` and what its hash begins with as digits, and the hash itself is another line at the end. The name `/` says that a
file may be something else than its own member: it has several names, or was written through a symlink, or replaced.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from sampan.archive.apply import Reader, clean, write_all
from sampan.archive.extract import TreeExtractor
from sampan.archive.meant import Meant
from sampan.archive.reader import HARDLINK, REGULAR, Entry
from sampan.archive.room import Room
from sampan.archive.sources import LATER
from sampan.archive.tarsum import head_of, of_entry

ENTRIES_MAX: Final = 1_000_000
"""Members of one context."""
_READ: Final = 1 << 20
LATER_MIN: Final = 1 << 20
"""Bytes of a file that may be hashed when its hash is asked for."""
_DOCKERFILE_MAX: Final = 64 << 10
_FLUSH: Final = 1 << 16
ODD: Final = b"/"


class ContextExtractor(TreeExtractor):
    """Extracts a context into an empty directory. Call finish() after apply()."""

    def __init__(self, root_fd: int, sums_fd: int, dockerfile: bytes = b"") -> None:
        """Both stay the caller's. dockerfile: its name. Raises OSError."""
        super().__init__(root_fd, Room(root_fd, entries_max=ENTRIES_MAX))
        self._sums = sums_fd
        self._pending: list[bytes] = []
        self._length = 0
        self.odd = False
        """Whether members' hashes do not tell what the files are."""
        self._dockerfile = dockerfile
        self._meant: Meant | None = None

    def _one(self, entry: Entry, reader: Reader) -> None:
        name = clean(entry.name)
        self.odd = self.odd or entry.type == HARDLINK or entry.sparse is not None
        large = entry.type == REGULAR and entry.sparse is None and entry.size >= LATER_MIN
        if large and self._meant is not None and not self._meant.has(name):
            super()._one(entry, reader)
            self._note(LATER.encode() + head_of(entry).hex().encode() + b" " + name + b"\0")
            return
        digest = of_entry(entry)
        text = bytearray() if name == self._dockerfile and entry.size <= _DOCKERFILE_MAX else None
        data = _Hashed(reader, digest.update if text is None else _both(digest.update, text.extend))
        super()._one(entry, data)
        if entry.type == REGULAR:
            for _ in data.data():  # what nobody has asked for
                pass
        if text is not None:
            self._meant = Meant(bytes(text))
        self._note(digest.hexdigest().encode() + b" " + name + b"\0")

    def _note(self, line: bytes) -> None:
        self._pending.append(line)
        self._length += len(line)
        if self._length > _FLUSH:
            self._flush()

    def _open_parent(self, name: bytes) -> int:
        known = name == self._parent_name
        parent = super()._open_parent(name)
        self.odd = self.odd or (not known and self._is_indirect(name))
        return parent

    def finish(self) -> None:
        """Write what hashes are left to be written."""
        self.odd = self.odd or self._removed
        if self.odd:
            self._note(b"0" * 64 + b" " + ODD + b"\0")
        self._flush()

    def _flush(self) -> None:
        self._take(self._length, 0)
        write_all(self._sums, memoryview(b"".join(self._pending)))
        self._pending.clear()
        self._length = 0


def _both(first: Callable[[memoryview], object], second: Callable[[memoryview], object]) -> Callable[[memoryview], None]:
    def both(piece: memoryview) -> None:
        first(piece)
        second(piece)

    return both


class _Hashed:
    """A reader whose data is hashed as it passes."""

    def __init__(self, reader: Reader, update: Callable[[memoryview], object]) -> None:
        self._reader = reader
        self._update = update

    def moved(self, file: int, limit: int) -> int:
        """Nothing: all of it has to be seen."""
        del file, limit
        return 0

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._reader)

    def data(self) -> Iterator[memoryview]:
        """The current entry's."""
        for piece in self._reader.data():
            self._update(piece)
            yield piece


def read_sums(fd: int) -> dict[bytes, str]:
    """Hashes by name; of a name that came twice the last one. Others may read the file, and add to it."""
    data = bytearray()
    while piece := os.pread(fd, _READ, len(data)):
        data += piece
    found: dict[bytes, str] = {}
    for line in data.split(b"\0")[:-1]:
        digest, _, name = line.partition(b" ")
        found[bytes(name)] = digest.decode()
    return found


def told(sums: Mapping[bytes, str]) -> dict[bytes, str]:
    """The same for those who are not to make hashes: LATER alone for those that are still to be made."""
    return {name: LATER if digest.startswith(LATER) else digest for name, digest in sums.items()}


def add_sums(fd: int, sums: Mapping[bytes, str]) -> None:
    """Add hashes that were still to be made."""
    if sums:
        write_all(fd, memoryview(b"".join(digest.encode() + b" " + name + b"\0" for name, digest in sums.items())))
