"""Shell completion: candidates from the option tables, the scripts, and what `ps` loads."""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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


@pytest.fixture
def installed(tmp_path: Path) -> Callable[[str], Path]:
    """A function that writes a shell's script beside a program `sampan`, which has two contexts, and returns the script's path."""
    program = tmp_path / "sampan"
    program.write_text(f'#!/bin/sh\nDOCKER_CONFIG={tmp_path} PYTHONPATH={SOURCE} exec {sys.executable} -m sampan.cli "$@"\n')
    program.chmod(0o755)
    subprocess.run([program, "context", "create", "elsewhere", "--docker", "host=unix:///nonexistent"], check=True, timeout=20)

    def install(shell: str) -> Path:
        script = tmp_path / "script"
        script.write_bytes(subprocess.run([program, "completion", shell], stdout=subprocess.PIPE, check=True, timeout=20).stdout)
        return script

    return install


CASES = [("sampan ps --no-t", "--no-trunc"), ("sampan conte", "context"), ("sampan context use e", "elsewhere")]


def test_bash_completes(installed: Callable[[str], Path]) -> None:
    script = installed("bash")
    code = f"PATH={script.parent}:$PATH; source {script}\n"
    for line, _ in CASES:
        code += f"COMP_LINE='{line}' COMP_POINT=9999; COMP_WORDS=({line}); COMP_CWORD=$((${{#COMP_WORDS[@]}}-1)); "
        code += '_sampan 2>/dev/null; echo "${COMPREPLY[@]}"\n'
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, timeout=20)
    assert done.stdout.split() == [whole for _, whole in CASES]


def test_fish_completes(installed: Callable[[str], Path]) -> None:
    fish = shutil.which("fish")
    if fish is None:
        pytest.skip("fish is not installed")
    script = installed("fish")
    asked = "; ".join(f"complete -C '{line}'" for line, _ in CASES)
    environment = {**os.environ, "HOME": str(script.parent), "PATH": f"{script.parent}:{os.environ['PATH']}"}
    code = f"source {script}; {asked}"
    done = subprocess.run([fish, "--no-config", "-c", code], capture_output=True, text=True, check=True, timeout=30, env=environment)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == [whole for _, whole in CASES]


def test_zsh_completes(installed: Callable[[str], Path]) -> None:
    """Only on a terminal has zsh completions."""
    zsh = shutil.which("zsh")
    if zsh is None:
        pytest.skip("zsh is not installed")
    script = installed("zsh")
    (script.parent / ".zshrc").write_text(f"autoload -U compinit; compinit -u -D; source {script}; PS1='ready> '\n")
    pid, terminal = pty.fork()
    if pid == 0:
        environment = {"HOME": str(script.parent), "PATH": f"{script.parent}:{os.environ['PATH']}", "TERM": "dumb"}
        os.execve(zsh, [zsh, "-d", "-i"], environment)
    try:
        wait_for(terminal, "ready> ")
        for line, whole in CASES:
            os.write(terminal, f"{line}\t".encode())
            wait_for(terminal, line[: line.rindex(" ") + 1] + whole)
            os.write(terminal, b"\x15")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def wait_for(terminal: int, text: str) -> None:
    """Read until a terminal has shown a text."""
    shown, no_later = b"", time.monotonic() + 20
    while text not in shown.decode(errors="replace"):
        assert select.select([terminal], [], [], max(0.0, no_later - time.monotonic()))[0], shown
        shown += os.read(terminal, 4096)


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
