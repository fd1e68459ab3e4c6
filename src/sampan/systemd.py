"""What systemd says to a service and is told by it: inherited sockets (sd_listen_fds(3)), state (sd_notify(3)), the watchdog."""

import os
import socket
from contextlib import suppress

FIRST_DESCRIPTOR = 3


class Service:
    """What this process was given; the environment has nothing of it afterwards, so that no child takes it for its own."""

    def __init__(self) -> None:
        ours = os.environ.pop("LISTEN_PID", "") == str(os.getpid())
        count = os.environ.pop("LISTEN_FDS", "")
        os.environ.pop("LISTEN_FDNAMES", None)
        self.descriptors = list(range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + int(count))) if ours and count.isdecimal() else []
        """Inherited sockets; nobody else has closed them, and no child inherits them."""
        for fd in self.descriptors:
            with suppress(OSError):
                os.set_inheritable(fd, False)
        self._path = os.environ.pop("NOTIFY_SOCKET", "")
        watched = os.environ.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period = os.environ.pop("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(period) / 1e6 if watched and period.isdecimal() else 0.0
        """How long systemd waits for a sign of life before it ends us; 0: for ever."""

    def notify(self, text: str) -> None:
        """Tell the state; nothing happens where nobody wants to know, or reads."""
        if not self._path:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            sender.sendto(text.encode(), "\0" + self._path[1:] if self._path.startswith("@") else self._path)
