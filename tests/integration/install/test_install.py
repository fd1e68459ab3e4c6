"""`pip install .` into a clean environment gives working entry points, with all the data files."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from sampan.version import VERSION

REPO = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with Sampan in it, installed from a copy of the tree; its dependencies are this one's."""
    place = tmp_path_factory.mktemp("install")
    shutil.copytree(REPO / "src", place / "copy/src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPO / name, place / "copy")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place / "venv")], check=True)
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "--python", str(place / "venv/bin/python")]
    options = ["--no-deps", "--no-build-isolation", "--ignore-installed"]
    subprocess.run([*pip, "install", *options, str(place / "copy")], check=True, timeout=110, env=environment())
    return place / "venv"


def environment() -> dict[str, str]:
    """Third-party packages are those of the environment the tests run in."""
    return {**os.environ, "PYTHONPATH": sysconfig.get_path("purelib")}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=30, check=False, cwd="/")


def test_the_entry_points_start(installed: Path) -> None:
    for program in ("sampan", "sampand"):
        done = run(str(installed / "bin" / program), "--version")
        assert (done.returncode, done.stderr) == (0, "")
        assert VERSION in done.stdout


def test_every_data_file_is_installed(installed: Path) -> None:
    source = REPO / "src/sampan"
    target = next(installed.glob("lib/python*/site-packages/sampan"))
    wanted = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert wanted == {path.relative_to(target) for path in target.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_the_launchers_start_without_site(installed: Path, tmp_path: Path) -> None:
    launch = tmp_path / "launch"
    packages = next(installed.glob("lib/python*/site-packages"))
    subprocess.run([str(REPO / "packaging/launchers"), str(launch), str(installed / "bin/python"), str(packages)], check=True)
    assert VERSION in run(str(launch / "sampan"), "--version").stdout
