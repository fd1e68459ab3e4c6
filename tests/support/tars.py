"""Small layer archives for tests, written by our own writer."""

import os
from collections.abc import Iterable

from sampan.archive import writer
from sampan.archive.reader import BLOCK, CHAR, DIRECTORY, FIFO, HARDLINK, REGULAR, SYMLINK

KINDS = {"f": REGULAR, "d": DIRECTORY, "l": SYMLINK, "h": HARDLINK, "c": CHAR, "p": FIFO}


def tar(*entries: tuple[str, str] | tuple[str, str, str], mode: int | None = None) -> bytes:
    """An archive of (kind letter, name[, content or link])."""
    pieces: list[bytes] = []
    for kind, name, *rest in entries:
        text = rest[0].encode() if rest else b""
        content = text if kind == "f" else b""
        link = text if kind in "lh" else b""
        permissions = mode if mode is not None else (0o755 if kind == "d" else 0o644)
        pieces.append(writer.header(os.fsencode(name), KINDS[kind], mode=permissions, size=len(content), mtime=1_000_000_000, link=link))
        pieces.append(content + writer.padding(len(content)))
    return b"".join(pieces) + writer.END


def pipe_of(archive: bytes) -> int:
    """A descriptor that gives archive (a memfd: any length without a writer)."""
    fd = os.memfd_create("archive")
    view = memoryview(archive)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def joined(pieces: Iterable[bytes]) -> bytes:
    """All pieces in one."""
    return b"".join(pieces)


def repaired(data: bytes) -> bytes:
    """Right checksums in every block that looks like a header: else damage never gets beyond them."""
    blocks = bytearray(data)
    for at in range(0, len(blocks) - BLOCK + 1, BLOCK):
        if blocks[at + 257 : at + 262] == b"ustar":
            blocks[at + 148 : at + 156] = b" " * 8
            blocks[at + 148 : at + 156] = f"{sum(blocks[at : at + BLOCK]):06o}\0 ".encode()
    return bytes(blocks)
