"""File systems of a known size, to be filled, and files that cannot grow."""

import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def tmpfs(path: Path, options: str, *, lazily: bool = False) -> Iterator[Path]:
    """A tmpfs at path, which is made if it is missing; options as mount(8) has them. At the end what still keeps it has a minute.

    lazily: something still may.
    """
    path.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True, timeout=10)
    try:
        yield path
    finally:
        _unmount(path, *(["-l"] if lazily else []))


@contextmanager
def ext4(size: int) -> Iterator[Path]:
    """A disk of that many bytes, in a file. Unmounted at the end: what still keeps it has a minute to let it go."""
    with tempfile.TemporaryDirectory(prefix="sampan-disk-", dir="/var/tmp") as top:
        image, place = Path(top, "image"), Path(top, "disk")
        place.mkdir()
        with image.open("wb") as file:
            file.truncate(size)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-E", "lazy_itable_init=1", str(image)], check=True, timeout=60)
        subprocess.run(["mount", "-o", "loop", str(image), str(place)], check=True, timeout=60)
        place.chmod(0o755)
        try:
            yield place
        finally:
            _unmount(place)


def _unmount(place: Path, *options: str) -> None:
    deadline = time.monotonic() + 60
    while subprocess.run(["umount", *options, str(place)], check=False, capture_output=True, timeout=60).returncode:
        assert time.monotonic() < deadline, f"something still keeps {place}"
        time.sleep(0.2)


@contextmanager
def full(place: Path) -> Iterator[None]:
    """The disk of that directory without a free block."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            with suppress(OSError):
                while True:
                    os.posix_fallocate(file.fileno(), file.seek(0, os.SEEK_END), size)
    try:
        yield
    finally:
        filler.unlink()


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
