"""The log driver syslog: to servers of every kind, whatever becomes of them and of sampand; and `logs` all the same."""

import contextlib
import os
import re
import signal
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.engine import Engine

pytestmark = pytest.mark.root


class Server:
    """Keeps what it is sent. Streams and datagrams; TLS with a context."""

    def __init__(self, listener: socket.socket, tls: ssl.SSLContext | None = None) -> None:
        self.data = b""
        self._listener, self._tls = listener, tls
        self._grown = threading.Condition()
        self.open: list[socket.socket] = []
        listener.settimeout(60)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            if self._listener.type == socket.SOCK_DGRAM:
                self._take(self._listener)
                return
            self._listener.listen()
            while True:
                connection = self._listener.accept()[0]
                if self._tls is not None:
                    connection = self._tls.wrap_socket(connection, server_side=True)
                self.open.append(connection)
                threading.Thread(target=self._take, args=[connection], daemon=True).start()
        except (OSError, ssl.SSLError):
            return

    def _take(self, sock: socket.socket) -> None:
        try:
            while data := sock.recv(1 << 16):
                with self._grown:
                    self.data += data
                    self._grown.notify_all()
        except OSError:
            return

    def wait_for(self, text: bytes) -> bytes:
        with self._grown:
            assert self._grown.wait_for(lambda: text in self.data, 30), self.data[-2000:]
            return self.data

    def close(self) -> None:
        for one in (self._listener, *self.open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)  # a thread that waits in accept() would keep it open
            one.close()


def bound(family: int, kind: int, where: object) -> socket.socket:
    made = socket.socket(family, kind)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind(where)
    return made


@pytest.fixture(scope="module")
def own_engine(make_engine: Callable[..., Engine]) -> Engine:
    engine = make_engine()
    engine.start()
    engine.bootstrap()
    return engine


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def start(listener: socket.socket, tls: ssl.SSLContext | None = None) -> Server:
        made.append(Server(listener, tls))
        return made[-1]

    yield start
    for one in made:
        one.close()


def run(engine: Engine, options: dict[str, str], command: str, *, auto_remove: bool = False) -> str:
    """Start a container; its path in the API."""
    host = {"NetworkMode": "none", "AutoRemove": auto_remove, "LogConfig": {"Type": "syslog", "Config": options}}
    status, answer = engine.request("POST", "/containers/create", {"Image": "busybox", "Cmd": ["sh", "-c", command], "HostConfig": host})
    assert status == 201, answer
    path = f"/containers/{answer['Id']}"
    status, answer = engine.request("POST", f"{path}/start")
    assert status == 204, answer
    return path


@pytest.mark.parametrize("kind", ["udp", "tcp", "tcp+tls", "unix", "unixgram"])
def test_servers_of_every_kind(own_engine: Engine, serve: Callable[..., Server], tmp_path: Path, kind: str) -> None:
    options = {"syslog-facility": "local3", "tag": "the-{{.Name}}"}
    tls = None
    if kind.startswith("unix"):
        place = str(tmp_path / "log")
        listener = bound(socket.AF_UNIX, socket.SOCK_DGRAM if kind == "unixgram" else socket.SOCK_STREAM, place)
    else:
        listener = bound(socket.AF_INET, socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM, ("127.0.0.1", 0))
        place = f"127.0.0.1:{listener.getsockname()[1]}"
        if kind == "tcp+tls":
            authority = Authority(tmp_path / "ca")
            tls = authority.server("127.0.0.1")
            options |= {"syslog-tls-ca-cert": str(authority.certificate), "syslog-format": "rfc5424"}
    server = serve(listener, tls)
    path = run(own_engine, {**options, "syslog-address": f"{kind}://{place}"}, "echo one; echo two >&2; printf end")
    data = server.wait_for(b"end\n")
    server.wait_for(b"two\n")
    name = own_engine.request("GET", f"{path}/json")[1]["Name"][1:]
    assert re.search(rb"<158>\S.* the-" + name.encode() + rb".*one\n", data), data
    assert re.search(rb"<155>\S.*two\n", server.data)
    assert own_engine.request("GET", f"{path}/logs?stdout=1")[1] == b"\1\0\0\0\0\0\0\4one\n\1\0\0\0\0\0\0\3end"


def test_no_copy_if_none_is_wanted(own_engine: Engine, serve: Callable[..., Server]) -> None:
    listener = bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
    server = serve(listener)
    address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
    path = run(own_engine, {"syslog-address": address, "cache-disabled": "true"}, "echo only-there")
    server.wait_for(b"only-there\n")
    status, answer = own_engine.request("GET", f"{path}/logs?stdout=1")
    assert (status, answer["message"]) == (501, "configured logging driver does not support reading")


def test_a_server_that_goes_and_a_sampand_that_is_killed(own_engine: Engine, serve: Callable[..., Server]) -> None:
    listener = bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
    place = listener.getsockname()
    first = serve(listener)
    command = "for n in 1 2 3; do echo begin $n; done; while ! [ -e /go ]; do sleep 0.05; done; seq 1000; echo through"
    path = run(own_engine, {"syslog-address": f"tcp://127.0.0.1:{place[1]}"}, command)
    first.wait_for(b"begin 3\n")
    first.close()
    pid = own_engine.request("GET", f"{path}/json")[1]["State"]["Pid"]
    Path(f"/proc/{pid}/root/go").touch()
    deadline = time.monotonic() + 30
    while b"through\n" not in own_engine.request("GET", f"{path}/logs?stdout=1")[1]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    own_engine.stop(signal.SIGKILL)
    own_engine.start()
    second = serve(bound(socket.AF_INET, socket.SOCK_STREAM, place))
    data = second.wait_for(b"through\n")
    missing = [n for n in range(1, 1001) if not re.search(rb": %d\n" % n, data)]
    assert not missing
    assert b"begin 1\n" not in data, "was sent already"


def test_who_removes_a_container_does_not_wait_for_its_server(own_engine: Engine) -> None:
    path = run(own_engine, {"syslog-address": "tcp://127.0.0.1:1"}, "echo lost")
    container = path.removeprefix("/containers/")
    deadline = time.monotonic() + 30
    while f"the log of {container} cannot be sent, and waits" not in own_engine.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert own_engine.request("DELETE", f"{path}?force=1")[0] == 204
    while f"the log of {container} is lost" not in own_engine.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_what_cannot_be_is_said_at_once(own_engine: Engine) -> None:
    host = {"LogConfig": {"Type": "journald", "Config": {}}}
    if os.path.exists("/run/systemd/journal/socket"):
        pytest.skip("there is a journal")
    status, answer = own_engine.request("POST", "/containers/create", {"Image": "busybox", "HostConfig": host})
    assert status == 400
    assert "journald is not enabled on this host" in answer["message"]


@pytest.mark.parametrize("disabled", ["true", "false"])
def test_all_of_a_container_that_is_removed_at_its_end(own_engine: Engine, serve: Callable[..., Server], disabled: str) -> None:
    listener = bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
    server = serve(listener)
    options = {"syslog-address": f"tcp://127.0.0.1:{listener.getsockname()[1]}", "cache-disabled": disabled}
    run(own_engine, options, "seq 20000; echo through", auto_remove=True)
    data = server.wait_for(b"through\n")
    assert re.findall(rb": (\d+)\n", data) == [b"%d" % n for n in range(1, 20001)]


def test_a_server_that_hangs_holds_up_nobody_else(own_engine: Engine, serve: Callable[..., Server]) -> None:
    with bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)) as listener:
        listener.listen()  # and nobody takes what comes
        hung = run(own_engine, {"syslog-address": f"tcp://127.0.0.1:{listener.getsockname()[1]}"}, "seq 1000000; echo through")
        other = bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        server = serve(other)
        run(own_engine, {"syslog-address": f"tcp://127.0.0.1:{other.getsockname()[1]}"}, "echo arrived")
        server.wait_for(b"arrived\n")
        deadline = time.monotonic() + 30
        while b"through\n" not in own_engine.request("GET", f"{hung}/logs?stdout=1&tail=1")[1]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert own_engine.request("DELETE", f"{hung}?force=1")[0] == 204
