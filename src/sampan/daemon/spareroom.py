"""A few megabytes of the data root's disk that sampand holds, so that it starts on a full one: else nobody could remove what fills it."""

import asyncio
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

SPARE_BYTES: Final = 4 << 20
RETRY_SECONDS: Final = 1.0
NAME: Final = "spare-room"


def use(root: Path) -> None:
    """Let go of it, if there is no more than that."""
    with suppress(OSError):
        if _free(root) < SPARE_BYTES:
            (root / NAME).unlink()


def keep(root: Path) -> None:
    """Have it, and as long as the disk is too full for that try again: the disk may be full once more before the next start."""
    if not hold(root):
        asyncio.get_running_loop().call_later(RETRY_SECONDS, keep, root)


def hold(root: Path) -> bool:
    """Have it, or else half of what there is: the other half is for what sampand writes. Whether it is all of it."""
    try:
        fd = os.open(root / NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return False
    try:
        os.posix_fallocate(fd, 0, SPARE_BYTES)
    except OSError:
        with suppress(OSError):
            os.truncate(fd, 0)
            os.posix_fallocate(fd, 0, _free(root) // 2)
        return False
    finally:
        os.close(fd)
    return True


def _free(root: Path) -> int:
    """Bytes. Raises OSError."""
    room = os.statvfs(root)
    return room.f_bavail * room.f_frsize
