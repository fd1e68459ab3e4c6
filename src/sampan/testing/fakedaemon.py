"""A daemon for tests of the CLI: a unix socket, a hand-written HTTP loop, and one scripted container. Shows what a client really does."""

import json
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qs, urlsplit

ID = "c0ffee" + "0" * 58
EXEC = "e" * 64


def _body(reader: BinaryIO, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return reader.read(int(headers.get("content-length", "0")))
    pieces = []
    while size := int(reader.readline(), 16):
        pieces.append(reader.read(size))
        reader.readline()
    reader.readline()
    return b"".join(pieces)


class Stream:
    """The container's side of a hijacked connection."""

    def __init__(self, sock: socket.socket, daemon: "FakeDaemon") -> None:
        self.sock = sock
        self.daemon = daemon

    def frame(self, kind: int, data: bytes) -> None:
        self.sock.sendall(bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data)

    def raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def read(self, size: int = 65536) -> bytes:
        return self.sock.recv(size)


class FakeDaemon:
    """Serves until closed. `body` is run with the Stream once the container (or exec) is started; its return value is the exit code."""

    def __init__(self, path: Path, body: Callable[[Stream], int], *, tty: bool = False, stdin: bool = True, version: str = "1.51") -> None:
        self.path = path
        self.body = body
        self.tty = tty
        self.stdin = stdin
        self.version = version
        self.requests: list[str] = []
        self.log: list[dict[str, Any]] = []
        self.queries: dict[str, dict[str, list[str]]] = {}
        self.signalled = threading.Event()
        self.resized = threading.Event()
        self.stop = threading.Event()
        self._started = threading.Event()
        self._ended = threading.Event()
        self.code = 0
        self.delay = 0.0  # seconds that a stop takes
        self.build_answer: tuple[int, bytes] = (200, b"")
        self.uploads: list[tuple[dict[str, str], bytes]] = []
        """(headers, body) of each build"""
        self._stream: Stream | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(16)
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "FakeDaemon":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for sock in self._sockets:
            sock.close()

    def names(self) -> list[str]:
        """What was asked, without pings: `POST create`, `POST attach`, ..."""
        return [request for request in self.requests if "_ping" not in request]

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(sock)
            threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        try:
            reader = sock.makefile("rb")
            while line := reader.readline():
                method, target, _ = line.decode().split()
                headers = {}
                while (field := reader.readline().strip()) != b"":
                    name, _, value = field.decode().partition(":")
                    headers[name.lower()] = value.strip()
                data = _body(reader, headers)
                if urlsplit(target).path.endswith("/build"):
                    self.uploads.append((headers, data))
                    data = b""
                if self._answer(sock, method, target, json.loads(data) if data else None):
                    return
        except (OSError, ValueError):
            return

    def _send(self, sock: socket.socket, status: int, body: Any = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        head = (
            f"HTTP/1.1 {status} X\r\nApi-Version: {self.version}\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        sock.sendall(head.encode() + data)

    def _answer(self, sock: socket.socket, method: str, target: str, body: Any) -> bool:
        url = urlsplit(target)
        name = url.path.rsplit("/", 1)[-1]
        self.requests.append(f"{method} {name}")
        self.queries[name] = parse_qs(url.query)
        self.log.append({"method": method, "path": url.path, "query": self.queries[name], "body": body})
        if name == "_ping":
            self._send(sock, 200)
        elif "/networks/" in target and method == "POST":
            self._send(sock, 200, {"Id": ID})
        elif name == "update":
            self._send(sock, 200, {"Warnings": None})
        elif name == "create":
            self.tty = body["Tty"]
            self._send(sock, 201, {"Id": ID, "Warnings": []})
        elif name == "exec":
            self.tty = body["Tty"]
            self._send(sock, 201, {"Id": EXEC})
        elif name == "attach" or (name == "start" and "/exec/" in target):
            sock.sendall(
                b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
            )
            self._stream = Stream(sock, self)
            if name == "start" or self.queries[name].get("logs") or self._started.is_set():
                self._run()
            return True
        elif name == "start":
            self._started.set()
            self._send(sock, 204)
            if self._stream is not None:
                threading.Thread(target=self._run, daemon=True).start()
        elif name == "wait":
            sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            self._ended.wait(20)
            answer = json.dumps({"StatusCode": self.code}).encode()
            sock.sendall(b"%x\r\n%s\r\n0\r\n\r\n" % (len(answer), answer))
        elif name == "build":
            status, answer = self.build_answer
            head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(answer)}\r\n\r\n"
            sock.sendall(head.encode() + answer)
        elif name == "prune":
            self._send(sock, 200, {"CachesDeleted": ["one", "two"], "SpaceReclaimed": 1234})
        elif name == "kill":
            self.signalled.set()
            self._send(sock, 204)
        elif name == "resize":
            self.resized.set()
            self._send(sock, 200)
        elif name == "json":
            state = {"Running": True, "Paused": False, "Restarting": False}
            config = {"Tty": self.tty, "OpenStdin": self.stdin}
            self._send(sock, 200, {"Id": ID, "State": state, "Config": config, "HostConfig": {"AutoRemove": False}, "ExitCode": self.code})
        elif name == "top":
            self._send(sock, 200, {"Titles": ["PID", "CMD"], "Processes": [["1", "sleep 1"]]})
        elif name == "logs":
            self._send(sock, 200)
        elif name == "stop" and self.delay:
            self.stop.wait(self.delay)
            self._send(sock, 204)
        elif method == "DELETE" or name in ("stop", "restart", "pause", "unpause", "rename"):
            self._send(sock, 204)
        else:
            self._send(sock, 404, {"message": "page not found"})
        return False

    def mark_running(self) -> None:
        """The container runs already: an attach gets its stream at once."""
        self._started.set()

    def mark_ended(self) -> None:
        """The container has ended already: a wait returns at once."""
        self._ended.set()

    def _run(self) -> None:
        assert self._stream is not None
        try:
            self.code = self.body(self._stream)
            self._stream.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._ended.set()
