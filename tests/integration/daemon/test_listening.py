"""Where sampand listens: TCP with mutual TLS, sockets of systemd; and what it tells systemd."""

import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.engine import CLI, START, Engine, processes_of

pytestmark = pytest.mark.root

ACTIVATE = """
import os, socket, sys
for number, place in enumerate(sys.argv[1].split(","), 3):
    listener = socket.socket(socket.AF_UNIX if place[0] == "/" else socket.AF_INET)
    listener.bind(place if place[0] == "/" else (place, 0))
    listener.listen()
    os.dup2(listener.fileno(), number + 100)
for number, _ in enumerate(sys.argv[1].split(","), 3):
    os.dup2(number + 100, number, inheritable=True)
    os.close(number + 100)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(number - 2)}
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does for a socket unit: sockets from descriptor 3 on, and a program that is told of them."""


def activated(engine: Engine, *places: str) -> None:
    engine.prefix = [sys.executable, "-c", ACTIVATE, ",".join(places)]


class Systemd:
    """The other end of NOTIFY_SOCKET."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(30)

    def wait_for(self, start: str) -> str:
        """The next message that begins so; any before it that is no sign of life is a fault."""
        while not (text := self.socket.recv(4096).decode()).startswith(start):
            assert text == "WATCHDOG=1", text
        return text


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[Systemd]:
    made = Systemd(tmp_path / "notify")
    yield made
    made.socket.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def started_on_tcp(engine: Engine) -> int:
    """The port that it found."""
    engine.start()
    found = re.search(r"API listen on .*tcp://[\d.]+:(\d+)", engine.log.read_text())
    assert found is not None
    return int(found[1])


def ping(port: int, context: ssl.SSLContext) -> int:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
    try:
        connection.request("GET", "/_ping")
        return connection.getresponse().status
    finally:
        connection.close()


def test_mutual_tls(make_engine: Callable[..., Engine], authority: Authority, docker_path: str, tmp_path: Path) -> None:
    cert, key = authority.issue("engine", "127.0.0.1", "localhost")
    client, client_key = authority.issue("client", "client")
    files = [f"--tlscacert={authority.certificate}", f"--tlscert={cert}", f"--tlskey={key}"]
    engine = make_engine("--tlsverify", *files, "--host=tcp://0.0.0.0:0")
    engine.flags.append(f"--host=unix://{engine.socket}")
    port = started_on_tcp(engine)
    context = ssl.create_default_context(cafile=str(authority.certificate))
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        ping(port, context)
    stranger = Authority(tmp_path / "other")
    context.load_cert_chain(*stranger.issue("client", "client"))
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        ping(port, context)
    context.load_cert_chain(client, client_key)
    assert ping(port, context) == 200
    ours = [f"--tlscacert={authority.certificate}", f"--tlscert={client}", f"--tlskey={client_key}", "--tlsverify"]
    for command in ([docker_path], CLI):
        shown = subprocess.run(
            [*command, *ours, "-H", f"tcp://127.0.0.1:{port}", "version", "--format", "{{.Server.Os}}"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (shown.returncode, shown.stdout) == (0, "linux\n"), shown.stderr
    engine.bootstrap()
    for command in ([docker_path], CLI):
        sent = os.urandom(1 << 20)
        cat = [*command, *ours, "-H", f"tcp://127.0.0.1:{port}", "run", "-i", "--rm", "--network=none", "busybox", "cat"]
        copied = subprocess.run(cat, input=sent, capture_output=True, timeout=60, check=False)
        assert (copied.returncode, copied.stdout == sent, copied.stderr) == (0, True, b""), command
    dial = [*CLI, *ours, "-H", f"tcp://127.0.0.1:{port}", "system", "dial-stdio"]
    answer = subprocess.run(dial, input=b"GET /_ping HTTP/1.0\r\n\r\n", capture_output=True, timeout=60, check=False)
    assert answer.stdout.startswith(b"HTTP/1.1 200 ")
    assert answer.stdout.endswith(b"\r\n\r\nOK")
    assert answer.stderr == b""


def test_sockets_of_systemd(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine("--host=fd://")
    engine.exec_root.mkdir()
    activated(engine, engine.socket, "127.0.0.1")
    port = started_on_tcp(engine)
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
        assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
    (keeper,) = (line.split()[0] for line in processes_of(str(engine.exec_root)) if "main.py keeper" in line)
    sockets = {os.readlink(f"/proc/{engine.pid}/fd/{number}") for number in (3, 4)}
    assert not sockets & {os.readlink(f"/proc/{keeper}/fd/{fd}") for fd in os.listdir(f"/proc/{keeper}/fd")}
    assert engine.stop() == 0
    assert Path(engine.socket).is_socket(), "it is systemd's"


@pytest.mark.parametrize(
    ("host", "places", "says"),
    [
        ("fd://", (), "no sockets found via socket activation: make sure the service was started by systemd"),
        ("fd://9", ("{}/s",), "too few socket activated files passed in by systemd"),
        ("fd://", ("0.0.0.0",), "gives root access"),
    ],
)
def test_sockets_that_cannot_be(make_engine: Callable[..., Engine], tmp_path: Path, host: str, places: tuple[str, ...], says: str) -> None:
    engine = make_engine(f"--host={host}")
    if places:
        activated(engine, *(place.format(tmp_path) for place in places))
    result = subprocess.run([*engine.prefix, *START, *engine.flags], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert says in result.stderr


def test_systemd_is_told(make_engine: Callable[..., Engine], systemd: Systemd, tmp_path: Path) -> None:
    engine = make_engine()
    engine.prefix = ["env", f"NOTIFY_SOCKET={tmp_path}/notify", "WATCHDOG_USEC=300000"]
    engine.start()
    assert systemd.wait_for("READY=1") == "READY=1"
    for _ in range(3):
        assert systemd.socket.recv(4096) == b"WATCHDOG=1"
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    os.kill(engine.pid, signal.SIGHUP)
    reloading = systemd.wait_for("RELOADING=1\n")
    assert int(reloading.partition("MONOTONIC_USEC=")[2]) >= before
    systemd.wait_for("READY=1")
    engine.process.send_signal(signal.SIGTERM)
    systemd.wait_for("STOPPING=1")
    assert engine.stop() == 0
