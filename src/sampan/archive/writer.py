"""Write tar headers, always the same bytes for the same input: ustar, with PAX records only where ustar cannot say it. Pure."""

from collections.abc import Mapping
from typing import Final

BLOCK: Final = 512
END: Final = bytes(2 * BLOCK)
_OCTAL_MAX: Final = {8: 0o7777777, 12: 0o77777777777}


_BLOCK: Final = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%bustar\x0000%b%07o\0%07o\0%b"
"""A header, blanks where its checksum goes."""
_OWNERS: Final = bytes(64)


def pax_record(key: bytes, value: bytes) -> bytes:
    """One record, its own length included (POSIX pax Extended Header)."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def _block(
    name: bytes, kind: bytes, mode: int, uid: int, gid: int, size: int, mtime: int, link: bytes, major: int, minor: int, prefix: bytes = b""
) -> bytes:
    block = _BLOCK % (
        name.ljust(100, b"\0"), mode, uid, gid, size, mtime, kind, link.ljust(100, b"\0"), _OWNERS, major, minor, prefix.ljust(167, b"\0"),
    )  # fmt: skip
    return block[:148] + f"{sum(block):06o}".encode() + b"\0 " + block[156:]


def _split(name: bytes) -> int:
    """Where ustar divides a long name into prefix and name; 0: nowhere (Go's splitUSTARPath)."""
    if not name.isascii():
        return 0
    end = 156 if len(name) > 156 else len(name) - name.endswith(b"/")
    at = name.rfind(b"/", 0, end)
    return at if at > 0 and 0 < len(name) - at - 1 <= 100 else 0


def header(
    name: bytes,
    kind: bytes,
    *,
    mode: int,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    major: int = 0,
    minor: int = 0,
    xattrs: Mapping[bytes, bytes] | None = None,
    like_go: bool = False,
) -> bytes:
    """The header blocks of one entry; kind is one of reader's type bytes, mtime in seconds. Data of size bytes and `padding` follow.

    `like_go`: headers take as many bytes as those of Go's writer: names that are not ASCII go to PAX records whatever their length, and a
    long one is split as ustar has it if nothing else needs PAX.
    """
    records: dict[bytes, bytes] = {}
    if len(name) > 100 or (like_go and not name.isascii()):
        records[b"path"] = name
    if len(link) > 100 or (like_go and not link.isascii()):
        records[b"linkpath"] = link
    for key, value, width in ((b"uid", uid, 8), (b"gid", gid, 8), (b"size", size, 12)):
        if value > _OCTAL_MAX[width]:
            records[key] = str(value).encode()
    if not 0 <= mtime <= _OCTAL_MAX[12]:
        records[b"mtime"] = str(mtime).encode()
    for attribute, content in (xattrs or {}).items():
        records[b"SCHILY.xattr." + attribute] = content
    extended = prefix = b""
    if like_go and records.keys() == {b"path"} and (at := _split(name)):
        del records[b"path"]
        prefix, name = name[:at], name[at + 1 :]
    if records:
        payload = b"".join(pax_record(key, records[key]) for key in sorted(records))
        extended = _block(b"PaxHeaders/0", b"x", 0o644, 0, 0, len(payload), 0, b"", 0, 0) + payload + padding(len(payload))
    plain = {b"uid": uid, b"gid": gid, b"size": size, b"mtime": mtime}
    numbers = {key: 0 if key in records else value for key, value in plain.items()}
    return extended + _block(
        name[:100], kind, mode, numbers[b"uid"], numbers[b"gid"], numbers[b"size"], numbers[b"mtime"], link[:100], major, minor, prefix
    )


def padding(size: int) -> bytes:
    """Zeros that fill size bytes of data up to a block."""
    return bytes(-size % BLOCK)
