"""`sampan create` sends what docker's CLI sends,
and refuses what it refuses: compared with a recording of docker 28.2 (tests/golden/cli)."""

import json
import shlex
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from sampan.cli.main import main

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"
CASES: list[dict[str, Any]] = json.loads((GOLDEN / "create_bodies.json").read_text())


class Stub(BaseHTTPRequestHandler):
    """As much of a daemon as `create` needs."""

    protocol_version = "HTTP/1.1"
    version = "1.50"
    seen: ClassVar[list[dict[str, Any]]] = []

    def _answer(self, body: bytes, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Api-Version", self.version)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"null")
        self.seen.append({"path": self.path, "body": body})
        self._answer(json.dumps({"Id": "1" * 64, "Warnings": []}).encode(), 201)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: object) -> None:
        return


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Serves on a unix socket."""

    daemon_threads = True


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    path = tmp_path_factory.mktemp("stub") / "stub.sock"
    with Server(str(path), Stub) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield str(path)
        server.shutdown()


def normal(body: dict[str, Any]) -> dict[str, Any]:
    """The body without the order that Go's maps shuffle."""
    host = body["HostConfig"]
    return {**body, "Env": sorted(body["Env"] or ()), "HostConfig": {**host, "Binds": sorted(host["Binds"] or ())}}


def query(path: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(path).query)


@pytest.mark.parametrize("case", CASES, ids=[f"{case['api']} {case['arguments']}" for case in CASES])
def test_sends_what_docker_sends(
    case: dict[str, Any], stub: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{stub}")
    monkeypatch.setenv("FROM_HOST", "here")
    monkeypatch.delenv("MISSING", raising=False)
    monkeypatch.chdir(GOLDEN / "files")
    monkeypatch.setattr(Stub, "version", case["api"])
    Stub.seen.clear()
    code = main([f"--config={tmp_path}", "create", *shlex.split(case["arguments"])])
    stderr = capsys.readouterr().err
    if "message" in case:
        message = stderr.split("\n\nRun '")[0].split("\n\nUsage:")[0].strip()
        expected = case["message"].replace("docker: ", "sampan: ", 1) if case["message"].startswith("docker: ") else case["message"]
        assert (message, code) == (expected, case["code"])
        assert not Stub.seen
        return
    assert (code, len(Stub.seen)) == (0, 1), stderr
    sent = json.loads(json.dumps(Stub.seen[0]).replace(stub, "/stub.sock"))
    assert query(sent["path"]) == query(case["path"])
    assert normal(sent["body"]) == normal(case["body"])
