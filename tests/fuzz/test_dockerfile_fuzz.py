"""Bounded fuzzing of the front end of builds (atheris): never a traceback, never for long."""

import json
import sys
from pathlib import Path

import pytest

from tests.support.fuzzing import run_target

pytest.importorskip("atheris")

TARGET = Path(__file__).with_name("dockerfile_target.py")
GOLDEN = Path(__file__).parents[1] / "golden/dockerfile"
DICTIONARY = (
    "FROM ", "scratch", " AS ", "RUN ", "COPY ", "ADD ", "ENV ", "ARG ", "LABEL ", "ONBUILD ", "HEALTHCHECK ", "CMD ", "SHELL ", "EXPOSE ",
    "VOLUME ", "USER ", "WORKDIR ", "STOPSIGNAL ", "--mount=type=cache,target=", "--from=", "--chown=", "--network=", "<<EOT", "\nEOT\n",
    "<<-'E'", "# escape=`\n", "${a:-", "${a##*", "${a//", "${a:?", "\\\n", '["a"]', "**/", "!", "[^a-z]",
)  # fmt: skip


def fuzz(tmp_path: Path, seconds: int) -> None:
    """Run the target on the golden Dockerfiles and what comes of them."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, path in enumerate(sorted(GOLDEN.glob("*/Dockerfile"))):
        (corpus / f"file{number}").write_bytes(path.read_bytes())
    for number, line in enumerate((GOLDEN / "docker28.jsonl").read_text().splitlines()):
        (corpus / f"case{number}").write_bytes(json.loads(line)["dockerfile"].encode("utf-8", "surrogateescape"))
    for number, line in enumerate((GOLDEN / "expansions28.jsonl").read_text().splitlines()):
        (corpus / f"word{number}").write_bytes(b"FROM scratch\nENV a=b\nENV r=" + json.loads(line)["word"].encode())
    dictionary = tmp_path / "dictionary"
    dictionary.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word.encode()) + '"\n' for word in DICTIONARY))
    options = [f"-max_total_time={seconds}", "-max_len=4096", "-timeout=10", "-rss_limit_mb=1024"]
    command = [sys.executable, str(TARGET), *options, f"-artifact_prefix={tmp_path}/", f"-dict={dictionary}", str(corpus)]
    done = run_target(command, seconds)
    crashes = [path.read_bytes() for path in (*tmp_path.glob("crash-*"), *tmp_path.glob("timeout-*"))]
    assert done.returncode == 0, f"{done.stderr[-3000:]}\ninput: {crashes}"
    assert "Done " in done.stderr


def test_the_golden_files_and_a_few_seconds_more(tmp_path: Path) -> None:
    fuzz(tmp_path, 3)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_two_minutes(tmp_path: Path) -> None:
    fuzz(tmp_path, 120)
