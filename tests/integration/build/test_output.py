"""`sampan build --output`: a build's files, without its image."""

import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.golden.build.record import caller, prepare
from tests.support.engine import Engine

pytestmark = pytest.mark.root

Client = Callable[..., "subprocess.CompletedProcess[bytes]"]
DOCKERFILE = """\
FROM buildbase AS build
RUN mkdir -p /out/d/e && echo first > /out/d/gone && echo hello > /out/d/file && ln /out/d/file /out/hard && ln -s d/file /out/soft \\
 && chmod 750 /out/d && chown 55:66 /out/d/file && chmod 4711 /out/d/file && touch -d '2001-02-03 04:05:06' /out/d/file && mkfifo /out/fifo
FROM scratch AS files
COPY --from=build /out /
FROM files
COPY file /d/gone
"""


@pytest.fixture
def sampan(engine: Engine) -> Client:
    """The command line against the engine."""

    def run(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
        environment = {**os.environ, "DOCKER_HOST": f"unix://{engine.socket}"}
        return subprocess.run(
            [sys.executable, "-m", "sampan.cli", *arguments], capture_output=True, env=environment, timeout=60, check=False
        )

    return run


@pytest.fixture
def directory(tmp_path: Path, live_engine: Engine) -> Path:
    """A context."""
    prepare(caller(live_engine.socket))
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(DOCKERFILE)
    (context / "file").write_text(f"{tmp_path}\n")  # no test's build is another's
    return context


def images(sampan: Client, *arguments: str) -> set[str]:
    """The IDs of those that are listed."""
    return set(sampan("images", "-q", "--no-trunc", *arguments).stdout.decode().split())


def test_a_directory(sampan: Client, directory: Path, tmp_path: Path) -> None:
    before = images(sampan)
    out = tmp_path / "deep" / "out"
    done = sampan("build", "-o", str(out), "-t", "not:wanted", str(directory))
    assert done.returncode == 0, done.stderr
    assert b"Successfully built" in done.stdout
    assert b"tagged" not in done.stdout
    assert sorted(os.listdir(out)) == ["d", "fifo", "hard", "soft"]
    assert (out / "d" / "gone").read_text() == f"{tmp_path}\n"
    info = (out / "d" / "file").stat()
    assert (info.st_mode & 0o7777, info.st_mtime, info.st_uid, info.st_gid) == (0o711, 981173106, os.geteuid(), os.getegid())
    assert info.st_ino == (out / "hard").stat().st_ino
    assert os.readlink(out / "soft") == "d/file"
    assert (out / "d").stat().st_mode & 0o777 == 0o750
    assert out.stat().st_mode & 0o777 == 0o700
    # nothing is left but the cache, which the next build uses, and which is the cache's to prune
    assert images(sampan) == before
    assert sampan("image", "prune", "-f").returncode == 0
    (directory / "other").touch()
    (out / "mine").touch()
    again = sampan("build", "-o", f"type=local,dest={out}", str(directory))
    assert again.stdout.count(b"Using cache") == 3
    assert sorted(os.listdir(out)) == ["d", "fifo", "hard", "mine", "soft"]
    # an image that somebody wants is one, and so is a stage's, as docker has it
    iid = tmp_path / "iid"
    assert sampan("build", "--iidfile", str(iid), str(directory)).returncode == 0
    shown = images(sampan)
    assert iid.read_text() in shown
    assert len(shown - before) == 2
    assert sampan("build", "-o", str(out), str(directory)).returncode == 0
    assert images(sampan) == shown


def test_an_archive(sampan: Client, directory: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.tar"
    out.write_text("before")
    done = sampan("build", "-o", f"type=tar,dest={out}", "-o", "-", "-q", str(directory))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == out.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        found = {member.name: member for member in archive}
    assert sorted(found) == ["d", "d/e", "d/file", "d/gone", "fifo", "hard", "soft"]
    assert (found["d/file"].uid, found["d/file"].gid, found["d/file"].mode) == (55, 66, 0o4711)
    assert found["hard"].linkname == "d/file"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["context", "out.tar"]
    piped = sampan("build", "-o", "-", str(directory))
    assert piped.stdout == done.stdout
    assert b"Step 1/6 : FROM buildbase AS build\n" in piped.stderr


def test_an_image_besides(sampan: Client, directory: Path, tmp_path: Path) -> None:
    done = sampan("build", "-o", "type=image", "-o", str(tmp_path / "out"), "-t", "output:both", str(directory))
    assert done.returncode == 0, done.stderr
    assert b"Successfully tagged output:both\n" in done.stdout
    assert (tmp_path / "out" / "hard").read_text() == "hello\n"


def test_of_nothing_comes_nothing(sampan: Client, directory: Path, tmp_path: Path) -> None:
    (directory / "Dockerfile").write_text(f"FROM scratch\nLABEL {tmp_path.name}=b\n")
    before = images(sampan, "-a")
    assert sampan("build", "-o", str(tmp_path / "out"), str(directory)).returncode == 0
    assert os.listdir(tmp_path / "out") == []
    (built,) = images(sampan, "-a") - before
    assert sampan("builder", "prune", "-af").returncode == 0
    assert built not in images(sampan, "-a")


def test_nothing_is_written_where_links_lead(sampan: Client, directory: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "d").symlink_to("../elsewhere")
    done = sampan("build", "-o", str(tmp_path / "out"), str(directory))
    assert done.returncode == 1
    assert done.stderr.startswith(f"failed to write to {tmp_path}/out: ".encode())
    assert os.listdir(tmp_path / "elsewhere") == []


def test_a_build_that_fails_writes_nothing(sampan: Client, directory: Path, tmp_path: Path) -> None:
    (directory / "Dockerfile").write_text("FROM buildbase\nRUN exit 3\n")
    done = sampan("build", "-o", f"type=tar,dest={tmp_path}/out.tar", str(directory))
    assert done.returncode == 3
    assert [path.name for path in tmp_path.iterdir()] == ["context"]
