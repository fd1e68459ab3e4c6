"""Shell completion: candidates from the option tables, the scripts, and what `ps` loads."""

import subprocess
import sys
from pathlib import Path

import pytest

from sampan.cli import main as program

SOURCE = str(Path(__file__).parents[3] / "src")


def complete(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[list[str], str]:
    """Candidates without descriptions, and the directive."""
    assert program.main(["__complete", *words]) == 0
    *found, directive = capsys.readouterr().out.splitlines()
    return [line.split("\t")[0] for line in found], directive


@pytest.mark.parametrize(
    ("words", "found", "directive"),
    [
        (["vers"], ["version"], ":4"),
        (["container", "pr"], ["prune"], ":4"),
        (["ps", "--no"], ["--no-trunc"], ":4"),
        (["inspect", "--type", "vol"], ["volume"], ":4"),
        (["inspect", "--type=vol"], ["--type=volume"], ":4"),
        (["image", "bootstrap", ""], ["busybox", "debian:bookworm", "debian:bookworm-slim"], ":4"),
        (["image", "bootstrap", "busybox", ""], [], ":4"),
        (["completion", "z"], ["zsh"], ":4"),
        (["import", "x"], [], ":0"),
        (["build", "--progress", "r"], ["rawjson"], ":4"),
        (["build", "-o", ""], [], ":0"),
        (["nosuch", "x"], [], ":4"),
        (["run", "busybox", "l"], [], ":0"),
        (["-H", "unix:///nonexistent", "rm", "x"], [], ":4"),
    ],
)
def test_candidates(capsys: pytest.CaptureFixture[str], words: list[str], found: list[str], directive: str) -> None:
    assert complete(capsys, *words) == (found, directive)


def test_every_command_can_be_loaded() -> None:
    for path in program.COMMANDS:
        spec, run = program.load(path)
        assert spec.short
        assert callable(run)


def test_bash_completes(tmp_path: Path) -> None:
    script = tmp_path / "completion.bash"
    with script.open("w") as file:
        subprocess.run(
            [sys.executable, "-m", "sampan.cli", "completion", "bash"],
            stdout=file,
            check=True,
            timeout=20,
            env={"PYTHONPATH": SOURCE, "HOME": str(tmp_path)},
        )
    wrapper = tmp_path / "sampan"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH={SOURCE} exec {sys.executable} -m sampan.cli "$@"\n')
    wrapper.chmod(0o755)
    code = (
        f"source {script}; COMP_LINE='{wrapper} ps --no-t' COMP_POINT=9999; COMP_WORDS=({wrapper} ps --no-t); COMP_CWORD=2; "
        '_sampan 2>/dev/null; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.strip() == "--no-trunc"


def test_the_default_ps_loads_no_template_engine() -> None:
    code = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); from sampan.cli.format.formatter import render; "
        "from sampan.cli.format.containers import HEADER, Container, layout; import sampan.cli.commands.ps; "
        "one = Container({'Id': 'a' * 64, 'Names': ['/x'], 'Image': 'busybox'}, trunc=True); "
        "render(layout('', quiet=False, size=True), [one], Container, HEADER); "
        "print(' '.join(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True, timeout=20)
    loaded = set(done.stdout.split())
    assert (
        loaded
        & {
            "re",
            "json",
            "typing",
            "enum",
            "unicodedata",
            "datetime",
            "sampan.reference",
            "sampan.cli.format.execute",
            "sampan.cli.format.lex",
        }
        == set()
    )
