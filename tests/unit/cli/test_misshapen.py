"""Answers that are JSON, but not the JSON that a daemon answers with: a command ends with a line, not with a traceback."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sampan.cli.main import main

BODIES = [
    b"nonsense", b"null", b"5", b'"text"', b"[]", b"{}", b"[null]", b"[[1]]", b'["text"]', b"[{}]", b"[" * 100_000,
    b'{"Id": 5, "Name": 5, "Warnings": 5, "State": 5, "Config": 5, "Volumes": 5, "Containers": 5, "Error": 5, "ID": 5, "Titles": 5}',
    b'[{"Id": [1], "Names": [5], "Created": "x", "Ports": 5, "Labels": 5, "RepoTags": 5, "Actor": 5, "Status": 5, "Size": {}}]',
    b'{"StatusCode": 1e999, "Error": [1], "time": 1e999, "Actor": "x", "progressDetail": 5, "id": [1], "message": {}, "read": 5}',
    b'{"StatusCode": "x", "time": "x", "cpu_stats": 5, "memory_stats": "x", "status": 5, "progressDetail": {"current": "x"}}',
]  # fmt: skip
COMMANDS = """
ps|images|images --tree|version|info|events|top x|port x|diff x|history x|network ls|volume ls|system df|system df -v|plugin ls|wait x
commit x|network create x|volume create x|container prune -f|image prune -f|volume prune -f|network prune -f|builder prune -f
system prune -f|stats --no-stream x|stats --no-stream|attach x|logs x|start -a x|exec x true|run x|create x
pull x|push x|update -m 1g x|search x|rmi x
inspect x|inspect -f {{.Id}} x|image inspect x|network inspect x|events --format {{.ID}}|ps --format {{.Names}}|login -u a -p b x
cp x:/etc/passwd -|import /dev/null|load -i /dev/null|volume update x|system check|container ls -s
"""


class Handler(socketserver.StreamRequestHandler):
    """Whatever is asked, the server's `body` is the answer."""

    def handle(self) -> None:
        while request := self.rfile.readline():
            length, chunked, upgrade = 0, False, False
            while (line := self.rfile.readline().lower()).strip():
                length = int(line.partition(b":")[2]) if line.startswith(b"content-length") else length
                chunked, upgrade = chunked or line.startswith(b"transfer-encoding"), upgrade or line.startswith(b"upgrade")
            self.rfile.read(length)
            while chunked and (line := self.rfile.readline()) and line.strip() != b"0":
                pass
            if upgrade:
                self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\n\r\n")
                return
            body = b"" if request.startswith(b"HEAD") else self.server.body  # type: ignore[attr-defined]
            self.wfile.write(b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))


class Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A client that has gone."""


@contextmanager
def daemon(path: Path, body: bytes) -> Iterator[str]:
    with Server(str(path), Handler) as server:
        server.body = body  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"unix://{path}"
        server.shutdown()


@pytest.mark.parametrize("body", BODIES, ids=[str(number) for number in range(len(BODIES))])
def test_no_command_ends_with_a_traceback(body: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    failed = []
    with daemon(tmp_path / "s", body) as host:
        for command in COMMANDS.replace("\n", "|").strip("|").split("|"):
            try:
                main(["--config", str(tmp_path), "-H", host, *command.split()])
            except Exception as error:
                failed.append((command, repr(error)))
    assert failed == []
    assert "Traceback" not in capfd.readouterr().err


def test_it_is_one_line_and_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with daemon(tmp_path / "s", json.dumps([{"Id": 5}]).encode()) as host:
        codes = [main(["--config", str(tmp_path), "-H", host, *command]) for command in (["ps"], ["run", "x"], ["top", "x"])]
        assert codes == [1, 125, 1]
        assert [line.partition(": ")[0] for line in capsys.readouterr().err.splitlines()] == [
            "the daemon's answer is not what is expected of one"
        ] * 3
        with pytest.raises(TypeError):
            main(["--debug", "--config", str(tmp_path), "-H", host, "top", "x"])
