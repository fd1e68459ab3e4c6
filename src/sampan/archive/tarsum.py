"""What docker's classic builder calls a file's hash (moby pkg/tarsum, version 1): its tar header without the time, then its content.

It stands in an image's history (`COPY file:<hash> in /x`), and decides whether a COPY is the same as another.
"""

import hashlib
import os
import stat
from typing import Final

from sampan.archive.pack import KINDS
from sampan.archive.reader import REGULAR, Entry

_CAPABILITY: Final = "security.capability"


def _joined(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(key + value for key, value in fields)


def _decimal(number: int) -> bytes:
    return b"%d" % number


def _octal(field: bytes) -> int:
    """A header's number; one in base 256 that is no mode counts as 0."""
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else 0


def of_entry(entry: Entry) -> "hashlib._Hash":
    """The hash of an archive's member as far as its header goes; its data is to be added."""
    return hashlib.sha256(head_of(entry))


def head_of(entry: Entry) -> bytes:
    """What is hashed of a member before its data."""
    header, pax = entry.header, entry.pax
    fields = [
        (b"name", entry.name),
        (b"mode", _decimal(_octal(header[100:108]))),
        (b"uid", _decimal(entry.uid)),
        (b"gid", _decimal(entry.gid)),
        (b"size", _decimal(entry.size)),
        (b"typeflag", entry.type),
        (b"linkname", entry.link),
        (b"uname", pax.get(b"uname", header[265:297].partition(b"\0")[0])),
        (b"gname", pax.get(b"gname", header[297:329].partition(b"\0")[0])),
        (b"devmajor", _decimal(entry.major)),
        (b"devminor", _decimal(entry.minor)),
    ]
    return _joined([*fields, *sorted(entry.xattrs.items())])


def of_file(name: bytes, info: os.stat_result, link: bytes, capability: bytes | None) -> "hashlib._Hash":
    """The same for a file of an image, called `name` from its root; a regular one's content is to be added."""
    kind = stat.S_IFMT(info.st_mode)
    device = kind in (stat.S_IFCHR, stat.S_IFBLK)
    fields = [
        (b"name", name + b"/" if kind == stat.S_IFDIR else name),
        (b"mode", _decimal(info.st_mode & 0o7777)),
        (b"uid", _decimal(info.st_uid)),
        (b"gid", _decimal(info.st_gid)),
        (b"size", _decimal(info.st_size if kind == stat.S_IFREG else 0)),
        (b"typeflag", KINDS.get(kind, REGULAR)),
        (b"linkname", link),
        (b"uname", b""),
        (b"gname", b""),
        (b"devmajor", _decimal(os.major(info.st_rdev) if device else 0)),
        (b"devminor", _decimal(os.minor(info.st_rdev) if device else 0)),
    ]
    return hashlib.sha256(_joined([*fields, *([(_CAPABILITY.encode(), capability)] if capability is not None else [])]))
