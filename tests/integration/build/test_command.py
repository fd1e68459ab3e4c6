"""`sampan build` with a builder behind it, beside `docker build`."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.golden.build.record import caller, prepare
from tests.support.engine import Engine

pytestmark = pytest.mark.root

Client = Callable[..., "subprocess.CompletedProcess[str]"]
DOCKERFILE = """\
ARG BASE=buildbase
FROM $BASE AS first
ARG WHO=world
ENV GREETING="hello $WHO"
RUN <<EOT
echo "$GREETING"
echo wrong >&2
EOT
FROM buildbase AS unused
RUN exit 9
FROM first
COPY --from=first /etc/passwd /p
COPY file /d/
COPY <<inline.txt /d/
inline $GREETING
inline.txt
RUN cat /d/file /d/inline.txt
LABEL a=b
"""


@pytest.fixture
def sampan(engine: Engine) -> Client:
    """The command line against the engine."""

    def run(*arguments: str, stdin: bytes | None = None) -> subprocess.CompletedProcess[str]:
        return engine.run_client([sys.executable, "-m", "sampan.cli"], *arguments, stdin=stdin, timeout=60)

    return run


@pytest.fixture
def directory(tmp_path: Path, live_engine: Engine) -> Path:
    """A context."""
    prepare(caller(live_engine.socket))
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "file").write_text("file\n")
    return tmp_path


def plain(text: str) -> str:
    """Without IDs."""
    return re.sub(r"\b[0-9a-f]{12}\b", "<ID>", text)


def test_both_clients_print_and_make_the_same(sampan: Client, docker: Client, directory: Path) -> None:
    options = ("build", "--build-arg", "WHO=you", "--build-arg", "UNUSED=1", "--no-cache", "--iidfile", str(directory.parent / "iid"))
    ours = sampan(*options, "-t", "by:sampan", str(directory))
    assert ours.returncode == 0, ours.stderr
    assert "hello you\n" in ours.stdout
    assert "file\ninline hello you\n" in ours.stdout
    assert "[Warning] One or more build-args [UNUSED] were not consumed\n" in ours.stdout
    theirs = docker(*options, "-t", "by:sampan", str(directory))
    assert plain(ours.stdout) == plain(theirs.stdout)
    cached = sampan("build", "--build-arg", "WHO=you", "-q", str(directory))
    assert cached.stdout.strip() == (directory.parent / "iid").read_text()


def test_the_code_of_a_run_is_the_commands(sampan: Client, directory: Path) -> None:
    (directory / "Dockerfile").write_text("FROM buildbase\nRUN echo before; exit 42\n")
    done = sampan("build", "--no-cache", str(directory))
    assert (done.returncode, done.stderr) == (42, "The command '/bin/sh -c echo before; exit 42' returned a non-zero code: 42\n")
    quiet = sampan("build", "-q", "--no-cache", str(directory))
    assert (quiet.returncode, quiet.stdout) == (42, "")
    assert "before\n" in quiet.stderr


def test_mistakes_are_shown_where_they_are(sampan: Client, directory: Path) -> None:
    (directory / "Dockerfile").write_text("FROM buildbase\nRUN true\nCOPPY a b\n")
    done = sampan("build", str(directory))
    assert done.returncode == 1
    first, place, *drawn = done.stderr.splitlines()
    assert first == "Error response from daemon: dockerfile parse error on line 3: unknown instruction: COPPY (did you mean COPY?)"
    assert place.endswith("Dockerfile:3")
    assert drawn[2:4] == [" 3 | COPPY a b", "   | ^^^^^"]


def test_so_is_what_docker_tells_no_line_of(sampan: Client, docker: Client, directory: Path) -> None:
    (directory / "Dockerfile").write_text("FROM buildbase\nLABEL a=b \\\n  c\n")
    told = 'failed to parse Dockerfile: Syntax error - can\'t find = in "c". Must be of the form: name=value'
    done = sampan("build", str(directory))
    first, place, *drawn = done.stderr.splitlines()
    assert (done.returncode, first) == (1, f"Error response from daemon: {told}")
    assert place.endswith("Dockerfile:2")
    assert " 2 | LABEL a=b \\" in drawn
    assert docker("build", str(directory)).stderr.endswith(f"Error response from daemon: {told}\n")


def test_a_dockerfile_on_stdin_needs_no_context(sampan: Client, directory: Path) -> None:
    done = sampan("build", "--no-cache", "-", stdin=b"FROM buildbase\nRUN echo alone\n")
    assert done.returncode == 0
    assert "alone\n" in done.stdout


def test_the_cache_is_pruned(sampan: Client, directory: Path) -> None:
    assert sampan("build", str(directory)).returncode == 0
    pruned = sampan("builder", "prune", "-af")
    assert pruned.returncode == 0
    assert "Total reclaimed space: " in pruned.stdout


@pytest.mark.slow
def test_metadata_does_not_grow_for_ever(sampan: Client, directory: Path) -> None:
    lines = [f"LABEL l{number}=$a$a$a$a$a$a$a$a$a$a" for number in range(60)]
    (directory / "Dockerfile").write_text("\n".join(["FROM buildbase", f"ARG a={'x' * 10_000}", *lines]))
    done = sampan("build", "-q", str(directory))
    assert done.returncode == 1
    assert "of a stage come to more than 4194304 characters of metadata" in done.stderr
