"""Record what docker's own CLI sends for a list of command lines: makes create_bodies.json anew.

    python tests/golden/cli/record_create.py [DOCKER]

A stub daemon (API 1.50 and 1.41) answers pings and creates; nothing is run. The golden file keeps, for every command line, the API
version and the query and body of POST /containers/create.
"""

import http.server
import json
import os
import random
import shlex
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

HERE = Path(__file__).parent
GOLDEN = HERE / "create_bodies.json"
CASES = HERE / "create_cases.txt"
FILES = HERE / "files"
"""The working directory of the client."""
HOST = {"FROM_HOST": "here"}
"""What the client's environment has for `-e NAME`."""


class Stub(http.server.BaseHTTPRequestHandler):
    """As much of a daemon as `docker create` needs."""

    protocol_version = "HTTP/1.1"
    version = "1.50"
    seen: ClassVar[list[dict[str, Any]]] = []

    def _answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Api-Version", self.version)
        self.send_header("Ostype", "linux")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self._answer(b"")

    do_GET = do_HEAD

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        self.seen.append({"path": self.path, "body": body})
        self._answer(json.dumps({"Id": "1" * 64, "Warnings": []}).encode(), 201)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        return


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves on a unix socket."""

    daemon_threads = True


@contextmanager
def serving(path: Path, handler: type[Stub]) -> Iterator[None]:
    """A stub daemon on a socket, while this lasts."""
    with Server(str(path), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def said(stderr: str) -> str:
    """A client's message without the usage after it."""
    return stderr.split("\n\nRun '")[0].split("\n\nUsage:")[0].strip()


def cases() -> list[tuple[str, str]]:
    """(API version, arguments) of every line of create_cases.txt; a line may start with `@1.41 `."""
    found = []
    for line in CASES.read_text().splitlines():
        if line and not line.startswith("#"):
            version, arguments = line[1:].split(" ", 1) if line.startswith("@") else ("1.50", line)
            found.append((version, arguments))
    return found


def combined(lines: list[str], count: int) -> list[str]:
    """Command lines that each have the options of several accepted ones, in a fixed random order."""
    chance = random.Random(28)
    options = [line.removesuffix(" busybox") for line in lines if line.endswith(" busybox") and line.startswith("-") and " -- " not in line]
    return [" ".join([*chance.sample(options, chance.randint(2, 7)), "busybox echo hi"]) for _ in range(count)]


def send(command: list[str], arguments: str, version: str, folder: Path) -> dict[str, Any]:
    """Run one `create` of a client against a stub; what it sent, or its exit code and message if it sent nothing."""
    path = folder / "stub.sock"
    path.unlink(missing_ok=True)
    handler = type("Handler", (Stub,), {"version": version, "seen": []})
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "DOCKER_HOST": f"unix://{path}", **HOST}
    with serving(path, handler):
        done = subprocess.run(
            [*command, "create", *shlex.split(arguments)],
            env=environment,
            cwd=FILES,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    if handler.seen:
        sent: dict[str, Any] = json.loads(json.dumps(handler.seen[-1]).replace(str(path), "/stub.sock"))
        return sent
    return {"code": done.returncode, "message": said(done.stderr)}


def main() -> None:
    """Write the golden file."""
    docker = sys.argv[1:] or ["docker"]
    with tempfile.TemporaryDirectory() as folder:
        recorded = [
            {"api": version, "arguments": arguments, **send(docker, arguments, version, Path(folder))} for version, arguments in cases()
        ]
        accepted = [case["arguments"] for case in recorded if case["api"] == "1.50" and "body" in case]
        recorded += [
            {"api": "1.50", "arguments": arguments, **send(docker, arguments, "1.50", Path(folder))}
            for arguments in combined(accepted, 200)
        ]
    GOLDEN.write_text(json.dumps(recorded, ensure_ascii=False).replace('{"api"', '\n{"api"') + "\n")
    print(f"{len(recorded)} cases")


if __name__ == "__main__":
    main()
