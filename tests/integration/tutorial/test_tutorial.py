"""Every command of the tutorials against a live engine; its output compared with what the text shows.

    ```console       lines after "$ " are run by sh, one after another, in the directory that the last `cd` went to; lines after "> "
                     go on with a command; what follows each is its output (stdout and stderr)
    ```terminal      the first command is run on a pty; the lines after "/ # " are typed once that prompt is there
    ```console slow  as console, but run by a test of its own that takes minutes

In the expected text `<NAME>` matches what its kind allows, and a line `...` any number of lines. Runs of blanks count as one: the
columns of a table are as wide as their contents.
"""

import contextlib
import itertools
import json
import os
import pty
import re
import select
import shlex
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.engine import CLI, Engine

DOCS = Path(__file__).resolve().parents[3] / "docs"
BLOCK = re.compile(r"^```(console|terminal|console slow)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
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
FOREIGN = r"[^\x00-\x7f]+"

pytestmark = [pytest.mark.root]


def blocks(text: str) -> list[tuple[str, str]]:
    """(kind, contents) of the fenced blocks that are to be run."""
    return [(match[1], match[2]) for match in BLOCK.finditer(text)]


def steps(block: str) -> list[tuple[str, str]]:
    """(command, expected output) of a console block."""
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        first, *rest = part.splitlines(keepends=True)
        more = list(itertools.takewhile(lambda line: re.match(r">( |$)", line), rest))
        command = first + "".join(line[1:].removeprefix(" ") for line in more)
        found.append((command.rstrip("\n"), "".join(rest[len(more) :])))
    return found


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
    """A text with runs of blanks as one and none at the ends of lines; a line that is written over itself ends once."""
    return "".join(re.sub(r"\s+", " ", line.strip()) + "\n" for line in re.sub(r"\r+\n", "\n", text).splitlines())


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
def environment(new_engine: Engine, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a user's shell: `sampan` on PATH, talking to the test's engine."""
    program = tmp_path / "sampan"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(CLI)} "$@"\n')
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    search = f"{tmp_path}:{os.environ['PATH']}"
    yield {**new_engine.environment(), "PATH": search, "PWD": str(tmp_path), "TERM": "xterm", "LC_ALL": "C.UTF-8", "no_proxy": "*"}
    for left in Path("/tmp").glob("sampan-registry*.pid"):  # of a tutorial that was not what it says
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(left.read_text()), signal.SIGTERM)
        left.unlink()


def run_console(block: str, environment: dict[str, str], timeout: float = 90) -> None:
    """Commands, each by a shell of its own; what the next one of them inherits is the directory."""
    for command, expected in steps(block):
        if command.startswith("cd "):
            environment["PWD"] = os.path.normpath(os.path.join(environment["PWD"], command.removeprefix("cd ")))
            continue
        done = subprocess.run(
            ["sh", "-c", command], cwd=environment["PWD"], env=environment, timeout=timeout, check=False,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
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
@pytest.mark.parametrize("name", ["tutorial.md", pytest.param("tutorial.zh.md", marks=pytest.mark.slow)])
def test_every_command_prints_what_the_tutorial_shows(name: str, environment: dict[str, str]) -> None:
    run = {"console": run_console, "terminal": run_terminal}
    for kind, block in blocks((DOCS / name).read_text()):
        if kind in run:
            run[kind](block, environment)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_so_do_those_that_take_long(environment: dict[str, str], new_engine: Engine) -> None:
    """With the proxies that this machine has in the client's configuration, where a user behind one has them."""
    new_engine.bootstrap()
    proxies = {f"{kind}Proxy": os.environ[f"{kind}_proxy"] for kind in ("http", "https") if f"{kind}_proxy" in os.environ}
    config = Path(environment["DOCKER_CONFIG"]) / "config.json"
    config.parent.mkdir(exist_ok=True)
    config.write_text(json.dumps({"proxies": {"default": {**proxies, "noProxy": "download.redis.io"}}}))
    for block in slow("tutorial.md"):
        run_console(block, environment, timeout=600)


def slow(name: str) -> list[str]:
    """The blocks that take long."""
    return [block for kind, block in blocks((DOCS / name).read_text()) if kind == "console slow"]


OWN = {"-zh": "", ":18081": ":18080", " 18081": " 18080", ":18083": ":18082", " 18083": " 18082"}
"""Directories and ports that the Chinese tutorial has of its own, and what the other one has for them."""


def translations(chinese: str, english: str) -> dict[str, str]:
    """What the Chinese words of a block are in the other language. Fails where more than those is not the same, output included."""
    for own, other in OWN.items():
        chinese = chinese.replace(own, other)
    found: dict[str, str] = {}
    for ours, theirs in zip(chinese.splitlines(), english.splitlines(), strict=True):
        words = re.findall(FOREIGN, ours)
        match = re.fullmatch("(.+?)".join(re.escape(part) for part in re.split(FOREIGN, ours)), theirs)
        assert match, f"{ours}\nis not\n{theirs}"
        for word, meaning in zip(words, match.groups(), strict=True):
            assert found.setdefault(word, meaning) == meaning, f"{word} is {found[word]}, and {meaning}"
    return found


def test_both_languages_show_the_same() -> None:
    """So the commands of one need not be run but for the slow tests."""
    english, chinese = (blocks((DOCS / name).read_text()) for name in ("tutorial.md", "tutorial.zh.md"))
    assert [kind for kind, _ in english] == [kind for kind, _ in chinese]
    for (kind, ours), (_, theirs) in zip(chinese, english, strict=True):
        assert kind != "console slow" or ours == theirs  # run once for both
        translations(ours, theirs)


def test_the_comparison_of_languages_notices_a_difference() -> None:
    assert translations("$ echo 你好\n你好\n", "$ echo hello\nhello\n") == {"你好": "hello"}
    for other in ("$ echo hello\nworld\n", "$ printf hello\nhello\n", "$ echo hello\n"):
        with pytest.raises((AssertionError, ValueError)):
            translations("$ echo 你好\n你好\n", other)


def test_the_comparison_notices_a_difference() -> None:
    with pytest.raises(AssertionError):
        expect("hello\nmore\n", "hello\n", "")
    with pytest.raises(AssertionError):
        expect("busybox latest xyz\n", "busybox latest <ID>\n", "")
    expect("a\nb\nc\n", "a\n...\nc\n", "")
    expect("some of it\r\r\ndone\n", "some of it\ndone\n", "")


def test_a_command_of_several_lines() -> None:
    assert steps("$ cat <<END\n> a\n>\n>  b\n> END\na\n$ true\n") == [("cat <<END\na\n\n b\nEND", "a\n"), ("true", "")]
