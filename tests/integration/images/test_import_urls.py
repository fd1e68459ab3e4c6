"""docker import URL: from a web server on loopback that answers, redirects, refuses and breaks off."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from tests.support.engine import Engine
from tests.support.registries import Docker, big, zipped
from tests.support.serving import Serving
from tests.support.tars import tar

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("no_images_left")]

ARCHIVE = tar(("f", "note", "from the web"))
LARGE = big(8)
ANSWERS = {"/plain.tar": ARCHIVE, "/packed.tar.gz": zipped(ARCHIVE), "/large.tar": LARGE, "/garbage": b"garbage" * 1000}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path in ANSWERS:
            self.send_response(200)
            self.send_header("Content-Length", str(len(ANSWERS[self.path])))
            self.end_headers()
            self.wfile.write(ANSWERS[self.path])
        elif self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/round":
            self.send_response(302)
            self.send_header("Location", "/round")
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif self.path == "/chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(ARCHIVE), ARCHIVE))
        elif self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", str(len(ARCHIVE) + 1))
            self.end_headers()
            self.wfile.write(ARCHIVE)
            self.close_connection = True
        else:
            status = int(self.path[1:])
            self.send_response(status, "Reason")
            self.send_header("Content-Length", "11")
            self.end_headers()
            self.wfile.write(b" the \x1b why ")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def host() -> Iterator[str]:
    serving = Serving(Handler)
    yield serving.host
    serving.close()


def ask(engine: Engine, source: str, **query: str) -> tuple[int, list[dict[str, Any]]]:
    """The API's answer: its status, and its lines."""
    rest = "".join(f"&{key}={value}" for key, value in query.items())
    status, answer = engine.request("POST", f"/images/create?fromSrc={source}{rest}")
    return status, [answer] if isinstance(answer, dict) else [json.loads(line) for line in answer.splitlines()]


def test_what_docker_prints(engine: Engine, docker: Docker, host: str) -> None:
    done = docker("import", "-c", 'CMD ["x"]', f"http://{host}/plain.tar", "web:1")
    image = docker("images", "-q", "--no-trunc", "web:1").stdout.strip()
    assert (done.returncode, done.stdout, done.stderr) == (0, f"Downloading from http://{host}/plain.tar\n{image}\n", "")
    shown = docker("inspect", "-f", "{{.Comment}} {{.Config.Cmd}} {{.Size}}", "web:1").stdout
    assert shown == f"Imported from http://{host}/plain.tar [x] 12\n"
    ours = engine.cli("import", "-m", "why", f"http://{host}/plain.tar", "web:2").stdout.splitlines()
    assert ours[0] == f"Downloading from http://{host}/plain.tar"
    assert docker("inspect", "-f", "{{.Comment}} {{.Id}}", "web:2").stdout == f"why {ours[-1]}\n"


@pytest.mark.parametrize("path", ["packed.tar.gz", "moved/plain.tar", "chunked"])
def test_archives_of_all_kinds(engine: Engine, host: str, path: str) -> None:
    status, lines = ask(engine, f"{host}/{path}", repo="web")  # http without a scheme, and the comment says what was asked for
    assert (status, lines[0]) == (200, {"status": f"Downloading from http://{host}/{path}"})
    shown = engine.request("GET", "/images/web/json")[1]
    assert (shown["Id"], shown["Size"], shown["Comment"]) == (lines[-1]["status"], 12, f"Imported from {host}/{path}")


def test_bars(engine: Engine, host: str) -> None:
    _, lines = ask(engine, f"http://{host}/large.tar")
    bars = [line for line in lines if line["status"] == "Importing"]
    assert bars[-1]["progressDetail"] == {"current": len(LARGE), "total": len(LARGE)}
    assert all(set(line) == {"status", "progress", "progressDetail"} for line in bars)


@pytest.mark.parametrize(
    ("source", "status", "message"),
    [
        ("http://{host}/404", 404, "failed to GET http://{host}/404 with status 404 Reason: the \\x1b why"),
        ("http://{host}/400", 400, "failed to GET http://{host}/400 with status 400 Reason: the \\x1b why"),
        ("http://{host}/403", 403, "failed to GET http://{host}/403 with status 403 Reason: the \\x1b why"),
        ("http://{host}/503", 500, "failed to GET http://{host}/503 with status 503 Reason: the \\x1b why"),
        ("http://127.0.0.1:1/x", 500, 'Get "http://127.0.0.1:1/x": dial tcp 127.0.0.1:1: connect: connection refused'),
        ("ftp://{host}/x", 500, 'Get "ftp://{host}/x": unsupported protocol scheme "ftp"'),
        ("/etc/passwd", 500, 'Get "http:///etc/passwd": http: no Host in request URL'),
        ("file:///etc/passwd", 500, 'Get "file:///etc/passwd": unsupported protocol scheme "file"'),
        ("http://[", 400, 'parse "http://[": Invalid IPv6 URL'),
    ],
)
def test_refusals_before_anything_comes(engine: Engine, host: str, source: str, status: int, message: str) -> None:
    assert ask(engine, source.format(host=host)) == (status, [{"message": message.format(host=host)}])


def test_a_bad_name_asks_nobody(engine: Engine) -> None:
    status, [answer] = ask(engine, "http://127.0.0.1:1/x", repo="BAD")
    assert (status, answer["message"]) == (400, "invalid reference format: repository name (library/BAD) must be lowercase")


def test_redirects_end(engine: Engine, host: str) -> None:
    assert ask(engine, f"http://{host}/round")[0] == 500


@pytest.mark.parametrize(
    ("path", "query", "message"),
    [
        ("garbage", {}, "archive/tar: invalid tar header"),
        ("cut", {}, 'Get "http://{host}/cut": unexpected EOF'),
        ("plain.tar", {"changes": "FROM+x"}, "FROM is not a valid change command"),
        ("plain.tar", {"platform": "windows/amd64"}, "operating system is not supported"),
    ],
)
def test_what_fails_later_is_told_in_the_stream(engine: Engine, host: str, path: str, query: dict[str, str], message: str) -> None:
    before = engine.request("GET", "/images/json?all=1")[1]
    status, lines = ask(engine, f"http://{host}/{path}", **query)
    assert (status, lines[0]) == (200, {"status": f"Downloading from http://{host}/{path}"})
    assert lines[-1]["error"] == message.format(host=host)
    assert engine.request("GET", "/images/json?all=1")[1] == before
