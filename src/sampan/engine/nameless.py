"""Files for a while, without a name."""

import errno
import os
import tempfile
from pathlib import Path

from sampan.archive.room import making


def nameless_file(directory: Path) -> int:
    """A file that is gone when it is closed, whoever is killed. Raises SystemFailure."""
    with making("a file"):
        try:
            return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                raise
        fd, path = tempfile.mkstemp(dir=directory)
        os.unlink(path)
        return fd
