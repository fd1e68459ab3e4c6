"""Bars of pull, push and import on terminals: after every few lines of the daemon's, `sampan` shows what docker's own client shows."""

import fcntl
import json
import os
import pty
import select
import socketserver
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from sampan.engine.progress import bar_line, layer_line
from sampan.version import API_VERSION
from tests.support.engine import CLI
from tests.support.screen import screen

SECONDS = 60.0
A, B, C = "aaaaaaaaaaaa", "bbbbbbbbbbbb", "cccccccccccc"
DIGEST = "sha256:" + "d" * 64

PULL = [
    {"status": "Pulling from team/app", "id": "1"},
    layer_line("Already exists", A),
    layer_line("Pulling fs layer", B),
    layer_line("Pulling fs layer", C),
    layer_line("Waiting", C),
    layer_line("Downloading", B, 1, 5_000_000),
    layer_line("Downloading", B, 2_500_000, 5_000_000),
    layer_line("Downloading", C, 123, 456),
    layer_line("Retrying in 5 seconds", B),
    layer_line("Downloading", B, 4_999_999, 5_000_000),
    layer_line("Downloading", C, 1000),
    layer_line("Verifying Checksum", B),
    layer_line("Download complete", B),
    layer_line("Extracting", B, 5_000_000, 5_000_000),
    layer_line("Pull complete", B),
    layer_line("Extracting", C, 456, 456),
    layer_line("Pull complete", C),
    {"status": f"Digest: {DIGEST}"},
    {"status": "Status: Downloaded newer image for r.example/team/app:1"},
]
PUSH = [
    {"status": "The push refers to repository [r.example/team/app]"},
    layer_line("Preparing", A),
    layer_line("Preparing", B),
    layer_line("Waiting", B),
    layer_line("Layer already exists", A),
    layer_line("Pushing", B, 512, 1024),
    layer_line("Pushing", B, 2048, 1024),
    layer_line("Pushed", B),
    {"status": f"1: digest: {DIGEST} size: 528"},
    {"progressDetail": {}, "aux": {"Tag": "1", "Digest": DIGEST, "Size": 528}},
]
IMPORT = [
    {"status": "Downloading from http://r.example/x.tar"},
    bar_line("Importing", 10_000, 30_000),
    bar_line("Importing", 30_000, 30_000),
    {"status": DIGEST},
]
BROKEN = [*PULL[:8], {"errorDetail": {"message": "unexpected EOF"}, "error": "unexpected EOF"}]
STREAMS: dict[str, tuple[list[str], list[Any]]] = {
    "pull": (["pull"], PULL),
    "broken": (["pull"], BROKEN),
    "push": (["push"], PUSH),
}


class Daemon(socketserver.ThreadingUnixStreamServer):
    """Answers every request for progress with the first `count` of `lines`."""

    daemon_threads = True
    lines: list[Any]
    count = 0

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        super().__init__(self.path, Handler)


class Handler(BaseHTTPRequestHandler):
    server: Daemon
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Api-Version", API_VERSION)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command == "POST":
            for line in self.server.lines[: self.server.count]:
                self.wfile.write(json.dumps(line).encode() + b"\r\n")

    do_HEAD = do_POST = do_GET

    def address_string(self) -> str:
        return "client"

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    with Daemon(tmp_path / "d.sock") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def shown(daemon: Daemon, columns: int, *command: str) -> tuple[list[str], int]:
    """What a client has on its terminal when it is done, and its exit code."""
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    environment = {**os.environ, "DOCKER_HOST": f"unix://{daemon.path}", "DOCKER_CONFIG": os.path.dirname(daemon.path), "TERM": "xterm"}
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment, start_new_session=True)
    os.close(slave)
    text = b""
    deadline = time.monotonic() + SECONDS
    with suppress(OSError):  # EIO: nobody has it open any more
        while select.select([master], [], [], max(0, deadline - time.monotonic()))[0] and (piece := os.read(master, 65536)):
            text += piece
    os.close(master)
    return screen(text.decode(), columns), process.wait(SECONDS)


@pytest.mark.parametrize("columns", [80, 120])
@pytest.mark.parametrize("name", STREAMS)
def test_the_same_screens(daemon: Daemon, docker_path: str, name: str, columns: int) -> None:
    command, daemon.lines = STREAMS[name]
    for count in (*range(2, len(daemon.lines), 3), len(daemon.lines)):
        daemon.count = count
        arguments = (*command, "r.example/team/app:1")
        expected = shown(daemon, columns, docker_path, *arguments)
        assert shown(daemon, columns, *CLI, *arguments) == expected, count
    assert any(line.startswith(f"{B}: ") for line in expected[0])


@pytest.mark.parametrize("columns", [80, 120])
def test_the_same_screens_of_an_import(daemon: Daemon, docker_path: str, columns: int) -> None:
    daemon.lines = IMPORT
    for count in range(1, len(IMPORT) + 1):
        daemon.count = count
        arguments = ("import", "http://r.example/x.tar")
        expected = shown(daemon, columns, docker_path, *arguments)
        assert shown(daemon, columns, *CLI, *arguments) == expected, count
