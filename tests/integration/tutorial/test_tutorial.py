"""Every command of the tutorials against a live engine; its output compared with what the text shows.

    ```console    lines after "$ " are run by sh, one after another; what follows each is its output (stdout and stderr)
    ```terminal   the first command is run on a pty; the lines after "/ # " are typed once that prompt is there

In the expected text `<NAME>` matches what its kind allows, and a line `...` any number of lines. Runs of blanks count as one: the
columns of a table are as wide as their contents.
"""

import os
import pty
import re
import select
import shlex
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import CLI, Engine

DOCS = Path(__file__).resolve().parents[3] / "docs"
BLOCK = re.compile(r"^```(console|terminal)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS = {
    "ID": r"[0-9a-f]{12}",
    "LONGID": r"[0-9a-f]{64}",
    "PID": r" *\d+",
    "N": r"\d+",
    "SIZE": r"[0-9.]+[kMG]?B",
    "AGO": r"(?:Less than a second|About an? (?:minute|hour)|\d+ (?:second|minute|hour|day|week|month|year)s?) ago",
    "TIME": r"(?:Less than a second|About a minute|\d+ (?:second|minute)s?)",
    "WHY": r".*",
    "REST": r".*",
}
PROMPT = b"/ # "

pytestmark = [pytest.mark.root]


def blocks(text: str) -> list[tuple[str, str]]:
    """(kind, contents) of the fenced blocks that are to be run."""
    return [(match[1], match[2]) for match in BLOCK.finditer(text)]


def steps(block: str) -> list[tuple[str, str]]:
    """(command, expected output) of a console block."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
    return [(part.split("\n", 1)[0], part.split("\n", 1)[1]) for part in parts]


def pattern(expected: str) -> re.Pattern[str]:
    """The regular expression for an expected output with placeholders."""
    lines = []
    for line in expected.splitlines():
        if line == "...":
            lines.append(r"(?:.*\n)*?")
            continue
        words = re.split(r"<([A-Z]+)>", re.sub(r"\s+", " ", line.strip()))
        lines.append("".join(KINDS[word] if n % 2 else re.escape(word) for n, word in enumerate(words)) + r"\n")
    return re.compile("".join(lines))


def squeezed(text: str) -> str:
    """A text with runs of blanks as one and none at the ends of lines."""
    return "".join(re.sub(r"\s+", " ", line.strip()) + "\n" for line in text.splitlines())


def expect(output: str, expected: str, what: str) -> None:
    """Fail with both texts where they do not agree."""
    assert pattern(expected).fullmatch(squeezed(output)), f"{what}\nexpected:\n{expected}\ngot:\n{output}"


@pytest.fixture(scope="module")
def new_engine(make_engine: Callable[..., Engine]) -> Engine:
    """One without images, as it is after quickstart."""
    engine = make_engine()
    engine.start()
    return engine


@pytest.fixture
def environment(new_engine: Engine, tmp_path: Path) -> dict[str, str]:
    """The environment of a user's shell: `sampan` on PATH, talking to the test's engine."""
    program = tmp_path / "sampan"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(CLI)} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return {**new_engine.environment(), "PATH": f"{tmp_path}:{os.environ['PATH']}", "TERM": "xterm", "LC_ALL": "C.UTF-8", "no_proxy": "*"}


def run_console(block: str, environment: dict[str, str]) -> None:
    for command, expected in steps(block):
        done = subprocess.run(
            ["sh", "-c", command],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, timeout=90, check=False,
        )  # fmt: skip
        expect(done.stdout.decode(), expected, f"$ {command}")


def run_terminal(block: str, environment: dict[str, str]) -> None:
    """One program on a pty, typed to when it shows its prompt; the echo of what is typed belongs to the expected text."""
    (command, dialogue), *_ = steps(block)
    typed = [line.removeprefix("/ # ") for line in dialogue.splitlines() if line.startswith("/ # ")]
    pid, master = pty.fork()
    if pid == 0:
        os.execvpe("sh", ["sh", "-c", command], environment)
    seen, deadline = b"", time.monotonic() + 60
    try:
        while True:
            if typed and seen.count(PROMPT) > len([line for line in dialogue.splitlines() if line.startswith("/ # ")]) - len(typed):
                os.write(master, typed.pop(0).encode() + b"\n")
            ready, _, _ = select.select([master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no more output of {command}: {seen!r}"
            try:
                more = os.read(master, 4096)
            except OSError:  # EIO: the other end is closed
                break
            if not more:
                break
            seen += re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", more)
    finally:
        os.close(master)
        os.waitpid(pid, 0)
    expect(seen.decode(), dialogue, f"$ {command}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["tutorial.md", "tutorial.zh.md"])
def test_every_command_prints_what_the_tutorial_shows(name: str, environment: dict[str, str]) -> None:
    for kind, block in blocks((DOCS / name).read_text()):
        (run_terminal if kind == "terminal" else run_console)(block, environment)


def outline(name: str) -> list[tuple[str, ...]]:
    """Program and verb of each command of a tutorial: what translating leaves alone."""
    return [tuple(command.replace("-zh", "").split()[:2]) for _, block in blocks((DOCS / name).read_text()) for command, _ in steps(block)]


def test_both_languages_show_the_same_commands() -> None:
    assert outline("tutorial.md") == outline("tutorial.zh.md")


def test_the_comparison_notices_a_difference() -> None:
    with pytest.raises(AssertionError):
        expect("hello\nmore\n", "hello\n", "")
    with pytest.raises(AssertionError):
        expect("busybox latest xyz\n", "busybox latest <ID>\n", "")
    expect("a\nb\nc\n", "a\n...\nc\n", "")
