"""`run`, `exec` and `attach` against a scripted daemon: order of requests, both directions of a stream, signals, terminals, detach keys."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from sampan.testing.fakedaemon import FakeDaemon, Stream

SOURCE = str(Path(__file__).parents[3] / "src")
PROGRAM = [sys.executable, "-m", "sampan.cli"]


def environment(daemon: FakeDaemon) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCE, "DOCKER_HOST": f"unix://{daemon.path}", "HOME": str(daemon.path.parent)}


def sampan(daemon: FakeDaemon, *words: str, stdin: bytes = b"", timeout: float = 30) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run([*PROGRAM, *words], input=stdin, capture_output=True, env=environment(daemon), timeout=timeout, check=False)


class Terminal:
    """A client on a pty."""

    def __init__(self, daemon: FakeDaemon, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.slave = slave
        self.resize(24, 80)
        self.before = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [*PROGRAM, *words], stdin=slave, stdout=slave, stderr=slave, env=environment(daemon), start_new_session=True
        )
        self.seen = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text: bytes, timeout: float = 15) -> None:
        end = time.monotonic() + timeout
        while text not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0, end - time.monotonic()))
            assert ready, f"{text!r} did not come; seen: {self.seen!r}"
            self.seen += os.read(self.master, 65536)

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def wait(self) -> int:
        return self.process.wait(15)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


def echo(stream: Stream) -> int:
    """A container that sends back what it gets, until its stdin ends."""
    while data := stream.read():
        if stream.daemon.tty:
            stream.raw(data)
        else:
            stream.frame(1, data)
    return 0


def test_run_creates_attaches_waits_and_starts_in_this_order(tmp_path: Path) -> None:
    def body(stream: Stream) -> int:
        stream.frame(1, b"out\n")
        stream.frame(2, b"err\n")
        return 7

    with FakeDaemon(tmp_path / "s", body) as daemon:
        done = sampan(daemon, "run", "busybox", "true")
        assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
        assert daemon.names() == ["POST create", "POST attach", "POST wait", "POST start"]
        assert daemon.queries["attach"] == {"stream": ["1"], "stdout": ["1"], "stderr": ["1"]}
        assert daemon.queries["wait"] == {"condition": ["next-exit"]}


def test_run_rm_waits_for_the_removal(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "s", lambda _: 3) as daemon:
        assert sampan(daemon, "run", "--rm", "busybox").returncode == 3
        assert daemon.queries["wait"] == {"condition": ["removed"]}


def test_run_detached_prints_the_id(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "s", lambda _: 0) as daemon:
        done = sampan(daemon, "run", "-d", "busybox")
        assert (done.returncode, len(done.stdout.strip())) == (0, 64)
        assert "POST attach" not in daemon.names()


def test_stdin_is_half_closed_at_its_end(tmp_path: Path) -> None:
    def body(stream: Stream) -> int:
        received = b""
        while data := stream.read():
            received += data
        stream.frame(1, received.upper())
        return 0

    with FakeDaemon(tmp_path / "s", body) as daemon:
        assert sampan(daemon, "run", "-i", "busybox", "tr", stdin=b"abc").stdout == b"ABC"


def test_ten_megabytes_through_stdin_and_back(tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * 10
    with FakeDaemon(tmp_path / "s", echo) as daemon:
        assert sampan(daemon, "run", "-i", "busybox", "cat", stdin=data, timeout=60).stdout == data


def test_frames_cut_anywhere_come_out_whole(tmp_path: Path) -> None:
    def body(stream: Stream) -> int:
        wire = b"".join(bytes([1 + n % 2, 0, 0, 0, 0, 0, 0, 5]) + b"%04d\n" % n for n in range(200))
        for at in range(0, len(wire), 7):
            stream.raw(wire[at : at + 7])
        return 0

    with FakeDaemon(tmp_path / "s", body) as daemon:
        done = sampan(daemon, "run", "busybox")
        assert done.stdout == b"".join(b"%04d\n" % n for n in range(0, 200, 2))
        assert done.stderr == b"".join(b"%04d\n" % n for n in range(1, 200, 2))


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "TERM"), (signal.SIGINT, "INT"), (signal.SIGUSR1, "USR1"), (signal.SIGHUP, "HUP")]
)
def test_signals_are_passed_on(tmp_path: Path, number: int, name: str) -> None:
    def body(stream: Stream) -> int:
        stream.frame(1, b"ready\n")
        assert stream.daemon.signalled.wait(15)
        return 128 + number

    with FakeDaemon(tmp_path / "s", body) as daemon:
        process = subprocess.Popen([*PROGRAM, "run", "busybox"], stdout=subprocess.PIPE, env=environment(daemon))
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(15) == 128 + number
        process.stdout.close()
        assert daemon.queries["kill"] == {"signal": [name]}


def test_without_sig_proxy_a_signal_ends_the_client(tmp_path: Path) -> None:
    def body(stream: Stream) -> int:
        stream.frame(1, b"ready\n")
        stream.daemon.stop.wait(15)
        return 0

    with FakeDaemon(tmp_path / "s", body) as daemon:
        process = subprocess.Popen([*PROGRAM, "run", "--sig-proxy=false", "busybox"], stdout=subprocess.PIPE, env=environment(daemon))
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(15) == 128 + signal.SIGTERM
        process.stdout.close()
        assert "POST kill" not in daemon.names()


def test_a_terminal_is_raw_follows_its_size_and_is_given_back(tmp_path: Path) -> None:
    def body(stream: Stream) -> int:
        stream.raw(b"/ # ")
        while data := stream.read():
            stream.raw(b"<" + data + b">")
            if b"\x04" in data:
                break
        return 5

    with FakeDaemon(tmp_path / "s", body) as daemon:
        terminal = Terminal(daemon, "run", "-it", "busybox")
        try:
            terminal.expect(b"/ # ")
            assert daemon.resized.wait(10)
            assert daemon.queries["resize"] == {"h": ["24"], "w": ["80"]}
            terminal.type(b"a\x03")  # ctrl-c is a byte for the container, not a signal
            terminal.expect(b"\x03>")
            assert termios.tcgetattr(terminal.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG) == 0
            daemon.resized.clear()
            terminal.resize(50, 132)
            terminal.process.send_signal(signal.SIGWINCH)
            assert daemon.resized.wait(10)
            assert daemon.queries["resize"] == {"h": ["50"], "w": ["132"]}
            terminal.type(b"\x04")
            assert terminal.wait() == 5
            assert termios.tcgetattr(terminal.slave) == terminal.before
        finally:
            terminal.close()


def test_detach_keys_leave_the_container_running(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "s", echo) as daemon:
        terminal = Terminal(daemon, "run", "-it", "busybox")
        try:
            terminal.type(b"ab\x10c")  # a started sequence that is none goes through
            terminal.expect(b"ab")
            terminal.expect(b"\x10c")
            terminal.type(b"\x10")
            time.sleep(0.1)
            terminal.type(b"\x11")
            assert terminal.wait() == 0
            assert termios.tcgetattr(terminal.slave) == terminal.before
        finally:
            terminal.close()


def test_attach_says_that_it_was_left_by_the_keys(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "s", echo, tty=True) as daemon:
        daemon.mark_running()
        terminal = Terminal(daemon, "attach", "--detach-keys", "ctrl-x,y", "c")
        try:
            terminal.type(b"hello")
            terminal.expect(b"hello")
            terminal.type(b"\x18y")
            terminal.expect(b"read escape sequence")
            assert terminal.wait() == 1
            assert daemon.queries["attach"]["detachKeys"] == ["ctrl-x,y"]
        finally:
            terminal.close()


def test_exec_gives_the_exit_code(tmp_path: Path) -> None:
    def body(stream: Stream) -> int:
        stream.frame(2, b"sh: nope\n")
        return 127

    with FakeDaemon(tmp_path / "s", body) as daemon:
        done = sampan(daemon, "exec", "c", "nope")
        assert (done.returncode, done.stdout, done.stderr) == (127, b"", b"sh: nope\n")
        assert daemon.names() == ["GET json", "POST exec", "POST start", "GET json"]


def test_no_terminal_for_a_terminal(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "s", echo) as daemon:
        done = sampan(daemon, "run", "-it", "busybox")
        assert (done.returncode, done.stderr) == (1, b"the input device is not a TTY\n")
        assert daemon.names() == []


def test_a_reader_that_goes_away_ends_the_client_by_sigpipe(tmp_path: Path) -> None:
    def body(stream: Stream) -> int:
        while True:
            stream.frame(1, b"y\n" * 4096)

    with FakeDaemon(tmp_path / "s", body) as daemon:
        process = subprocess.Popen([*PROGRAM, "run", "busybox", "yes"], stdout=subprocess.PIPE, env=environment(daemon))
        assert process.stdout is not None
        assert process.stdout.readline() == b"y\n"
        process.stdout.close()
        assert process.wait(15) == -signal.SIGPIPE


@pytest.mark.parametrize("closed", ["0", "1", "2", "1 2", "0 1 2"])
def test_closed_standard_streams_do_no_harm(tmp_path: Path, closed: str) -> None:
    """The daemon's socket must not become descriptor 1."""
    received = []

    def body(stream: Stream) -> int:
        stream.frame(1, b"out\n")
        stream.frame(2, b"err\n")
        received.append(stream.read())
        return 4

    with FakeDaemon(tmp_path / "s", body) as daemon:
        redirections = " ".join(f"{fd}>&-" for fd in closed.split())
        command = ["sh", "-c", f'exec "$@" {redirections}', "sh", *PROGRAM, "run", "-i", "busybox"]
        done = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, env=environment(daemon), timeout=20, check=False)
        assert done.returncode == 4
        assert done.stdout == (b"" if "1" in closed else b"out\n")
        assert done.stderr == (b"" if "2" in closed else b"err\n")
        assert received == [b""]
