"""The program that runs git: what git may, and when it has to end. The real git is in tests/integration/build/test_git.py."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import sampan

pytestmark = pytest.mark.root

SOURCE = str(Path(sampan.__path__[0]).parent)
PROGRAM = f"import sys; sys.path.insert(0, {SOURCE!r}); from sampan.worker.gitprogram import main; main(sys.argv[1])"
Run = Callable[..., dict[str, Any]]


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody reaches, as not all of pytest's are."""
    made = Path(tempfile.mkdtemp(dir="/var/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def run(place: Path) -> Run:
    """Run a script as git, in the directory `place`/tree: run(script, limit=s, ssh=False). What the program said."""
    (place / "tree").mkdir()
    (place / "bin").mkdir()

    def run(script: str, *, limit: float = 20, ssh: bool = False) -> dict[str, Any]:
        (place / "bin/git").write_text(f"#!/bin/sh\n{script}\n")
        (place / "bin/git").chmod(0o755)
        directory = os.open(place / "tree", os.O_RDONLY | os.O_DIRECTORY)
        request = {
            "parent": os.getpid(),
            "directory": directory,
            "limit": limit,
            "ssh": ssh,
            "environment": {"PATH": f"{place}/bin:/usr/bin:/bin"},
            "repository": "https://x/y.git",
            "refs": ["master"],
            "keep": True,
        }
        done = subprocess.run(
            [sys.executable, "-I", "-c", PROGRAM, json.dumps(request)],
            pass_fds=[directory],
            stdout=subprocess.PIPE,
            check=False,
            timeout=60,
        )
        os.close(directory)
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return said

    return run


@pytest.mark.parametrize(("ssh", "user"), [(False, "65534"), (True, "0")])
def test_git_writes_into_its_directory_alone(run: Run, place: Path, ssh: bool, user: str) -> None:
    said = run(
        'id -u; echo in > inside; for d in / /root /var/tmp /dev/shm /etc; do echo out 2>&1 > "$d/sampan-was-here" && echo written; done; '
        f'cat /etc/shadow > /dev/null && echo read; chown 1 inside && echo given; kill -9 {os.getpid()}; echo end; exit 1',
        ssh=ssh,
    )  # fmt: skip
    lines = said["error"].split("\n")
    assert lines[0].endswith(f": {user}")
    assert "written" not in lines
    assert "given" not in lines
    assert ("read" in lines) == ssh  # with root's files, which ssh needs its keys of
    assert "end" in lines
    assert (place / "tree/inside").read_text() == "in\n"


def test_git_has_a_time(run: Run) -> None:
    assert run("setsid sleep 617.25 & exec sleep 617.25", limit=0.3) == {"error": "git has not come to an end in 0.3 seconds"}
    sleeping = subprocess.run(["pgrep", "-f", "sleep 617.25"], stdout=subprocess.PIPE, text=True, check=False).stdout
    assert sleeping == ""


def test_what_git_says_has_a_bound(run: Run) -> None:
    assert len(run("yes | head -c 1000000; exit 1")["error"]) < 100_000


def test_git_has_room(run: Run, place: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "x", str(place / "tree")], check=True)
    try:
        assert "no space left on device" in run("head -c 20200000 /dev/zero > big; exec sleep 600")["error"]
    finally:
        subprocess.run(["umount", "-l", str(place / "tree")], check=True)
