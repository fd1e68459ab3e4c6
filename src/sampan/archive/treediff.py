"""What makes one tree another, as a layer's archive: for `--squash`, which makes one layer of many.

Files that say the same of themselves are compared byte by byte: with SOURCE_DATE_EPOCH all times are equal.
"""

import os
import stat
from collections.abc import Iterator
from typing import Final

from sampan.archive import writer
from sampan.archive.apply import WHITEOUT
from sampan.archive.pack import Packer, xattrs_of
from sampan.archive.reader import REGULAR

_DIRECTORY_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK: Final = 1 << 20


def layer(old: int, new: int, clamp: int | None) -> Iterator[bytes]:
    """The archive, without its end, sorted. old, new: directory descriptors; clamp: as for Packer."""
    packer = Packer(clamp)
    stack = [(os.dup(old), os.dup(new), b"", iter(_names(old, new)))]
    try:
        while stack:
            below, here, path, names = stack[-1]
            name = next(names, None)
            if name is None:
                _close(*stack.pop()[:2])
                continue
            full = path + name
            info, former = _stat(here, name), _stat(below, name)
            if info is None:
                yield writer.header(path + WHITEOUT + name, REGULAR, mode=0o600)
                continue
            was_directory = former is not None and stat.S_ISDIR(former.st_mode)
            if not stat.S_ISDIR(info.st_mode):
                if former is None or not _same(below, here, name, former, info):
                    yield from packer.entry(here, name, full, info)
                continue
            fd = os.open(name, _DIRECTORY_FLAGS, dir_fd=here)
            lower = os.open(name, _DIRECTORY_FLAGS, dir_fd=below) if was_directory else -1
            if former is None or not was_directory or _attributes(former) != _attributes(info) or xattrs_of(lower) != xattrs_of(fd):
                yield packer.directory(fd, full, info)
            stack.append((lower, fd, full + b"/", iter(_names(lower, fd))))
    finally:
        for below, here, *_ in stack:
            _close(below, here)


def _close(below: int, here: int) -> None:
    os.close(here)
    if below >= 0:
        os.close(below)


def _names(old: int, new: int) -> list[bytes]:
    both = {*os.listdir(new), *(os.listdir(old) if old >= 0 else ())}
    return sorted(map(os.fsencode, both))


def _stat(directory: int, name: bytes) -> os.stat_result | None:
    if directory < 0:
        return None
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _attributes(info: os.stat_result) -> tuple[int, int, int, int]:
    return info.st_mode, info.st_uid, info.st_gid, info.st_rdev


def _same(below: int, here: int, name: bytes, former: os.stat_result, info: os.stat_result) -> bool:
    if _attributes(former) != _attributes(info) or former.st_size != info.st_size or former.st_mtime_ns != info.st_mtime_ns:
        return False
    if stat.S_ISLNK(info.st_mode):
        return os.readlink(name, dir_fd=below) == os.readlink(name, dir_fd=here)
    if not stat.S_ISREG(info.st_mode):
        return True
    old, new = (os.open(name, _FILE_FLAGS, dir_fd=directory) for directory in (below, here))
    try:
        if xattrs_of(old) != xattrs_of(new):
            return False
        while piece := os.read(new, _CHUNK):
            if os.read(old, len(piece)) != piece:
                return False
        return True
    finally:
        os.close(old)
        os.close(new)
