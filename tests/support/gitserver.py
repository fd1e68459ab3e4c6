"""Git repositories of a test's, and a web server that has them: by git's own protocol, or as plain files."""

import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.serving import Serving

_IDENTITY = ("-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "init.defaultBranch=master", "-c", "protocol.file.allow=always")
_SAFE = ("-c", "safe.directory=*")


def git(directory: Path, *arguments: str) -> str:
    """What git says, run in a directory."""
    done = subprocess.run(["git", *_IDENTITY, *arguments], cwd=directory, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(directory: Path, files: dict[str, str | None], message: str = "one") -> str:
    """Commit files (None: gone; `-> x` a symlink) in a repository, made if there is none; the commit's ID."""
    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / ".git").exists():
        git(directory, "init")
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.unlink()
        elif content.startswith("-> "):
            path.symlink_to(content[3:])
        else:
            path.write_text(content)
    git(directory, "add", "-A")
    git(directory, "commit", "-m", message)
    git(directory, "update-server-info")
    return git(directory, "rev-parse", "HEAD")


class GitServer(Serving):
    """Serves the repositories below a directory: `<url>/name.git` is `name/.git`, `<url>/dumb/name.git` the same without any program."""

    def __init__(self, root: Path) -> None:
        self.asked: list[str] = []
        """Paths, in their order."""
        self.root = root
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.asked.append(self.path)
                if self.path.startswith("/hangs.git"):
                    server.hanging.wait(60)
                elif self.path.startswith("/dumb/"):
                    self._file(self.path.removeprefix("/dumb"))
                else:
                    self._program(b"")

            def do_POST(self) -> None:
                server.asked.append(self.path)
                chunked = self.headers.get("Transfer-Encoding") == "chunked"
                self._program(self._chunks() if chunked else self.rfile.read(int(self.headers["Content-Length"])))

            def _chunks(self) -> bytes:
                found = b""
                while size := int(self.rfile.readline(), 16):
                    found += self.rfile.read(size)
                    self.rfile.readline()
                return found

            def _file(self, path: str) -> None:
                name, _, inner = urlsplit(path).path.lstrip("/").partition(".git/")
                file = root / name / ".git" / inner
                self.send_response(200 if file.is_file() else 404)
                self.end_headers()
                if file.is_file():
                    self.wfile.write(file.read_bytes())

            def _program(self, body: bytes) -> None:
                parts = urlsplit(self.path)
                environment = {
                    **os.environ,
                    "GIT_PROJECT_ROOT": str(root),
                    "GIT_HTTP_EXPORT_ALL": "1",
                    "PATH_INFO": parts.path.replace(".git/", "/.git/", 1),
                    "QUERY_STRING": parts.query,
                    "REQUEST_METHOD": self.command,
                    "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                    "CONTENT_LENGTH": str(len(body)),
                    "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
                    "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                }
                done = subprocess.run(["git", *_SAFE, "http-backend"], input=body, env=environment, capture_output=True, check=False)
                head, _, content = done.stdout.partition(b"\r\n\r\n")
                fields = [line.split(": ", 1) for line in head.decode().split("\r\n") if ": " in line]
                self.send_response(int(next((value for name, value in fields if name == "Status"), "200").split()[0]))
                for name, value in fields:
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.hanging = threading.Event()
        """Set: those who ask for /hangs.git are sent away."""
        super().__init__(Handler)
        self.url = f"http://{self.host}"

    def close(self) -> None:
        """Stop serving."""
        self.hanging.set()
        super().close()
