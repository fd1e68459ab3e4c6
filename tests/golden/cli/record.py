"""Record what the real docker client prints for the commands of cases.txt, against the fixed answers of stub.py."""

import json
import os
import shlex
import subprocess
import tempfile
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


if __name__ == "__main__":
    main()
