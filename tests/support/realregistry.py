"""apt's docker-registry on loopback, with the data in a directory of the test's."""

import json
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Any


class RealRegistry:
    """A running docker-registry; netns: in that network namespace (ip-netns(8)); http: further settings of its config.yml."""

    def __init__(self, directory: Path, *, netns: str = "", **http: Any) -> None:
        program = shutil.which("docker-registry")
        assert program, "apt's docker-registry is not installed: ./dev test does"
        directory.mkdir(parents=True, exist_ok=True)
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = server.getsockname()[1]
        auth = http.pop("auth", None)
        settings: dict[str, Any] = {
            "version": "0.1",
            "storage": {"filesystem": {"rootdirectory": str(directory / "data")}, "delete": {"enabled": True}},
            "http": {"addr": f"127.0.0.1:{self.port}", **http},
        }
        if auth is not None:
            settings["auth"] = auth
        (directory / "config.yml").write_text(json.dumps(settings))
        self.host = f"127.0.0.1:{self.port}"
        self.log = directory / "log"
        with self.log.open("wb") as log:
            enter = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
            command = [*enter, program, "serve", str(directory / "config.yml")]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while f"listening on {self.host}" not in self.log.read_text(errors="replace"):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def requests(self) -> list[str]:
        """`METHOD path status` of all requests so far."""
        found = []
        for line in self.log.read_text(errors="replace").splitlines():
            if '"' in line and ' HTTP/1.1" ' in line:
                method, path, rest = line.split('"', 1)[1].split(" ", 2)
                found.append(f"{method} {path} {rest.split()[1]}")
        return found

    def close(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait(20)
