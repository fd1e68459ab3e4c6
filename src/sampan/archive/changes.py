"""What an overlay's upper directory says: the changes it makes to the tree below, as `docker diff` lists them and as a layer's archive.

An upper directory holds whole copies of what was touched, 0/0 character devices for what was removed, and opaque directories, which hide
what lower ones of their name had (kernel Documentation/filesystems/overlayfs.rst). Redirects and metacopies are not among it: our mounts
switch them off, and what another engine left is refused.
"""

import errno
import os
import stat
from collections.abc import Collection, Iterator
from typing import Final

from sampan.archive import writer
from sampan.archive.apply import OPAQUE, OPAQUE_XATTR, WHITEOUT
from sampan.archive.pack import Outlet, Packer
from sampan.archive.reader import REGULAR

CHANGED: Final = 0
ADDED: Final = 1
DELETED: Final = 2
"""The API's numbers (moby archive.ChangeType)."""
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CAPABILITY = "security.capability"
_FOREIGN = ("trusted.overlay.redirect", "trusted.overlay.metacopy")


class _Place:
    """A directory under way: its descriptor above and, if there is one, below."""

    __slots__ = ("changed", "lower", "names", "path", "recorded", "upper")

    def __init__(self, upper: int, lower: int, path: bytes, recorded: bool) -> None:
        self.upper, self.lower, self.path, self.recorded = upper, lower, path, recorded
        self.changed = False
        self.names = iter(sorted(map(os.fsencode, os.listdir(upper))))


def is_whiteout(info: os.stat_result) -> bool:
    """Whether an upper directory's entry says that the name is removed."""
    return stat.S_ISCHR(info.st_mode) and info.st_rdev == 0


def is_opaque(fd: int) -> bool:
    """Whether a directory hides those below it. Raises OSError for what only an engine with redirects makes."""
    names = os.listxattr(fd)
    _check_own(names)
    return OPAQUE_XATTR in names and os.getxattr(fd, OPAQUE_XATTR) == b"y"


def _check_own(names: list[str]) -> None:
    for name in names:
        if name in _FOREIGN:
            raise OSError(errno.EOPNOTSUPP, f"the container's tree was made with overlayfs' {name.rpartition('.')[2]} switched on")


def changes(upper: int, lower: int, own: Collection[bytes] = ()) -> Iterator[tuple[int, bytes]]:
    """(kind, absolute path) of every difference between the tree with `upper` on it and the one below, a directory descriptor each.

    own: names of mount points that the engine may have made; as long as they are empty files or directories they are none.

    In no order. As docker's own comparison (moby archive ChangesDirs): a directory's size and time do not count; with an entry its parents
    are changed; of something removed only the top is named; what became a directory or ceased to be one is changed.
    """
    stack = [_Place(os.dup(upper), os.dup(lower), b"", recorded=True)]
    try:
        while stack:
            place = stack[-1]
            name = next(place.names, None)
            if name is not None:
                yield from _entry(stack, place, name, own)
                continue
            stack.pop()
            _close(place)
            if place.changed or place.recorded:
                if not place.recorded:
                    yield CHANGED, place.path
                if stack:
                    stack[-1].changed = True
    finally:
        for place in stack:
            _close(place)


def _close(place: _Place) -> None:
    os.close(place.upper)
    if place.lower >= 0:
        os.close(place.lower)


def _lower_stat(place: _Place, name: bytes) -> os.stat_result | None:
    if place.lower < 0:
        return None
    try:
        return os.stat(name, dir_fd=place.lower, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _is_own(path: bytes, info: os.stat_result, own: Collection[bytes]) -> bool:
    """Whether a new entry is no more than a mount point of the engine's."""
    return path.lstrip(b"/") in own and (stat.S_ISDIR(info.st_mode) or (stat.S_ISREG(info.st_mode) and not info.st_size))


def _entry(stack: list[_Place], place: _Place, name: bytes, own: Collection[bytes]) -> Iterator[tuple[int, bytes]]:
    """One name of an upper directory; a directory is pushed on the stack."""
    path = place.path + b"/" + name
    try:
        info = os.stat(name, dir_fd=place.upper, follow_symlinks=False)
    except FileNotFoundError:  # the container is at work
        return
    below = _lower_stat(place, name)
    if is_whiteout(info):
        if below is not None:
            place.changed = True
            yield DELETED, path
        return
    kind = ADDED if below is None else CHANGED
    # An image's file or symlink where the engine mounts gave way to a directory.
    made = below is not None and stat.S_ISDIR(info.st_mode) and not stat.S_ISDIR(below.st_mode) and _is_own(path, info, own)
    differs = not _is_own(path, info, own) if below is None else not made and _differ(place, name, info, below)
    if differs:
        place.changed = True
        yield kind, path
    if not stat.S_ISDIR(info.st_mode):
        return
    try:
        fd = os.open(name, _OPEN, dir_fd=place.upper)
    except (FileNotFoundError, NotADirectoryError):
        return
    lower = -1
    if below is not None and stat.S_ISDIR(below.st_mode):
        lower = os.open(name, _OPEN, dir_fd=place.lower)
    child = _Place(fd, lower, path, recorded=differs)
    stack.append(child)
    if is_opaque(fd) and lower >= 0:
        present = {os.fsencode(found) for found in os.listdir(fd)}
        for hidden in sorted(map(os.fsencode, os.listdir(lower))):
            if hidden not in present:
                child.changed = True
                yield DELETED, path + b"/" + hidden


def _differ(place: _Place, name: bytes, new: os.stat_result, old: os.stat_result) -> bool:
    """Docker's statDifferent: times are equal when one has no fraction (it came out of a tar) and the seconds are."""
    if (new.st_mode, new.st_uid, new.st_gid, new.st_rdev) != (old.st_mode, old.st_uid, old.st_gid, old.st_rdev):
        return True
    if not stat.S_ISDIR(new.st_mode):
        if new.st_size != old.st_size:
            return True
        seconds, rest = divmod(new.st_mtime_ns, 10**9)
        old_seconds, old_rest = divmod(old.st_mtime_ns, 10**9)
        if seconds != old_seconds or (rest != old_rest and rest and old_rest):
            return True
    return stat.S_ISREG(new.st_mode) and _capability(place.upper, name) != _capability(place.lower, name)


def _capability(directory: int, name: bytes) -> bytes:
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return b""
    try:
        return os.getxattr(fd, _CAPABILITY)
    except OSError:
        return b""
    finally:
        os.close(fd)


def layer(
    upper: int,
    clamp: int | None,
    own: Collection[bytes] = (),
    without: Collection[bytes] = (),
    lower: int = -1,
    outlet: Outlet | None = None,
) -> Iterator[bytes]:
    """An upper directory as a layer's archive, without its end: sorted, whiteouts as image-spec layer.md has them.

    clamp, outlet: as for Packer. own: names of the engine's mount points; empty files of these names are left out. without: further mount
    points, left out when they are empty directories, too, with the new directories that hold nothing but such. lower: the tree below;
    overlayfs marks every new directory as one that hides others of its name, the layer says so only of those that do.
    """
    packer = Packer(clamp, outlet)
    around = _ancestors(without)
    stack = [_Place(os.dup(upper), os.dup(lower) if lower >= 0 else -1, b"", recorded=True)]
    try:
        while stack:
            place = stack[-1]
            name = next(place.names, None)
            if name is None:
                _close(stack.pop())
                continue
            try:
                info = os.stat(name, dir_fd=place.upper, follow_symlinks=False)
                fd = os.open(name, _OPEN, dir_fd=place.upper) if stat.S_ISDIR(info.st_mode) else -1
            except (FileNotFoundError, NotADirectoryError):
                continue
            prefix = place.path + b"/" if place.path else b""
            if fd >= 0:
                if prefix + name in without and not os.listdir(fd):
                    os.close(fd)
                    continue
                below = _directory(place.lower, name)
                if below < 0 and prefix + name in around and _is_only_around(fd, prefix + name, without, around):
                    os.close(fd)
                    continue
                stack.append(_Place(fd, below, prefix + name, recorded=True))
                yield packer.directory(fd, prefix + name, info)
                if is_opaque(fd) and (below >= 0 or lower < 0):
                    yield _marker(prefix + name + b"/" + OPAQUE, info, clamp)
            elif is_whiteout(info):
                yield _marker(prefix + WHITEOUT + name, info, clamp)
            elif not (_is_own(prefix + name, info, own) or _is_own(prefix + name, info, without)):
                if stat.S_ISREG(info.st_mode):
                    _check_whole(place.upper, name)
                yield from packer.entry(place.upper, name, prefix + name, info)
    finally:
        for place in stack:
            _close(place)


def _ancestors(paths: Collection[bytes]) -> frozenset[bytes]:
    """All directories above paths, the root left out."""
    found: set[bytes] = set()
    for path in paths:
        while b"/" in path and (path := path.rpartition(b"/")[0]) not in found:
            found.add(path)
    return frozenset(found)


def _is_only_around(fd: int, path: bytes, without: Collection[bytes], around: Collection[bytes]) -> bool:
    """Whether a directory above mount points holds nothing but them."""
    for name in map(os.fsencode, os.listdir(fd)):
        below = path + b"/" + name
        info = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if not stat.S_ISDIR(info.st_mode):
            if _is_own(below, info, without):
                continue
            return False
        inner = os.open(name, _OPEN, dir_fd=fd)
        try:
            is_mount_point = below in without and not os.listdir(inner)
            if not is_mount_point and not (below in around and _is_only_around(inner, below, without, around)):
                return False
        finally:
            os.close(inner)
    return True


def _directory(parent: int, name: bytes) -> int:
    """The directory of this name in a lower tree, -1: there is none."""
    if parent < 0:
        return -1
    try:
        return os.open(name, _OPEN, dir_fd=parent)
    except (FileNotFoundError, NotADirectoryError):
        return -1
    except OSError as error:
        if error.errno == errno.ELOOP:
            return -1
        raise


def _check_whole(directory: int, name: bytes) -> None:
    """Raise OSError for a file that has only its attributes here, not its content."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
    except OSError:
        return  # the packer meets it too
    try:
        _check_own(os.listxattr(fd))
    finally:
        os.close(fd)


def _marker(name: bytes, info: os.stat_result, clamp: int | None) -> bytes:
    mtime = info.st_mtime_ns // 10**9
    return writer.header(name, REGULAR, mode=0o600, mtime=mtime if clamp is None else min(mtime, clamp))
