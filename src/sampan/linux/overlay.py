"""overlayfs as a detached mount."""

import errno
import os
from collections.abc import Sequence

from sampan.linux import libc, mounts
from sampan.linux.namespaces import CLONE_NEWNS

_NAMED_MAX = 50
"""Layers whose descriptors' numbers, of four digits at most, fit into 255 bytes."""


def mount_overlay(lowers: Sequence[str | int], upper: str, work: str, attributes: int = 0, *, source: str = "overlay") -> int:
    """A detached overlay, lowers top first, `upper` empty for a read-only one; source is what mountinfo calls it. Raises OSError.

    A lower is a path or (6.13 and later) a descriptor, also of a detached mount (6.15 and later). `lowerdir+` (6.7 and later) has no
    limit on the length of all paths together. Older kernels get one `lowerdir=`.
    """
    # Kernels before 6.5 take any key, and complain only when the mount is made, with a line in the kernel's log each time.
    paths = [lower for lower in lowers if isinstance(lower, str)]
    if _kernel() >= (6, 5) or not lowers or len(paths) < len(lowers):
        try:
            return _mount([("lowerdir+", lower) for lower in lowers], upper, work, attributes, source)
        except OSError as error:
            if error.errno != errno.EINVAL or not lowers or len(paths) < len(lowers):
                raise
    if len(paths) > _NAMED_MAX:
        return _mount_by_page(paths, upper, work, attributes, source)
    return _mount_by_descriptors(paths, upper, work, attributes, source)


def _kernel() -> tuple[int, int]:
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(letter for letter in minor if letter.isdigit()) or 0)


def _number(path: str, held: list[int]) -> str:
    """A directory's descriptor, which held owns from now on: its name in /proc/self/fd. Raises OSError."""
    held.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    return str(held[-1])


def _mount_by_page(lowers: list[str], upper: str, work: str, attributes: int, source: str) -> int:
    """More layers than fsconfig takes at once: mount(2), which takes a page of options, but wants a place. A namespace of our own has one.

    The caller's current directory is its root afterwards. Only this thread changes its namespace for a moment.
    """
    held: list[int] = []
    own = os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    libc.unshare(CLONE_NEWNS)
    try:
        mounts.mount(None, "/", None, mounts.MS_PRIVATE | mounts.MS_REC)
        options = f"lowerdir={':'.join([_number(lower, held) for lower in lowers])},xino=on"
        if upper:
            options += f",upperdir={_number(upper, held)},workdir={_number(work, held)},redirect_dir=off,metacopy=off"
        os.chdir("/proc/thread-self/fd")
        libc.mount(source, lowers[0], "overlay", 0, options)
        fd = mounts.clone_tree(mounts.AT_FDCWD, lowers[0], False)
    finally:
        for one in held:
            os.close(one)
        libc.setns(own, CLONE_NEWNS)
        os.close(own)
    mounts.mount_setattr(fd, attributes=attributes)
    return fd


def _mount_by_descriptors(lowers: list[str], upper: str, work: str, attributes: int, source: str) -> int:
    """fsconfig limits a value to 255 bytes, and old kernels split it at commas: paths become names of descriptors in /proc/self/fd."""
    held: list[int] = []
    here = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        layers = ":".join([_number(lower, held) for lower in lowers])
        above = (_number(upper, held), _number(work, held)) if upper else ("", "")
        os.chdir("/proc/self/fd")
        return _mount([("lowerdir", layers)], *above, attributes, source)
    finally:
        os.fchdir(here)
        for fd in (here, *held):
            os.close(fd)


def _mount(lowers: list[tuple[str, str | int]], upper: str, work: str, attributes: int, source: str) -> int:
    context = mounts.fsopen("overlay")
    try:
        for key, value in lowers:
            if isinstance(value, int):
                mounts.fsconfig_fd(context, key, value)
            else:
                mounts.fsconfig_string(context, key, value)
        if upper:
            mounts.fsconfig_string(context, "upperdir", upper)
            mounts.fsconfig_string(context, "workdir", work)
            # Some distributions have these on: a diff of the upper directory could not be read without the lower ones.
            mounts.fsconfig_string(context, "redirect_dir", "off")
            mounts.fsconfig_string(context, "metacopy", "off")
        # Without xino `du -x` and st_dev/st_ino lie across layers.
        mounts.fsconfig_string(context, "xino", "on")
        mounts.fsconfig_string(context, "source", source)
        mounts.fsconfig_create(context)
        return mounts.fsmount(context, attributes)
    finally:
        os.close(context)
