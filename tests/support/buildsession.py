"""A build's session as a client has it, said frame by frame."""

import queue
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Self, TypeVar

from sampan import sessionframes as frames
from sampan.sessionframes import Frame
from tests.support.engine import Engine

T = TypeVar("T")


class Session:
    """One connection of POST /session's."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(30)
        self._socket.connect(engine.socket)
        head = {"Host": "x", "Connection": "Upgrade", "Upgrade": frames.UPGRADE, frames.SESSION_HEADER: name}
        lines = "".join(f"{key}: {value}\r\n" for key, value in head.items())
        self._socket.sendall(f"POST /session HTTP/1.1\r\n{lines}Content-Length: 0\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._socket.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 "), answer
        assert b"\r\nUpgrade: sampan-build\r\n" in answer
        self._reader = frames.Reader()
        self._frames: deque[Frame] = deque()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def next(self) -> Frame | None:
        """The daemon's next frame, None: it has ended the connection."""
        while not self._frames:
            data = self._socket.recv(65536)
            if not data:
                return None
            self._frames.extend(self._reader.feed(data))
        return self._frames.popleft()

    def send(self, kind: int, channel: int, payload: bytes = b"") -> None:
        """Say something."""
        self._socket.sendall(frames.frame(kind, channel, payload))

    def close(self) -> None:
        """May be called twice."""
        self._socket.close()


def in_thread(function: Callable[..., T], *arguments: Any, **named: Any) -> Callable[[], T]:
    """Call it in a thread of its own. Returns a function that waits for what it returns."""
    results: queue.Queue[T] = queue.Queue()
    threading.Thread(target=lambda: results.put(function(*arguments, **named)), daemon=True).start()
    return lambda: results.get(timeout=60)
