"""A few megabytes of the data root's disk that sampand holds, so that it starts on a full one: else nobody could remove what fills it."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

SPARE_BYTES: Final = 4 << 20
NAME: Final = "spare-room"


def use(root: Path) -> None:
    """Let go of it, if there is no more than that."""
    with suppress(OSError):
        room = os.statvfs(root)
        if room.f_bavail * room.f_frsize < SPARE_BYTES:
            (root / NAME).unlink()


def hold(root: Path) -> None:
    """Have it, if it can be had: on a full disk the next start tries again."""
    fd = os.open(root / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        os.posix_fallocate(fd, 0, SPARE_BYTES)
    except OSError:
        with suppress(OSError):
            os.truncate(fd, 0)
    finally:
        os.close(fd)
