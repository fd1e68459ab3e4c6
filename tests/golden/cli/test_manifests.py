"""Manifest commands against what the docker 28.2 client prints and pushes for the same registry (recorded by record_manifests.py)."""

import contextlib
import io
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.cli import connect
from sampan.cli import main as program
from tests.golden.cli.manifest_scene import fill, steps
from tests.support.registryprogram import RegistryProgram

RECORDED = json.loads(Path(__file__).with_name("manifests.json").read_text())


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryProgram]:
    """A registry with the scene's images."""
    served = RegistryProgram(tmp_path / "registry")
    try:
        fill(served.host)
        yield served
    finally:
        served.close()


def run(config: Path, words: list[str]) -> tuple[int, str, str]:
    """A command line in this process, by docker's name."""
    connect._loaded.clear()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = program.main(["--config", str(config), *words])
    return code, out.getvalue(), err.getvalue().replace("sampan", "docker")


def test_the_same_as_docker(registry: RegistryProgram, tmp_path: Path, docker_path: str) -> None:
    """Every step's exit code and outputs are docker's; a list that sampan has begun docker reads."""
    config = tmp_path / "config"
    annotated = False
    for words, expected in zip(steps(registry.host), RECORDED, strict=True):
        code, *shown = run(config, words)
        assert [code, *(text.replace(registry.host, "REGISTRY") for text in shown)] == expected, words
        if words[1] == "annotate" and not annotated:
            annotated = True
            inspect = ["manifest", "inspect", "-v", f"{registry.host}/p/new:1"]
            environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "DOCKER_CONFIG": str(config)}
            theirs = subprocess.run([docker_path, *inspect], env=environment, capture_output=True, text=True, check=True, timeout=30)
            assert run(config, inspect) == (0, theirs.stdout, "")
    assert annotated
