"""Layers made in this process, trees compared by what stat, readlink, listxattr and read say, and what this kernel can mount."""

import io
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from sampan.archive import layerfile
from sampan.archive.apply import LayerApplier
from sampan.archive.reader import TarReader
from sampan.archive.recipe import RecipeWriter, archive_size, assemble
from sampan.archive.source import Source
from sampan.errors import SystemFailure
from sampan.linux.erofs import mount_erofs
from sampan.snapshot.probe import probe_erofs


class Seen(NamedTuple):
    """One name as a program sees it. Directories: size and links are the file system's own business, and left out."""

    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    size: int
    links: int
    rdev: int
    content: bytes
    xattrs: dict[str, bytes]


def has_erofs() -> bool:
    """Whether this machine's kernel and disk can do it; where not, the driver falls back, which is tested instead."""
    try:
        probe_erofs(Path("/var/tmp"))
    except SystemFailure:
        return False
    return True


def need(driver: str) -> None:
    """Skip the test where this kernel cannot mount what the driver makes."""
    if driver == "erofs" and not has_erofs():
        pytest.skip("this kernel cannot mount EROFS layers")


def opened(stack: ExitStack, path: Path | str, flags: int = os.O_RDONLY) -> int:
    """Open until the stack unwinds."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    stack.callback(os.close, fd)
    return fd


def extract(archive: bytes, target: Path, recipe: Path | None = None) -> None:
    """As the overlay driver does, into an existing directory; recipe: a new file for how to make the archive again."""
    here = os.open(".", os.O_RDONLY)
    try:
        with ExitStack() as stack:
            source = Source(io.BytesIO(archive).read)
            notes = None
            if recipe is not None:
                notes = RecipeWriter(opened(stack, recipe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
                source.tee = notes.raw
            with LayerApplier(opened(stack, target), None, notes) as applier:
                applier.apply(TarReader(source))
            if notes is not None:
                source.drain_padding()
                notes.finish()
    finally:
        os.fchdir(here)
        os.close(here)


def assembled(recipe: Path, root: Path) -> bytes:
    """The archive again, from an extracted layer; the size that the recipe says is right."""
    with ExitStack() as stack:
        archive = b"".join(assemble(opened(stack, recipe), opened(stack, root, os.O_RDONLY | os.O_DIRECTORY)))
        assert archive_size(opened(stack, recipe)) == len(archive)
        return archive


def stored(layer: Path) -> bytes:
    """The archive again, from a layer file."""
    with ExitStack() as stack:
        return b"".join(layerfile.tar_of(opened(stack, layer)))


def index(archive: bytes, target: Path) -> None:
    """As the erofs driver does, into a new file."""
    with ExitStack() as stack:
        layerfile.write(io.BytesIO(archive).read, opened(stack, target, os.O_RDWR | os.O_CREAT | os.O_EXCL), None)


@contextmanager
def mounted(image: Path, devices: Sequence[Path] = ()) -> Iterator[Path]:
    """The detached mount of a layer file or a folded index."""
    fd = mount_erofs(str(image), [str(device) for device in devices])
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def look(root: Path, *, implied: bool = True) -> dict[bytes, Seen]:
    """Everything below root, by name. implied=False leaves out the times of directories and whiteouts."""
    found: dict[bytes, Seen] = {}
    top = os.fsencode(root) + b"/"
    pending = [b""]
    while pending:
        directory = pending.pop()
        for name in os.listdir(top + directory):
            path = directory + b"/" + name if directory else name
            found[path] = seen(top + path, implied=implied)
            if stat.S_ISDIR(found[path].mode):
                pending.append(path)
    return found


def seen(path: bytes, *, implied: bool = True) -> Seen:
    """One name."""
    info = os.lstat(path)
    content = b""
    if stat.S_ISLNK(info.st_mode):
        content = os.readlink(path)
    elif stat.S_ISREG(info.st_mode):
        content = Path(os.fsdecode(path)).read_bytes()
    directory = stat.S_ISDIR(info.st_mode)
    timeless = directory or (stat.S_ISCHR(info.st_mode) and not info.st_rdev)
    return Seen(
        info.st_mode,
        (info.st_uid, info.st_gid),
        info.st_mtime_ns if implied or not timeless else 0,
        0 if directory else info.st_size,
        0 if directory else info.st_nlink,
        info.st_rdev if stat.S_ISCHR(info.st_mode) or stat.S_ISBLK(info.st_mode) else 0,
        content,
        {key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)},
    )
