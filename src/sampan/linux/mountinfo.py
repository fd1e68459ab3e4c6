"""The mounts of this process's namespace (proc_pid_mountinfo(5))."""

import os
from collections.abc import Iterator
from typing import NamedTuple


class MountPoint(NamedTuple):
    """One line."""

    path: str
    source: str


def _unescaped(field: bytes) -> str:
    """A field in which blanks and the like are octal."""
    return os.fsdecode(field.decode("unicode_escape").encode("latin-1"))


def mount_points() -> Iterator[MountPoint]:
    """All of them, in the order they were made. Raises OSError."""
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            before, _, after = line.partition(b" - ")
            yield MountPoint(_unescaped(before.split()[4]), _unescaped(after.split()[1]))
