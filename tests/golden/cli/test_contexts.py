"""Context commands against what the docker 28.2 client prints and stores for the same (recorded by record_contexts.py)."""

import contextlib
import io
import json
import os
from pathlib import Path

import pytest

from sampan.cli import connect
from sampan.cli import main as program
from tests.golden.cli.record_contexts import prepare, steps, tree

RECORDED = json.loads(Path(__file__).with_name("contexts.json").read_text())


def run(words: list[str]) -> tuple[int, str, str]:
    """A command line in this process: exit code and both outputs, by docker's name and default socket."""
    connect._loaded.clear()
    out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = program.main(words)
    out.seek(0)
    shown = [text.replace("unix:///run/sampan/sampan.sock", "unix:///var/run/docker.sock") for text in (out.read(), err.getvalue())]
    return code, shown[0].replace("sampan", "docker"), shown[1].replace("sampan", "docker")


def test_the_same_as_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step's exit code and outputs are docker's, and at the end the files are, byte for byte."""
    prepare(tmp_path, RECORDED["certificate"].encode(), RECORDED["key"].encode())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(connect, "DEFAULT_HOST", "unix:///var/run/docker.sock")
    monkeypatch.setattr("sampan.cli.contextstore.DEFAULT_HOST", "unix:///var/run/docker.sock")
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT"):
        monkeypatch.delenv(name, raising=False)
    former = os.umask(0o022)
    try:
        for (variables, words), expected in zip(steps(), RECORDED["results"], strict=True):
            with monkeypatch.context() as patch:
                for name, value in variables.items():
                    patch.setenv(name, value)
                code, out, err = run(["--config", str(tmp_path / "config"), *words])
            assert [code, out.replace(str(tmp_path), "FOLDER"), err.replace(str(tmp_path), "FOLDER")] == expected, words
    finally:
        os.umask(former)
    assert tree(tmp_path) == RECORDED["stored"]
