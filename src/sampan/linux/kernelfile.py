"""Files of the kernel's own file systems: cgroups, /proc, /proc/sys."""

import os


def write(file: str, value: str) -> None:
    """A value in one write(2), as they want it. Raises OSError."""
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)
