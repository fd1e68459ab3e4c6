"""Pseudo terminals inside a container's own devpts."""

import errno
import fcntl
import os
import stat
import struct
import termios

TIOCGPTPEER = 0x5441
TIOCSPTLCK = 0x40045431
TIOCGPTN = 0x80045430
_PTMX_MAJOR_MINOR = (5, 2)


def open_slave(master: int) -> tuple[int, int]:
    """(slave, number) of the pty whose multiplexer was opened as master. Raises OSError.

    The device is checked before use: a container may have put something else there. The slave comes from TIOCGPTPEER, not from a path.
    """
    info = os.fstat(master)
    if not stat.S_ISCHR(info.st_mode) or (os.major(info.st_rdev), os.minor(info.st_rdev)) != _PTMX_MAJOR_MINOR:
        raise OSError(errno.ENODEV, "not a pty multiplexer")
    fcntl.ioctl(master, TIOCSPTLCK, struct.pack("i", 0))
    number: int = struct.unpack("i", fcntl.ioctl(master, TIOCGPTN, b"\0\0\0\0"))[0]
    return fcntl.ioctl(master, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC), number


def set_size(fd: int, rows: int, columns: int) -> None:
    """The window size, of which the kernel keeps 16 bits each; the foreground process group gets SIGWINCH."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))


def make_controlling(slave: int) -> None:
    """The slave becomes our session's controlling terminal; we must be a session leader."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
