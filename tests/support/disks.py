"""File systems of a known size, to be filled, and files that cannot grow."""

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def tmpfs(path: Path, options: str, *, lazily: bool = False) -> Iterator[Path]:
    """A tmpfs at path, which is made if it is missing; options as mount(8) has them. Unmounted at the end, when nothing holds it any more.

    lazily: something still may.
    """
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True, timeout=10)
    try:
        yield path
    finally:
        subprocess.run(["umount", *(["-l"] if lazily else []), str(path)], check=True, timeout=10)


def deep_tree(top: Path, levels: int) -> None:
    """A directory in a directory in ..., deeper than any path can say."""
    top.mkdir(parents=True)
    fd = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("d", dir_fd=fd)
        inner = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = inner
    os.close(fd)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """A disk that is full, as far as this process can see: a write beyond size bytes of a file fails, after a part of it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
