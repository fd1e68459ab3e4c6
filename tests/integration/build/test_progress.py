"""`sampan build --progress` on a real terminal, with a builder behind it."""

import codecs
import fcntl
import json
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.golden.build.record import caller, prepare
from tests.support.engine import CLI, Engine
from tests.support.screen import Display

pytestmark = pytest.mark.root

COLUMNS = 100
DOCKERFILE = """\
ARG FROM=buildbase
FROM $FROM AS first
RUN {first}
FROM buildbase AS second
RUN {second}
FROM buildbase
COPY --from=first /etc/passwd /first
COPY --from=second /etc/passwd /second
"""


class Terminal:
    """A command on a terminal of its own, 24 lines high."""

    def __init__(self, engine: Engine, *arguments: str, columns: int = COLUMNS, environment: Mapping[str, str] | None = None) -> None:
        self._master, slave = pty.openpty()
        self._display = Display(columns, 24)
        self._pending = ""
        self._decode = codecs.getincrementaldecoder("utf-8")().decode
        self.resize(columns, 24)
        self._before = termios.tcgetattr(slave)
        self._child = subprocess.Popen(
            [*CLI, "build", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**engine.environment(), "TERM": "xterm", "NO_COLOR": "1", **(environment or {})},
            preexec_fn=lambda: os.login_tty(0),  # keys are signals
        )
        self._slave = slave
        os.set_blocking(self._master, False)

    def resize(self, columns: int, rows: int) -> None:
        """The window has another size."""
        while self._taken():
            pass
        self._display.resize(columns, rows)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _taken(self) -> bool:
        """Take what it has written; False if there is nothing."""
        if not select.select([self._master], [], [], 0)[0]:
            return False
        text = self._pending + self._decode(os.read(self._master, 1 << 16))
        whole = re.sub(r"\x1b(\[[?0-9]*)?$", "", text)
        self._pending = text[len(whole) :]
        self._display.write(whole)
        return True

    @property
    def lines(self) -> list[str]:
        """What it shows now, and what it has scrolled by."""
        return self._display.lines

    def wait_for(self, *patterns: str) -> list[str]:
        """Until lines match them all at once."""
        self._wait(lambda: all(any(re.search(pattern, line) for line in self.lines) for pattern in patterns), patterns)
        return self.lines

    def _wait(self, what: Callable[[], bool], told: object) -> None:
        deadline = time.monotonic() + 60
        while not what():
            assert time.monotonic() < deadline, f"{told} not on the screen: {self.lines}"
            if not self._taken():
                time.sleep(0.02)

    def press(self, key: bytes) -> None:
        """Press a key."""
        os.write(self._master, key)

    def end(self) -> int:
        """Its exit code, once it has ended and left the terminal as it was."""
        self._wait(lambda: self._child.poll() is not None, "the end")
        while self._taken():
            pass
        assert termios.tcgetattr(self._slave) == self._before
        assert self._display.wraps
        return self._child.wait()

    def close(self) -> None:
        """End it."""
        self._child.kill()
        self._child.wait()
        os.close(self._slave)
        os.close(self._master)


class Gate:
    """RUNs that wait until it is opened."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine, self._directory = engine, directory
        self._mount = f"--mount=type=cache,target=/gate,id=gate{uuid.uuid4().hex}"

    def run(self, command: str) -> str:
        """A RUN's text: a command, then waiting."""
        return f"{self._mount} {command}; until [ -e /gate/open ]; do sleep 0.05; done"

    def open(self) -> None:
        """Let them go on."""
        (self._directory / "open").write_text(f"FROM buildbase\nRUN {self._mount} touch /gate/open\n")
        done = self._engine.cli("build", "--no-cache", "-f", str(self._directory / "open"), str(self._directory))
        assert done.returncode == 0, done.stderr


@contextmanager
def terminal(engine: Engine, *arguments: str, columns: int = COLUMNS, environment: Mapping[str, str] | None = None) -> Iterator[Terminal]:
    made = Terminal(engine, *arguments, columns=columns, environment=environment)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def directory(tmp_path: Path, live_engine: Engine) -> Path:
    """A context without a Dockerfile."""
    prepare(caller(live_engine.socket))
    return tmp_path


def write(directory: Path, first: str, second: str) -> None:
    (directory / "Dockerfile").write_text(DOCKERFILE.format(first=first, second=second))


@pytest.fixture
def gate(engine: Engine, directory: Path) -> Gate:
    """A gate that is shut."""
    return Gate(engine, directory)


def test_steps_that_run_side_by_side_are_drawn_so(engine: Engine, directory: Path, gate: Gate) -> None:
    write(directory, gate.run("echo one begins"), gate.run("echo two begins"))
    with terminal(engine, "--no-cache", str(directory)) as shown:
        drawn = shown.wait_for(r"^ => \[first 2/2\] RUN", r"^ => => # one begins", r"^ => \[second 2/2\] RUN", r"^ => => # two begins")
        assert any(re.fullmatch(r"\[\+\] Building \d+\.\ds \([23]/7\)", line) for line in drawn), drawn
        gate.open()
        assert shown.end() == 0
        lines = [re.sub(r"\d+\.\ds", "_s", line) for line in shown.lines]
    assert lines[0].startswith("Sending build context to Docker daemon ")
    assert lines[1] == "[+] Building _s (7/7) FINISHED"
    assert {line.split("  ")[0][:22] for line in lines[2:9]} == {
        " => [first 1/2] FROM $",
        " => [first 2/2] RUN --",
        " => [second 1/2] FROM ",
        " => [second 2/2] RUN -",
        " => [stage-2 1/3] FROM",
        " => [stage-2 2/3] COPY",
        " => [stage-2 3/3] COPY",
    }
    assert re.fullmatch("Successfully built [0-9a-f]{12}", lines[9])
    assert lines[10:] == [""]


def test_what_fails_is_told_below(engine: Engine, directory: Path) -> None:
    write(directory, "true", "echo the reason; exit 5")
    with terminal(engine, "--no-cache", str(directory)) as shown:
        assert shown.end() == 5
        lines = shown.lines
    assert sum("ERROR [second 2/2] RUN" in line for line in lines) == 1
    assert lines[lines.index("------") :] == [
        "------",
        " > [second 2/2] RUN echo the reason; exit 5:",
        "the reason",
        "------",
        "The command '/bin/sh -c echo the reason; exit 5' returned a non-zero code: 5",
        "",
    ]


def test_an_interrupt_leaves_the_screen_as_it_is(engine: Engine, directory: Path) -> None:
    write(directory, "true", "echo waiting; sleep 600")
    with terminal(engine, "--no-cache", str(directory)) as shown:
        shown.wait_for("^ => => # waiting")
        shown.press(b"\x03")
        assert shown.end() == 130
        assert any(line.startswith(" => CANCELED [second 2/2] RUN") for line in shown.lines)
        assert not any("waiting" in line for line in shown.lines if line.startswith(" => =>"))


def test_a_window_of_another_size(engine: Engine, directory: Path, gate: Gate) -> None:
    write(directory, gate.run("echo one"), gate.run("echo two"))
    fitted = True
    with terminal(engine, "--no-cache", str(directory)) as shown:
        shown.wait_for("^ => => # one", "^ => => # two")
        for columns, rows in ((60, 24), (33, 24), (120, 24), (50, 5), (90, 24)):
            shown.resize(columns, rows)
            lines = shown.wait_for(*(rf"^(?=.{{{columns - 1}}}$) => \[{stage} 2/2\] RUN.* \d+\.\ds$" for stage in ("first", "second")))
            assert lines[-1] == ""
            heads = [number for number, line in enumerate(lines) if line.startswith("[+] Building")]
            assert all(len(line) < columns for line in lines[heads[-1] :])
            fitted = fitted and rows == 24
            assert len(heads) == 1 or not fitted  # what has scrolled out of a low window stays
        gate.open()
        assert shown.end() == 0


@pytest.mark.parametrize("columns", [1, 18])
def test_a_narrow_terminal(engine: Engine, directory: Path, columns: int) -> None:
    write(directory, "true", "true")
    with terminal(engine, "-t", "narrow", "--progress=tty", str(directory), columns=columns) as shown:
        assert shown.end() == 0
        lines = shown.lines
    if columns > 1:
        (head,) = [number for number, line in enumerate(lines) if line.startswith("[+]")]
        assert [line.startswith(" => ") for line in lines[head + 1 : head + 9]] == [True] * 7 + [False]
    assert engine.cli("image", "rm", "narrow").returncode == 0


def test_many_stages_at_a_time(engine: Engine, directory: Path, gate: Gate) -> None:
    stages = [f"FROM buildbase AS s{number}\nRUN {gate.run(f'echo out {number}')}\n" for number in range(12)]
    copies = [f"COPY --from=s{number} /etc/passwd /{number}\n" for number in range(12)]
    (directory / "Dockerfile").write_text("".join([*stages, "FROM buildbase\n", *copies]))
    with terminal(engine, "--no-cache", str(directory)) as shown:
        some = [rf"^ => \[s{number} 2/2\] RUN" for number in range(8)]
        shown.wait_for(*some)
        gate.open()
        assert shown.end() == 0
        lines = shown.lines
    assert sum(bool(re.match(r" => \[s\d+ 2/2\] RUN", line)) for line in lines[-40:]) == 12
    assert re.fullmatch(r"\[\+\] Building \d+\.\ds \(37/37\) FINISHED", lines[-40]), lines


def test_output_of_any_bytes(engine: Engine, directory: Path, gate: Gate) -> None:
    said = r"printf '\377 caf\303\251 \033[2J\033]0;x\007\n'; head -c 200000 /dev/zero | tr '\0' x; echo ' end'; printf 'one\rtwo'"
    write(directory, "true", f"{gate.run(said)}; exit 3")
    with terminal(engine, "--no-cache", str(directory), environment={"LC_ALL": "C"}) as shown:
        shown.wait_for("^ => => # \ufffd café", r"^(?=.{99}$) => => # .?x+$", "^ => => # two")
        gate.open()
        assert shown.end() == 3
        lines = shown.lines
    told = lines[lines.index("\ufffd café") : lines.index("------", lines.index("------") + 1)]
    assert "".join(told[1:]) == "…" + "x" * ((1 << 16) - 5) + " endtwo"


def test_a_stage_that_a_trigger_asks_for(engine: Engine, directory: Path) -> None:
    (directory / "Dockerfile").write_text("FROM buildbase\nONBUILD COPY --from=helper /h /h\n")
    assert engine.cli("build", "-t", "told-triggering", str(directory)).returncode == 0
    (directory / "Dockerfile").write_text("FROM buildbase AS helper\nRUN echo help > /h\nFROM told-triggering\nRUN cat /h\n")
    done = engine.cli("build", "--progress=rawjson", "--no-cache", str(directory))
    assert done.returncode == 0, done.stderr
    messages = list(map(json.loads, done.stdout.splitlines()))
    states = [message["step"] for message in messages if "state" in message.get("step", {})]
    started = {step["id"]: (step["stage"], step["text"]) for step in states if step["state"] == "started"}
    assert sorted(started.values()) == [
        ("helper", "FROM buildbase AS helper"),
        ("helper", "RUN echo help > /h"),
        ("stage-1", "FROM told-triggering"),
        ("stage-1", "RUN cat /h"),
    ]
    assert sorted(step["id"] for step in states if step["state"] == "done") == sorted(started)
    assert [message["plan"] for message in messages if "plan" in message][-1] == {"steps": 4}
    assert engine.cli("image", "rm", "told-triggering").returncode == 0


def test_without_a_terminal_or_by_name_it_is_the_classic_stream(engine: Engine, directory: Path) -> None:
    write(directory, "true", "true")
    piped = engine.cli("build", str(directory))
    assert "Step 1/8 : ARG FROM=buildbase\nStep 2/8 : FROM $FROM AS first\n" in piped.stdout
    for arguments, environment in ((["--progress=plain"], {}), ([], {"BUILDKIT_PROGRESS": "plain"}), ([], {"TERM": "dumb"})):
        with terminal(engine, *arguments, str(directory), environment=environment) as shown:
            assert shown.end() == 0
            assert shown.lines[1:3] == ["Step 1/8 : ARG FROM=buildbase", "Step 2/8 : FROM $FROM AS first"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--progress=what"], "invalid progress mode what"),
        (["--progress=tty"], "failed to get console: provided file is not a console"),
        (["--progress=plain", "-q"], "progress=plain and quiet cannot be used together"),
    ],
)
def test_what_cannot_be_shown_so_is_not_built(engine: Engine, directory: Path, arguments: list[str], message: str) -> None:
    done = engine.cli("build", *arguments, str(directory))
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{message}\n")


def test_the_messages_themselves(engine: Engine, directory: Path) -> None:
    write(directory, "echo hello", "true")
    done = engine.cli("build", "--progress", "rawjson", "--no-cache", str(directory))
    assert done.returncode == 0, done.stderr
    plan, *messages = map(json.loads, done.stdout.splitlines())
    assert plan == {"plan": {"steps": 7}}
    steps = [message["step"] for message in messages if "step" in message]
    assert {"id": 3, "state": "started", "stage": "first", "place": 2, "of": 2, "text": "RUN echo hello"} in steps
    assert {"id": 3, "output": "hello\n"} in steps
    assert {"id": 3, "state": "done"} in steps
    again = engine.cli("build", "--progress", "rawjson", str(directory))
    assert '{"step":{"id":3,"state":"cached"}}' in again.stdout
