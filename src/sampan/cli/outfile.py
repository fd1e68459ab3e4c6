"""Output files of `export` and the like: where they may be, with the words of moby/sys/atomicwriter."""

from __future__ import annotations

import os
import stat

from sampan.cli.http import CliError
from sampan.cli.replacing import replaced, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link directly",
    stat.S_IFIFO: "a named pipe (FIFO)",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device file",
    stat.S_IFBLK: "a block device file",
}


def check(path: str) -> None:
    """Raise CliError for a path that no file can be written to."""
    directory = os.path.dirname(os.path.normpath(path))
    if directory not in ("", ".", ".."):
        try:
            if not stat.S_ISDIR(os.stat(directory).st_mode):
                raise NotADirectoryError(20, os.strerror(20))
        except OSError as error:
            raise CliError(f"invalid output path: stat {directory}: {(error.strerror or '').lower()}") from None
    try:
        kind = _KINDS.get(stat.S_IFMT(os.lstat(path).st_mode))
    except OSError:
        return
    if kind is not None:
        raise CliError(f"cannot write to {kind}")


def write(path: str, pieces: Iterable[bytes]) -> None:
    """Write a file of mode 0600, whatever was there. Raises CliError, leaving nothing."""
    try:
        with replaced(path, 0o600) as file:
            for piece in pieces:
                write_all(file, piece)
    except OSError as error:
        raise CliError(f"open {os.path.realpath(path)}: {(error.strerror or str(error)).lower()}") from None
