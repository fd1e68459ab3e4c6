"""Record what the real docker client makes of context_cases.txt, and what is in its directory then (contexts.json)."""

import json
import os
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def steps() -> list[tuple[dict[str, str], list[str]]]:
    """The lines of context_cases.txt: variables, and the words behind the program's name."""
    found = []
    for line in (HERE / "context_cases.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            words = shlex.split(line)
            variables = dict([words.pop(0).split("=", 1)]) if words[0].startswith("DOCKER_") else {}
            found.append((variables, words))
    return found


def prepare(folder: Path, certificate: bytes, key: bytes) -> None:
    """What the commands find in their directory."""
    for name, content in {"ca.pem": certificate, "cert.pem": certificate, "key.pem": key, "config.txt": b"no certificate\n" * 50}.items():
        (folder / name).write_bytes(content)


def tree(folder: Path) -> dict[str, Any]:
    """What is stored: modes of all, contents of all but certificates."""
    found = {}
    for path in sorted((folder / "config").rglob("*")):
        shown = None if path.is_dir() or path.suffix == ".pem" else path.read_text()
        found[str(path.relative_to(folder))] = [oct(path.stat().st_mode & 0o777), shown]
    return found


def main() -> None:
    """Write contexts.json."""
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key -out cert -subj /CN=x -days 9999"
        subprocess.run(shlex.split(make), cwd=folder, check=True, capture_output=True)
        certificate, key = (folder / "cert").read_bytes(), (folder / "key").read_bytes()
        prepare(folder, certificate, key)
        for variables, words in steps():
            environment = {"PATH": os.environ["PATH"], "HOME": name, "DOCKER_CONFIG": f"{name}/config", **variables}
            done = subprocess.run(
                ["docker", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=30, umask=0o022
            )
            results.append([done.returncode, done.stdout.replace(name, "FOLDER"), done.stderr.replace(name, "FOLDER")])
        stored = tree(folder)
    whole = {"certificate": certificate.decode(), "key": key.decode(), "results": results, "stored": stored}
    (HERE / "contexts.json").write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
