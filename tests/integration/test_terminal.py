"""`sampan` and docker's own client on a terminal, against a real container: sizes, keys that detach, signals, exit codes."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator

import pytest

from tests.support.engine import CLI, Engine

pytestmark = pytest.mark.root

SECONDS = 60.0


def _own_terminal() -> None:
    """In the child: its stdin is its controlling terminal, as in a shell; so the kernel itself sends SIGWINCH and ^C's signal."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Terminal:
    """A client on a pseudo terminal that controls it."""

    def __init__(self, engine: Engine, client: list[str], *args: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(30, 100)
        self.text = ""
        self.process = subprocess.Popen(
            [*client, *args], stdin=slave, stdout=slave, stderr=slave, env=engine.environment(), start_new_session=True,
            preexec_fn=_own_terminal,
        )  # fmt: skip
        os.close(slave)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def expect(self, pattern: str) -> "re.Match[str]":
        """Read until the pattern is seen; what came before it and the match itself are dropped."""
        deadline = time.monotonic() + SECONDS
        while not (found := re.search(pattern, self.text)):
            ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{pattern!r} not in {self.text!r}"
            try:
                self.text += os.read(self.master, 65536).decode(errors="replace")
            except OSError:  # the other side is closed
                raise AssertionError(f"{pattern!r} not in {self.text!r}") from None
        self.text = self.text[found.end() :]
        return found

    def wait(self) -> int:
        return self.process.wait(SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        os.close(self.master)


@pytest.fixture(params=["sampan", "docker"])
def client(request: pytest.FixtureRequest, docker_path: str) -> list[str]:
    return CLI if request.param == "sampan" else [docker_path]


@pytest.fixture
def shell(engine: Engine, client: list[str]) -> Iterator[Terminal]:
    """`run -it` of a shell in the container `term`."""
    terminal = Terminal(engine, client, "run", "--name", "term", "-it", "busybox", "sh")
    try:
        terminal.expect("# ")
        yield terminal
    finally:
        terminal.close()


def state(engine: Engine, name: str = "term") -> dict[str, object]:
    status, shown = engine.request("GET", f"/containers/{name}/json")
    assert status == 200, shown
    found: dict[str, object] = shown["State"]
    return found


def test_the_size_follows_the_terminal(shell: Terminal) -> None:
    shell.type("stty size\n")
    shell.expect("30 100\r")
    shell.resize(40, 120)
    while True:  # the request takes its time, so the size is asked for until it is there
        shell.type("echo is $(stty size)\n")
        if shell.expect(r"is (\d+ \d+)\r")[1] == "40 120":
            break
    shell.type("exit\n")
    assert shell.wait() == 0


def test_the_exit_code_of_a_shell(engine: Engine, shell: Terminal) -> None:
    shell.type("exit 43\n")
    assert shell.wait() == 43
    assert (state(engine)["Status"], state(engine)["ExitCode"]) == ("exited", 43)


def test_control_c_is_the_containers(shell: Terminal) -> None:
    # said by the program itself: it is in the foreground by then
    shell.type("sh -c 'echo sta\"\"rted; exec sleep 1000'\n")
    shell.expect("started\r")
    shell.type("\x03")
    shell.expect("# ")
    assert shell.process.poll() is None
    shell.type("exit 5\n")
    assert shell.wait() == 5


def test_ctrl_p_ctrl_q_detaches_and_attach_comes_back(engine: Engine, shell: Terminal, client: list[str]) -> None:
    shell.type("kept=yes\n")
    shell.expect("# ")
    shell.type("\x10\x11")
    assert shell.wait() == 0
    assert state(engine)["Status"] == "running"
    again = Terminal(engine, client, "attach", "term")
    try:
        again.type("echo it is $kept\n")
        again.expect("it is yes")
        again.type("exit 3\n")
        assert again.wait() == 3
    finally:
        again.close()


def test_detach_keys_of_the_users(engine: Engine, client: list[str]) -> None:
    terminal = Terminal(engine, client, "run", "--name", "term", "-it", "--detach-keys", "ctrl-a,d", "busybox", "sh")
    try:
        terminal.expect("# ")
        terminal.type("\x10\x11")  # no keys now: they go to the shell
        terminal.type("\x01d")
        assert terminal.wait() == 0
    finally:
        terminal.close()
    assert state(engine)["Status"] == "running"


def test_exec_on_a_terminal(engine: Engine, client: list[str]) -> None:
    assert engine.cli("run", "-d", "--name", "term", "busybox", "sleep", "1000").returncode == 0
    terminal = Terminal(engine, client, "exec", "-it", "term", "sh")
    try:
        terminal.expect("# ")
        terminal.type("stty size; tty\n")
        terminal.expect("30 100\r")
        terminal.expect("/dev/pts/0")
        terminal.type("exit 9\n")
        assert terminal.wait() == 9
    finally:
        terminal.close()
    assert state(engine)["Status"] == "running"


@pytest.mark.parametrize(("number", "name"), [(signal.SIGTERM, "TERM"), (signal.SIGHUP, "HUP"), (signal.SIGUSR1, "USR1")])
def test_signals_to_run_reach_the_container(engine: Engine, client: list[str], number: int, name: str) -> None:
    script = f"trap 'echo caught {name}; exit 21' {name}; echo ready; while :; do sleep 0.1; done"
    with subprocess.Popen(
        [*client, "run", "--name", "term", "busybox", "sh", "-c", script], stdout=subprocess.PIPE, env=engine.environment()
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(number)
        assert run.stdout.read() == f"caught {name}\n".encode()
        assert run.wait(SECONDS) == 21


def test_a_signal_without_a_trap_is_the_exit_code(engine: Engine, client: list[str]) -> None:
    with subprocess.Popen(
        [*client, "run", "--name", "term", "--init", "busybox", "sh", "-c", "echo ready; exec sleep 1000"],
        stdout=subprocess.PIPE, env=engine.environment(),
    ) as run:  # fmt: skip
        assert run.stdout is not None
        assert run.stdout.readline() == b"ready\n"
        run.send_signal(signal.SIGTERM)
        assert run.wait(SECONDS) == 143
    assert state(engine)["ExitCode"] == 143
