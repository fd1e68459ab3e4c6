"""Files for a while, without a name."""

import errno
import os
import tempfile


def nameless_file(directory: str | os.PathLike[str]) -> int:
    """A file in directory that is gone when it is closed, whoever is killed; its descriptor. Raises OSError."""
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
    fd, path = tempfile.mkstemp(dir=directory)
    os.unlink(path)
    return fd
