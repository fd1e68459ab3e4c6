"""`sampan build --progress` on a real terminal, with a builder behind it."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.golden.build.record import caller, prepare
from tests.support.engine import Engine
from tests.support.screen import screen

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

    def __init__(self, engine: Engine, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
        environment = {**os.environ, "DOCKER_HOST": f"unix://{engine.socket}", "TERM": "xterm", "NO_COLOR": "1"}
        self._child = subprocess.Popen(
            [sys.executable, "-m", "sampan.cli", "build", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        os.set_blocking(self._master, False)
        self._written = b""

    def _read(self) -> bool:
        """What there is; False at the end."""
        try:
            piece = os.read(self._master, 1 << 16)
        except BlockingIOError:
            time.sleep(0.02)
            return True
        except OSError:
            return False
        self._written += piece
        return bool(piece)

    @property
    def lines(self) -> list[str]:
        """What it shows now."""
        return screen(self._written.decode(errors="ignore"), COLUMNS)

    def wait_for(self, *patterns: str) -> list[str]:
        """Until lines match them all at once."""
        deadline = time.monotonic() + 30
        while self._read() and time.monotonic() < deadline:
            if all(any(re.search(pattern, line) for line in self.lines) for pattern in patterns):
                return self.lines
        raise AssertionError(f"{patterns} not on the screen: {self.lines}")

    def interrupt(self) -> None:
        """As Ctrl-C does."""
        self._child.send_signal(signal.SIGINT)

    def end(self) -> int:
        """Its exit code, once it has ended."""
        deadline = time.monotonic() + 30
        while self._read() and time.monotonic() < deadline:
            continue
        return self._child.wait(10)

    def close(self) -> None:
        """End it."""
        self._child.kill()
        self._child.wait()
        os.close(self._master)


@contextmanager
def terminal(engine: Engine, *arguments: str) -> Iterator[Terminal]:
    made = Terminal(engine, *arguments)
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


def test_steps_that_run_side_by_side_are_drawn_so(engine: Engine, directory: Path) -> None:
    # each waits for the other's file in a mount that both have
    wait = (
        "--mount=type=cache,target=/c {{ echo {0} begins; touch /c/{0}; until [ -e /c/{1} ]; do sleep 0.05; done; "
        "until [ -e /c/end ]; do sleep 0.05; done; }}"
    )
    write(directory, wait.format("one", "two"), wait.format("two", "one"))
    with terminal(engine, "--no-cache", str(directory)) as shown:
        drawn = shown.wait_for(r"^ => \[first 2/2\] RUN", r"^ => => # one begins", r"^ => \[second 2/2\] RUN", r"^ => => # two begins")
        assert any(re.fullmatch(r"\[\+\] Building \d+\.\ds \([23]/7\)", line) for line in drawn), drawn
        (directory / "end").write_text("FROM buildbase\nRUN --mount=type=cache,target=/c touch /c/end\n")
        with terminal(engine, "--no-cache", "-f", str(directory / "end"), str(directory)) as other:
            assert other.end() == 0
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
        shown.interrupt()
        assert shown.end() == 130
        assert any(line.startswith(" => CANCELED [second 2/2] RUN") for line in shown.lines)
        assert not any("waiting" in line for line in shown.lines if line.startswith(" => =>"))


def test_the_messages_themselves(engine: Engine, directory: Path) -> None:
    write(directory, "echo hello", "true")
    done = engine.run_client(
        [sys.executable, "-m", "sampan.cli"], "build", "--progress", "rawjson", "--no-cache", str(directory), timeout=60
    )
    assert done.returncode == 0, done.stderr
    plan, *messages = map(json.loads, done.stdout.splitlines())
    assert plan == {"plan": {"steps": 7}}
    steps = [message["step"] for message in messages if "step" in message]
    assert {"id": 3, "state": "started", "stage": "first", "place": 2, "of": 2, "text": "RUN echo hello"} in steps
    assert {"id": 3, "output": "hello\n"} in steps
    assert {"id": 3, "state": "done"} in steps
    again = engine.run_client([sys.executable, "-m", "sampan.cli"], "build", "--progress", "rawjson", str(directory), timeout=60)
    assert '{"step":{"id":3,"state":"cached"}}' in again.stdout
