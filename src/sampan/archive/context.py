"""A build's context on its way in: a tar becomes a directory, and each member gets the hash that COPY goes by.

The hashes are a file beside the directory: 64 hexadecimal digits, a blank, the member's name from the context's root, a NUL. The name `/`
says that a file may be something else than its own member: it has several names, or was written through a symlink, or replaced.
"""

import os
from collections.abc import Callable, Iterator
from typing import Final

from sampan.archive.apply import Reader, clean, write_all
from sampan.archive.extract import TreeExtractor
from sampan.archive.reader import HARDLINK, REGULAR, Entry
from sampan.archive.room import Room
from sampan.archive.tarsum import of_entry

ENTRIES_MAX: Final = 1_000_000
"""Members of one context."""
_FLUSH: Final = 1 << 16
ODD: Final = b"/"


class ContextExtractor(TreeExtractor):
    """Extracts a context into an empty directory. Call finish() after apply()."""

    def __init__(self, root_fd: int, sums_fd: int) -> None:
        """Both stay the caller's. Raises OSError."""
        super().__init__(root_fd, Room(root_fd, entries_max=ENTRIES_MAX))
        self._sums = sums_fd
        self._pending: list[bytes] = []
        self._length = 0
        self.odd = False
        """Whether members' hashes do not tell what the files are."""

    def _one(self, entry: Entry, reader: Reader) -> None:
        name, digest = clean(entry.name), of_entry(entry)
        self.odd = self.odd or entry.type == HARDLINK or entry.sparse is not None
        data = _Hashed(reader, digest.update)
        super()._one(entry, data)
        if entry.type == REGULAR:
            for _ in data.data():  # what nobody has asked for
                pass
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
    """Hashes by name; of a name that came twice the last one."""
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        found: dict[bytes, str] = {}
        for line in file.read().split(b"\0")[:-1]:
            found[line[65:]] = line[:64].decode()
    return found
