"""A daemon that gives fixed answers (api.json), for the real docker client and for ours alike."""

import json
import os
import socketserver
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

ANSWERS: dict[str, Any] = json.loads(Path(__file__).with_name("api.json").read_text())


CHANGES = {
    "/containers/prune": '{"ContainersDeleted":["aaaa","bbbb"],"SpaceReclaimed":1234567}',
    "/networks/prune": '{"NetworksDeleted":["net1"]}',
    "/build/prune": '{"CachesDeleted":["c1","c2"],"SpaceReclaimed":2000}',
    "/images/prune": '{"ImagesDeleted":[{"Untagged":"x:1"},{"Deleted":"sha256:ab"}],"SpaceReclaimed":42}',
    "/volumes/prune": '{"VolumesDeleted":["vol1","vol2"],"SpaceReclaimed":42}',
    "/volumes/create": '{"CreatedAt":"2026-11-24T10:00:00Z","Driver":"local","Labels":{},"Mountpoint":"/m","Name":"made","Scope":"local"}',
    "/images/busybox/tag": "",
    "/images/load": '{"stream":"Loaded image: busybox:latest\\n"}\n{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}\n',
    "/images/create": '{"status":"sha256:cafe"}\n',
    "/images/busybox": '[{"Untagged":"busybox:latest"},{"Deleted":"sha256:12"}]',
}


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD from the table; everything else is a 404 in docker's words."""

    protocol_version = "HTTP/1.1"

    def address_string(self) -> str:
        """A unix socket has no address to log."""
        return "-"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def parse_request(self) -> bool:
        """Note what is asked, with the body."""
        good = super().parse_request()
        if good and not self.path.endswith("/_ping"):
            self.server.log.append([self.command, self.path, self._body()])  # type: ignore[attr-defined]
        return good

    def _body(self) -> str:
        if self.headers.get("Transfer-Encoding") == "chunked":
            whole = b""
            while size := int(self.rfile.readline(), 16):
                whole += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return whole.decode()
        return self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Api-Version", "1.50")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        """Ping."""
        self._answer(200, b"")

    def do_GET(self) -> None:
        """An answer of the table."""
        path = urlsplit(self.path).path
        key = "/" + path.split("/", 2)[2]
        if path == "/_ping":
            self._answer(200, b"OK")
        elif key in ANSWERS:
            self._answer(200, json.dumps(ANSWERS[key]).encode() + b"\n")
        else:
            kind, name = (*key.split("/"), "", "")[1:3]
            words = {
                "containers": f"No such container: {name}",
                "images": f"No such image: {name}:latest",
                "networks": f"network {name} not found",
                "volumes": f"get {name}: no such volume",
            }
            self._answer(404, json.dumps({"message": words.get(kind, "page not found")}).encode())

    def do_POST(self) -> None:
        """Prunes, tags and imports succeed for what CHANGES knows."""
        path = "/" + urlsplit(self.path).path.split("/", 2)[2]
        if self.command == "DELETE" and path == "/volumes/vol1":
            self._answer(204, b"")
        elif path in CHANGES:
            self._answer(200, CHANGES[path].encode())
        else:
            self.do_GET()

    do_DELETE = do_POST


class Stub(socketserver.ThreadingUnixStreamServer):
    """The server; `with Stub(path)` and serve_forever in a thread."""

    daemon_threads = True

    def __init__(self, path: str, handler: type[Handler] = Handler) -> None:
        if os.path.exists(path):
            os.unlink(path)
        super().__init__(path, handler)
        self.log: list[list[str]] = []

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves early (as docker does too) is no news."""
