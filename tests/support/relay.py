"""A port in another network namespace that leads to a server of this one."""

import contextlib
import os
import select
import socket
import threading

from sampan.linux import libc
from sampan.linux.namespaces import CLONE_NEWNET


class Relay:
    """Listens on `address`:`port` in the netns of a process and passes connections on to `target`, an address with its port of ours."""

    def __init__(self, pid: int, address: str, port: int, target: str) -> None:
        self._target = target
        self._listening: list[socket.socket] = []
        self._passing: list[threading.Thread] = []
        self._ready, self._closed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(pid, address, port), daemon=True)
        self._thread.start()
        assert self._ready.wait(20)

    def _serve(self, pid: int, address: str, port: int) -> None:
        ours = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        libc.setns(netns, CLONE_NEWNET)
        listening = socket.create_server((address, port))
        libc.setns(ours, CLONE_NEWNET)
        os.close(netns)
        os.close(ours)
        self._listening.append(listening)
        self._ready.set()
        with contextlib.suppress(OSError):  # closed
            while True:
                here, _ = listening.accept()
                thread = threading.Thread(target=self._pass_on, args=(here,), daemon=True)
                self._passing.append(thread)
                thread.start()

    def _pass_on(self, here: socket.socket) -> None:
        host, _, port = self._target.rpartition(":")
        with here, contextlib.suppress(OSError), socket.create_connection((host, int(port)), 20) as there:
            ends = {here: there, there: here}
            while not self._closed.is_set():
                for ready in select.select(list(ends), [], [], 0.1)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    ends[ready].sendall(data)

    def close(self) -> None:
        """End all connections, and take no more."""
        self._closed.set()
        for listening in self._listening:
            listening.shutdown(socket.SHUT_RDWR)
            listening.close()
        for thread in (self._thread, *self._passing):
            thread.join(20)
