"""Record what the real docker client prints for the commands of cases.txt, against the fixed answers of stub.py."""

import contextlib
import json
import os
import pty
import shlex
import subprocess
import tempfile
import termios
import threading
import time
from pathlib import Path

from stub import Stub

HERE = Path(__file__).parent


def main() -> None:
    """Write results.json."""
    results = []
    with tempfile.TemporaryDirectory() as folder, Stub(f"{folder}/docker.sock") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {"PATH": os.environ["PATH"], "HOME": folder, "DOCKER_HOST": f"unix://{folder}/docker.sock", "TZ": "UTC"}
        Path(folder, "tar").write_text("content")
        for line in (HERE / "cases.txt").read_text().split("\n"):
            if not line or line.startswith("#"):
                continue
            now = time.time_ns()
            server.log.clear()
            done = subprocess.run(
                ["docker", *shlex.split(line.replace("FOLDER", folder))],
                capture_output=True,
                check=False,
                timeout=30,
                env=environment,
                input=b"",
            )
            results.append(
                {
                    "command": line,
                    "requests": list(server.log),
                    "now": now,
                    "exit": done.returncode,
                    "stdout": done.stdout.decode().replace(folder, "FOLDER"),
                    "stderr": done.stderr.decode().replace(folder, "FOLDER"),
                }
            )
    (HERE / "results.json").write_text(json.dumps(results, indent=1, ensure_ascii=True) + "\n")


def on_terminals() -> None:
    """Write tree_terminal.json: `docker images --tree -a` on terminals of some widths."""
    shown = {}
    with tempfile.TemporaryDirectory() as folder, Stub(f"{folder}/docker.sock") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        environment = {"PATH": os.environ["PATH"], "HOME": folder, "DOCKER_HOST": f"unix://{folder}/docker.sock", "TERM": "xterm"}
        for columns in (18, 30, 41, 56, 71, 79, 100):
            ours, theirs = pty.openpty()
            termios.tcsetwinsize(theirs, (40, columns))
            subprocess.run(["docker", "images", "--tree", "-a"], stdin=theirs, stdout=theirs, check=True, timeout=30, env=environment)
            os.close(theirs)
            shown[columns] = read_all(ours).decode().replace("\r\n", "\n")
    (HERE / "tree_terminal.json").write_text(json.dumps(shown, indent=1) + "\n")


def read_all(fd: int) -> bytes:
    """What a terminal still has to show, and close it."""
    pieces = b""
    with contextlib.suppress(OSError):  # EIO: its other end is closed
        while piece := os.read(fd, 65536):
            pieces += piece
    os.close(fd)
    return pieces


if __name__ == "__main__":
    main()
    on_terminals()
