"""Record docker's part of the cases again: python -m tests.golden.docker28.record URL [ENGINE-URL]

URL: a dockerd 28 with an image `busybox` (busybox-static; CMD sh, PATH in ENV), whose containers of it are removed after each case.
ENGINE-URL: a Sampan engine; its answers become "ours" of the cases that have a "why". Review the diff.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support import dockercases, dockercli


def ask(script: str, url: str) -> tuple[int, str, str]:
    """Run one case against a daemon, and clean up."""
    docker = dockercli.find()
    environment = {**os.environ, "DOCKER_HOST": url}
    with tempfile.TemporaryDirectory() as directory:
        try:
            return dockercases.run(script, docker, environment, directory)
        finally:
            listed = [docker, "ps", "--all", "--quiet", "--filter", "ancestor=busybox"]
            names = subprocess.run(listed, env=environment, capture_output=True, text=True, check=True).stdout.split()
            if names:
                subprocess.run([docker, "rm", "-fv", *names], env=environment, stdout=subprocess.DEVNULL, check=True)
            dockercases.clean_up(docker, environment)


def record(path: Path, url: str, engine: str) -> None:
    """Rewrite one file."""
    lines = []
    for line in path.read_text().splitlines():
        case = json.loads(line)
        case["code"], case["out"], case["err"] = ask(case["run"], url)
        if engine and "why" in case:
            case["ours"] = list(ask(case["run"], engine))
        lines.append(json.dumps(case, ensure_ascii=False) + "\n")
    path.write_text("".join(lines))


if __name__ == "__main__":
    for file in sorted(dockercases.DIRECTORY.glob("*.jsonl")):
        record(file, sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else "")
