"""Files that take another's place: whole, or not at all (moby/sys/atomicwriter)."""

from __future__ import annotations

import os
from contextlib import contextmanager

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO


@contextmanager
def replaced(path: str, mode: int) -> Iterator[FileIO]:
    """A new file of a mode, to be written: at the end it is on disk and has the name. Nothing is left when that fails.

    A link stays one. Raises OSError.
    """
    path = os.path.realpath(path)
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".tmp-{name}{os.urandom(5).hex()}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(fd, "wb", buffering=0) as file:
            yield file
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_directory(directory)


def replace_text(path: str, text: str, mode: int) -> None:
    """Put a text in place of a file, with that one's owner and mode; `mode` is that of one which was not there. Raises OSError."""
    with replaced(path, mode) as file:
        try:
            former = os.stat(path)
            os.fchmod(file.fileno(), former.st_mode & 0o777)
            os.fchown(file.fileno(), former.st_uid, former.st_gid)
        except (FileNotFoundError, PermissionError):  # new, or somebody else's: then it becomes ours
            pass
        write_all(file, text.encode())


def write_all(file: FileIO, piece: bytes) -> None:
    """Write all of a piece. Raises OSError."""
    view = memoryview(piece)
    while view:
        view = view[file.write(view) :]


def _sync_directory(path: str) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
