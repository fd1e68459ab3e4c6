"""A streaming tar reader for hostile input: ustar, PAX, GNU long names, base-256 numbers, sparse files of all four kinds.

Names are bytes, never decoded. Memory is bounded: one header, extended headers of at most 1 MiB, one chunk of data.
Sources: POSIX.1-2017 pax "ustar Interchange Format"; GNU tar manual, "Basic Tar Format", "Storing Sparse Files"; Go archive/tar (limits).
"""

import os
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from sampan.archive.source import Source, TruncatedArchive

BLOCK: Final = 512
SPECIAL_MAX: Final = 1 << 20
"""Bytes of one extended header: Go's maxSpecialFileSize."""
SPECIALS_MAX: Final = 32
"""Extended headers before one entry; real archives have up to four."""
SPARSE_MAX: Final = 1 << 16
"""Fragments of one sparse file."""

REGULAR, HARDLINK, SYMLINK, CHAR, BLOCKDEV, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_CONTIGUOUS, _GNU_SPARSE = b"7", b"S"
_HAS_NO_DATA = frozenset((HARDLINK, SYMLINK, CHAR, BLOCKDEV, DIRECTORY, FIFO))
XATTR_PREFIX: Final = b"SCHILY.xattr."
_PAX_NAMES: Final = frozenset((b"path", b"linkpath", b"uname", b"gname"))
_ZERO_BLOCK = bytes(BLOCK)
_BAD_HEADER = "archive/tar: invalid tar header"
_DECIMAL_TIME = re.compile(rb"(-?)(\d{1,19})(?:\.(\d*))?")
_DECIMAL = re.compile(rb"\d{1,19}")
_SIZE_MAX = (1 << 63) - 1
_TIME_MAX = (1 << 63) - 1
"""Seconds that a time_t holds; file systems hold less, and the kernel then takes what is nearest."""


class InvalidArchive(ValueError):
    """The bytes are not a tar archive we accept."""


class Entry:
    """One member. `size` is that of the file as extracted; `stored` the bytes its data takes in the archive.

    header, pax: what it was read from.
    """

    __slots__ = (
        "gid", "header", "link", "major", "minor", "mode", "mtime_ns", "name", "pax", "size", "sparse", "stored", "type", "uid", "xattrs",
    )  # fmt: skip

    def __init__(self, header: bytes) -> None:
        self.header = header
        self.pax: dict[bytes, bytes] = {}
        self.name = _text(header, 0, 100)
        self.mode = _number(header, 100, 8) & 0o7777
        self.uid = _number(header, 108, 8)
        self.gid = _number(header, 116, 8)
        self.size = self.stored = _number(header, 124, 12)
        self.mtime_ns = _clamped(_number(header, 136, 12, signed=True) * 1_000_000_000)
        self.type = REGULAR if header[156:157] in (b"\0", _CONTIGUOUS) else header[156:157]
        self.link = _text(header, 157, 100)
        self.major = self.minor = 0
        if self.type in (CHAR, BLOCKDEV):
            self.major, self.minor = _number(header, 329, 8), _number(header, 337, 8)
        self.xattrs: dict[bytes, bytes] = {}
        self.sparse: list[tuple[int, int]] | None = None
        if header[257:263] == b"ustar\0" and header[345]:
            self.name = _text(header, 345, 155) + b"/" + self.name

    @classmethod
    def of_file(cls, name: bytes, kind: bytes, info: os.stat_result, link: bytes = b"") -> "Entry":
        """A member that no archive has: a file as it lies on a disk. Its xattrs are still to be filled in."""
        entry = cls.__new__(cls)
        entry.name, entry.type, entry.link = name, kind, link
        entry.mode, entry.uid, entry.gid = info.st_mode & 0o7777, info.st_uid, info.st_gid
        entry.size = entry.stored = info.st_size if kind == REGULAR else 0
        entry.mtime_ns = info.st_mtime_ns // 1_000_000_000 * 1_000_000_000  # as in an archive
        entry.major = entry.minor = 0
        if kind in (CHAR, BLOCKDEV):
            entry.major, entry.minor = os.major(info.st_rdev), os.minor(info.st_rdev)
        entry.header, entry.pax, entry.xattrs, entry.sparse = b"", {}, {}, None
        return entry


def _text(header: bytes, start: int, length: int) -> bytes:
    return header[start : start + length].partition(b"\0")[0]


def _number(header: bytes, start: int, length: int, *, signed: bool = False) -> int:
    """An octal or base-256 field. Raises InvalidArchive."""
    return _parsed(header[start : start + length], signed)


@lru_cache(maxsize=256)  # modes, owners and times repeat
def _parsed(field: bytes, signed: bool) -> int:
    digits = field[:-1]
    if digits.isdigit() and field[-1] in (0, 32):  # nearly always
        try:
            return int(digits, 8)
        except ValueError:
            raise InvalidArchive(_BAD_HEADER) from None
    if field[0] & 0x80:
        value = (
            int.from_bytes(field, "big", signed=True) if field[0] == 0xFF else int.from_bytes(bytes((field[0] & 0x7F,)) + field[1:], "big")
        )
    else:
        digits = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
        if not digits:
            return 0
        if digits.strip(b"01234567"):
            raise InvalidArchive(_BAD_HEADER)
        value = int(digits, 8)
    if value > _SIZE_MAX or (value < 0 and not signed):
        raise InvalidArchive(_BAD_HEADER)
    return value


def _check_sum(header: bytes) -> None:
    expected = _number(header, 148, 8)
    field = header[148:156]
    unsigned = sum(header) - sum(field) + 256  # the field itself counts as eight blanks
    # historic tars summed signed chars
    if expected != unsigned and expected != unsigned - 256 * sum(byte >= 128 for byte in header[:148] + header[156:]):
        raise InvalidArchive(_BAD_HEADER)


def parse_pax(payload: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Records of an extended header, in order. Raises InvalidArchive."""
    position = 0
    while position < len(payload):
        if payload[position] == 0 and not payload[position:].strip(b"\0"):
            return
        space = payload.find(b" ", position, position + 20)
        if space < 0 or not _DECIMAL.fullmatch(payload, position, space):
            raise InvalidArchive(_BAD_HEADER)
        end = position + int(payload[position:space])
        if end <= space + 2 or end > len(payload) or payload[end - 1] != 0x0A:
            raise InvalidArchive(_BAD_HEADER)
        key, equals, value = payload[space + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise InvalidArchive(_BAD_HEADER)
        yield key, value
        position = end


def _merged(payload: bytes) -> dict[bytes, bytes]:
    """Records by key, the last one counting; the repeated pairs of sparse format 0.0 become one map, as in 0.1."""
    records: dict[bytes, bytes] = {}
    pairs: list[bytes] = []
    for key, value in parse_pax(payload):
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            pairs.append(value)
        else:
            records[key] = value
    if pairs:
        records[b"GNU.sparse.map"] = b",".join(pairs)
    return records


def _pax_integer(value: bytes) -> int:
    if not _DECIMAL.fullmatch(value) or int(value) > _SIZE_MAX:
        raise InvalidArchive(_BAD_HEADER)
    return int(value)


def _pax_time(value: bytes) -> int:
    match = _DECIMAL_TIME.fullmatch(value)
    if match is None:
        raise InvalidArchive(_BAD_HEADER)
    ns = int(match[2]) * 1_000_000_000 + int((match[3] or b"").ljust(9, b"0")[:9])
    return _clamped(-ns if match[1] else ns)


def _clamped(ns: int) -> int:
    return max(min(ns, _TIME_MAX * 1_000_000_000), -_TIME_MAX * 1_000_000_000)


def _fragments(numbers: list[int], size: int) -> list[tuple[int, int]]:
    """(offset, length) pairs, checked: in order, not overlapping, inside the file."""
    if len(numbers) % 2 or len(numbers) > 2 * SPARSE_MAX:
        raise InvalidArchive("invalid sparse map")
    pairs = list(zip(numbers[::2], numbers[1::2], strict=True))
    position = 0
    for offset, length in pairs:
        if offset < position or length < 0 or offset + length > size:
            raise InvalidArchive("invalid sparse map")
        position = offset + length
    return [pair for pair in pairs if pair[1]]


class TarReader:
    """Iterate over entries; between two of them read the current one's data by `data()`. What is not read is skipped."""

    def __init__(self, source: Source, *, unpadded: bool = False) -> None:
        """unpadded: the last member's data may end the stream: the docker client writes such contexts, and Go reads them."""
        self._source = source
        self._unpadded = unpadded
        self._left = 0
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        """Yield entries. Raises InvalidArchive or TruncatedArchive."""
        pax: dict[bytes, bytes] = {}
        long_name = long_link = None
        specials = 0
        while (header := self._header()) is not None:
            entry = Entry(header)
            if entry.type in (b"x", b"g", b"L", b"K"):
                specials += 1
                if specials > SPECIALS_MAX:
                    raise InvalidArchive(f"more than {SPECIALS_MAX} extended headers before an entry")
                payload = self._special(entry.stored)
                if entry.type == b"x":
                    pax = _merged(payload)
                elif entry.type == b"L":
                    long_name = payload.partition(b"\0")[0]
                elif entry.type == b"K":
                    long_link = payload.partition(b"\0")[0]
                continue
            entry.name = entry.name if long_name is None else long_name
            entry.link = entry.link if long_link is None else long_link
            old_map = self._old_gnu_map(header) if entry.type == _GNU_SPARSE else None
            self._apply_pax(entry, pax)
            entry.pax = pax
            if entry.type in _HAS_NO_DATA:
                entry.size = entry.stored = 0
            self._left, self._padding = entry.stored, -entry.stored % BLOCK
            self._set_sparse(entry, header, old_map, pax)
            if entry.type == REGULAR and entry.name.endswith(b"/"):
                entry.type = DIRECTORY  # tars older than ustar write directories so
            if b"\0" in entry.name or b"\0" in entry.link:
                raise InvalidArchive(_BAD_HEADER)
            yield entry
            pax, long_name, long_link, specials = {}, None, None, 0
            self._skip()

    def _header(self) -> bytes | None:
        """The next header block, or None at the end of the archive."""
        first = self._source.some(BLOCK)
        if not first:
            return None
        header = bytes(first)
        if len(header) < BLOCK:
            header += self._source.exact(BLOCK - len(header))
        if header == _ZERO_BLOCK:
            self._check_end()
            return None
        _check_sum(header)
        return header

    def _check_end(self) -> None:
        """Two blocks of zeros are an end, so is one at the stream's; behind a single one entries would be hidden from us alone."""
        second = b""
        while len(second) < BLOCK and (piece := self._source.some(BLOCK - len(second))):
            second += piece
        if second.strip(b"\0"):
            raise InvalidArchive(_BAD_HEADER)

    def _special(self, size: int) -> bytes:
        if size > SPECIAL_MAX:
            raise InvalidArchive("archive/tar: header field too long")
        return self._source.exact(size + -size % BLOCK)[:size]

    def _skip(self) -> None:
        if self._unpadded:
            self._source.skip(self._left)
            while self._padding and (piece := self._source.some(self._padding)):
                self._padding -= len(piece)
        else:
            self._source.skip(self._left + self._padding)
        self._left = self._padding = 0

    def data(self) -> Iterator[memoryview]:
        """The current entry's stored bytes in pieces (for a sparse file: its fragments, one after the other). The source's tee is off."""
        tee, self._source.tee = self._source.tee, None
        try:
            while self._left:
                piece = self._source.some(self._left)
                if not piece:
                    raise TruncatedArchive("unexpected EOF")
                self._left -= len(piece)
                yield piece
        finally:
            self._source.tee = tee

    def moved(self, file: int, limit: int) -> int:
        """Move up to limit bytes of what data() would give next, as Source.moved() does."""
        count = self._source.moved(file, min(limit, self._left))
        self._left -= count
        return count

    @staticmethod
    def _apply_pax(entry: Entry, pax: dict[bytes, bytes]) -> None:
        for key, value in pax.items():
            if b"\0" in (value if key in _PAX_NAMES else key):  # as Go has it (archive/tar, validPAXRecord)
                raise InvalidArchive(_BAD_HEADER)
            if key == b"path" and value:
                entry.name = value
            elif key == b"linkpath" and value:
                entry.link = value
            elif key == b"size" and value:
                entry.size = entry.stored = _pax_integer(value)
            elif key == b"uid" and value:
                entry.uid = _pax_integer(value)
            elif key == b"gid" and value:
                entry.gid = _pax_integer(value)
            elif key == b"mtime" and value:
                entry.mtime_ns = _pax_time(value)
            elif key.startswith(XATTR_PREFIX):
                entry.xattrs[key[len(XATTR_PREFIX) :]] = value

    def _old_gnu_map(self, header: bytes) -> list[int]:
        """Offsets and lengths from an old GNU sparse header and its extension blocks."""
        numbers: list[int] = []
        block, position, count, more = header, 386, 4, header[482]
        while True:
            for index in range(count):
                field = position + 24 * index
                if not block[field]:
                    break
                numbers += (_number(block, field, 12), _number(block, field + 12, 12))
            if not more:
                return numbers
            if len(numbers) > 2 * SPARSE_MAX:
                raise InvalidArchive("invalid sparse map")
            block = self._source.exact(BLOCK)
            position, count, more = 0, 21, block[504]

    def _set_sparse(self, entry: Entry, header: bytes, old_map: list[int] | None, pax: dict[bytes, bytes]) -> None:
        """Work out the map of a sparse file of whatever kind, and its real size and name."""
        version = (pax.get(b"GNU.sparse.major"), pax.get(b"GNU.sparse.minor"))
        if old_map is not None:
            entry.type = REGULAR
            entry.size = _number(header, 483, 12)
            numbers = old_map
        elif version == (b"1", b"0"):
            numbers = self._map_in_data()
        elif b"GNU.sparse.map" in pax:
            fields = pax[b"GNU.sparse.map"].split(b",") if pax[b"GNU.sparse.map"] else []
            numbers = [_pax_integer(field) for field in fields]
        else:
            return
        entry.name = pax.get(b"GNU.sparse.name", entry.name)
        real = pax.get(b"GNU.sparse.realsize", pax.get(b"GNU.sparse.size"))
        if real is not None:
            entry.size = _pax_integer(real)
        entry.sparse = _fragments(numbers, entry.size)
        if sum(length for _, length in entry.sparse) != self._left:
            raise InvalidArchive("invalid sparse map")

    def _map_in_data(self) -> list[int]:
        """The map of a PAX 1.0 sparse file: decimal lines at the start of its data, padded to a block."""
        text = b""
        numbers: list[int] = []
        wanted = 1
        while True:
            *lines, text = text.split(b"\n")
            numbers += (_pax_integer(line) for line in lines)
            if numbers:
                wanted = 1 + 2 * numbers[0]
                if wanted > 1 + 2 * SPARSE_MAX:
                    raise InvalidArchive("invalid sparse map")
                if len(numbers) >= wanted:
                    return numbers[1:wanted]
            if self._left < BLOCK or len(text) > BLOCK:
                raise InvalidArchive("invalid sparse map")
            text += self._source.exact(BLOCK)
            self._left -= BLOCK
