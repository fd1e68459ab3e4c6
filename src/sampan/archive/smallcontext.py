"""A build's context of few bytes, looked at where it lies in memory: what COPY may find in it, before any of it is a file. Pure.

Only what is plain is told of: regular files and directories, each name once. For the rest (links, devices, names that come twice or lead
out, what is no archive, what .dockerignore takes back) a worker has to unpack it first, and says what is wrong.
"""

import os
from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from sampan import dockerignore
from sampan.archive.apply import clean
from sampan.archive.reader import DIRECTORY, REGULAR, TarReader
from sampan.archive.source import Source
from sampan.archive.sources import ListedNames
from sampan.archive.tarsum import of_entry

BYTES_MAX: Final = 256 << 10
_ENTRIES_MAX: Final = 1000
"""Files and directories, also those that only names tell of: a name may have two thousand of these."""
_NAMES_MAX: Final = 100_000
"""Bytes of all names."""
_IGNORE_MAX: Final = 4096
"""Bytes of .dockerignore that are looked at here: what patterns cost is whoever wrote them's choice."""
_KEPT_BYTES_MAX: Final = 64 << 10
"""Of one that is remembered."""


class SmallContext(NamedTuple):
    """What is in it."""

    names: ListedNames
    files: Mapping[str, bytes]
    """What is in the regular files."""


def listed(data: bytes, dockerfile: str) -> SmallContext | None:
    """What a tar has; None where a worker must look. dockerfile: its name, which is not to be withheld from COPY."""
    return _looked_at(data, dockerfile) if len(data) <= _KEPT_BYTES_MAX else _looked_at.__wrapped__(data, dockerfile)


@lru_cache(maxsize=4)  # a client packs what has not changed to the same bytes
def _looked_at(data: bytes, dockerfile: str) -> SmallContext | None:
    try:
        return _listed(data, dockerfile)
    except ValueError:  # a damaged archive: whoever unpacks it has the words
        return None


def _listed(data: bytes, dockerfile: str) -> SmallContext | None:
    pieces = iter((data,))
    reader = TarReader(Source(lambda _: next(pieces, b""), hashed=False), unpadded=True)
    entries: dict[bytes, tuple[str, str]] = {}
    files: dict[str, bytes] = {}
    for entry in reader:
        name = clean(entry.name)
        if entry.type not in (REGULAR, DIRECTORY) or entry.sparse is not None or name in entries or len(entries) >= _ENTRIES_MAX:
            return None
        digest = of_entry(entry)
        if entry.type == REGULAR:
            content = b"".join(reader.data())
            digest.update(content)
            files[os.fsdecode(name)] = content
        entries[name] = ("f" if entry.type == REGULAR else "d", digest.hexdigest())
    ignore = files.get(dockerfile + dockerignore.FILE_NAME, files.get(dockerignore.FILE_NAME, b""))
    if len(ignore) > _IGNORE_MAX or not _completed(entries) or dockerignore.withheld(ignore, dockerfile):
        return None
    order = sorted((name for name in entries if name), key=lambda name: name.split(b"/"))
    return SmallContext(ListedNames((os.fsdecode(name), *entries[name], "") for name in order), files)


def _completed(entries: dict[bytes, tuple[str, str]]) -> bool:
    """Add the directories that only the names below them tell of. False: a file stands in the place of one, or there are too many."""
    length = sum(map(len, entries))
    for name in list(entries):
        parent = name.rpartition(b"/")[0]
        while parent and parent not in entries:
            entries[parent] = ("d", "")
            length += len(parent)
            if len(entries) > _ENTRIES_MAX or length > _NAMES_MAX:
                return False
            parent = parent.rpartition(b"/")[0]
        if parent and entries[parent][0] != "d":
            return False
    return length <= _NAMES_MAX
