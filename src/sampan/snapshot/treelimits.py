"""How much a container may write into its tree: a project quota of the directory that upper and work are made in.

Nothing is recorded but by the file system. A tree's directory knows its project, which is one of a range that is only ours; a project is
free when there are no files of it, nor that directory. So the number of a removed tree stays taken until all of it is deleted.
"""

import errno
import logging
import os
import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Final

from sampan.errors import SystemFailure
from sampan.linux import projectquota
from sampan.linux.projectquota import Project

log = logging.getLogger(__name__)

UNSUPPORTED: Final = (
    "--storage-opt is supported only for overlay over xfs with 'pquota' mount option, or over ext4 made with -O quota,project "
    "and mounted with 'prjquota'"
)
_OURS: Final = range(1 << 30, 1 << 31)
_EACH: Final = 1 << 20
"""Projects of one engine."""
_FIRST: Final = 256
"""Of them those that are tried first: XFS never makes its table of projects smaller, so low numbers are used again."""
_TRIES: Final = 1024
"""Of the others, by chance: who may give files whatever project he wants cannot have them all."""


def problem(directory: str) -> str:
    """Why there can be no limits below a directory; empty where there can."""
    try:
        with _opened(directory) as fd:
            return "" if projectquota.is_enforced(fd) else "they are not enforced here"
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
            return "there are no such quotas here"
        return f"the kernel does not tell of them: {error.strerror}"


def limit(directory: str, size: int, *, trash: str) -> None:
    """Limit what is going to be in an empty directory to size bytes, 1 or more. trash: where it will be moved to in the end.

    Raises SystemFailure; the caller lifts what has been done.
    """
    try:
        with _opened(trash) as fd:  # a project that the whole data root was given by its owner
            found = projectquota.project_of(fd)
            if found.is_inherited:
                projectquota.set_project(fd, Project(found.number, False))
        with _opened(directory) as fd:
            project = _free(fd, os.stat(trash).st_ino)
            projectquota.set_project(fd, Project(project, True))
            projectquota.set_limit(fd, project, size)
    except OSError as error:
        raise SystemFailure(f"cannot limit the size of the container's tree: {(error.strerror or str(error)).lower()}") from error


def _free(fd: int, engine: int) -> int:
    """engine: what tells engines on one file system apart, which do not know of each other."""
    first = _OURS.start + zlib.crc32(str(engine).encode()) % (len(_OURS) // _EACH) * _EACH
    others = (first + random.randrange(_FIRST, _EACH) for _ in range(_TRIES))
    for project in chain(range(first, first + _FIRST), others):
        if not projectquota.is_used(fd, project):
            return project
    raise OSError(errno.EDQUOT, "no project is free")


def lift(directory: str) -> None:
    """Take the limit away, if there is one; silent when the directory does not exist."""
    if (project := _project(directory)) not in _OURS:
        return
    try:
        with _opened(directory) as fd:
            projectquota.set_limit(fd, project, 0)
    except OSError as error:
        log.warning("the limit of %s's size stays: %s", os.path.basename(directory), error.strerror)


def is_off(directory: str) -> bool:
    """Whether limits below a directory, if there are any, do not count; False where the kernel does not tell."""
    try:
        with _opened(directory) as fd:
            return not projectquota.is_enforced(fd)
    except OSError as error:
        return error.errno not in (errno.ENOENT, errno.EPERM)  # ENOSYS: there are no quotas at all


def is_limited(directory: str) -> bool:
    """Whether a tree's directory has a project of ours."""
    return _project(directory) in _OURS


def _project(directory: str) -> int:
    """Of a tree's directory; 0 for none, where there is none and where there are no projects."""
    try:
        with _opened(directory) as fd:
            return projectquota.project_of(fd).number
    except OSError:
        return 0


@contextmanager
def _opened(directory: str) -> Iterator[int]:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
