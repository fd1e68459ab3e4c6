"""An HTTP proxy for tests, which counts what goes through it."""

import select
import socket
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.request import urlopen

from tests.support.serving import Serving


class Proxy(Serving):
    """Passes GET of http://registry.example on to `target`, and CONNECT to where it is asked for or `hosts` says."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proxy.seen.append(self.path)
                if not self.path.startswith("http://registry.example/"):
                    self.send_error(502)
                    return
                with urlopen(self.path.replace("registry.example", proxy.target), timeout=20) as answer:
                    body = answer.read()
                    self.send_response(answer.status)
                    self.send_header("Content-Type", answer.headers["Content-Type"])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_CONNECT(self) -> None:
                proxy.seen.append(self.path)
                proxy.passwords.add(self.headers.get("Proxy-Authorization", ""))
                host, _, port = proxy.hosts.get(self.path.removesuffix(":443"), self.path).rpartition(":")
                with socket.create_connection((host, int(port)), 20) as there:
                    self.send_response(200)
                    self.end_headers()
                    ends = {self.connection: there, there: self.connection}
                    while True:
                        for ready in select.select(list(ends), [], [], 20)[0]:
                            data = ready.recv(65536)
                            if not data:
                                self.close_connection = True
                                return
                            ends[ready].sendall(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.target = ""
        self.passwords: set[str] = set()
        self.hosts: dict[str, str] = {}
        """Name → address and port"""
        super().__init__(Handler)
        self.url = f"http://{self.host}"
