"""The HTTP client: bodies in every framing, negotiation of the version, errors in docker's words, unix and TCP and TLS."""

import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from sampan.cli.connect import make_client
from sampan.cli.flags import parse
from sampan.cli.http import ApiError, Client, CliError, ConnectError, Connection, Host, Response, encode_query, quote
from sampan.cli.main import GLOBAL_FLAGS, main

PING = b"HTTP/1.1 200 OK\r\nApi-Version: 1.51\r\nContent-Length: 0\r\n\r\n"


@contextmanager
def server(
    listener: socket.socket, answers: list[bytes], wrap: Callable[[socket.socket], socket.socket] | None = None
) -> Iterator[list[bytes]]:
    """Answers one request after the other with the given bytes (b"" drops the connection); yields the heads received."""
    seen: list[bytes] = []
    left = iter(answers)

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            with wrap(sock) if wrap else sock as peer:
                buffer = b""
                while True:
                    while b"\r\n\r\n" not in buffer:
                        data = peer.recv(65536)
                        if not data:
                            break
                        buffer += data
                    if b"\r\n\r\n" not in buffer:
                        break
                    head, _, buffer = buffer.partition(b"\r\n\r\n")
                    seen.append(head)
                    answer = next(left, b"")
                    if not answer:
                        break
                    peer.sendall(answer)
                    if b"close me" in answer:
                        break

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield seen
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


@pytest.fixture
def unix(tmp_path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    return listener


def client(tmp_path: Path, version: str = "") -> Client:
    return Client(Host(f"unix://{tmp_path}/s"), api_version=version)


def test_bodies_in_every_framing(unix: socket.socket, tmp_path: Path) -> None:
    answers = [
        PING,
        b'HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{"a": 1}',
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nuntil the end, close me",
    ]
    with server(unix, answers) as seen:
        api = client(tmp_path)
        assert api.request("GET", "/a").json() == {"a": 1}
        assert api.request("GET", "/b").read() == b"abcde"
        assert api.request("POST", "/c").read() == b""
        assert api.request("GET", "/d", {"x": "1 2", "on": True, "off": None}).read() == b"until the end, close me"
        api.close()
    assert [head.split(b"\r\n")[0] for head in seen] == [
        b"HEAD /_ping HTTP/1.1",
        b"GET /v1.51/a HTTP/1.1",
        b"GET /v1.51/b HTTP/1.1",
        b"POST /v1.51/c HTTP/1.1",
        b"GET /v1.51/d?on=1&x=1+2 HTTP/1.1",
    ]


def test_lines_of_a_stream(unix: socket.socket, tmp_path: Path) -> None:
    body = b'6\r\n{"a":1\r\n5\r\n}\r\n{"\r\n4\r\nb":2\r\n1\r\n}\r\n0\r\n\r\n'
    with server(unix, [PING, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body]):
        api = client(tmp_path)
        assert list(api.request("GET", "/events").lines()) == [b'{"a":1}', b'{"b":2}']
        api.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 80\r\n\r\nclose me",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n80\r\nclose me",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nclose me\r\n",
    ],
)
def test_a_body_that_breaks_off_is_an_error(unix: socket.socket, tmp_path: Path, answer: bytes) -> None:
    with server(unix, [PING, answer]):
        api = client(tmp_path)
        with pytest.raises(CliError, match="unexpected EOF"):
            api.request("GET", "/a").read()
        api.close()


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (b'HTTP/1.1 404 X\r\nContent-Type: application/json\r\nContent-Length: 18\r\n\r\n{"message":"nope"}', 404, "nope"),
        (b"HTTP/1.1 400 X\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nbad\r\n", 400, "bad"),
        (
            b"HTTP/1.1 500 X\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n{",
            500,
            "the daemon answered with status 500 and no message",
        ),
        (b"HTTP/1.1 301 X\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", 404, "page not found"),
    ],
)
def test_errors_of_the_daemon(unix: socket.socket, tmp_path: Path, answer: bytes, status: int, reason: str) -> None:
    with server(unix, [PING, answer]):
        api = client(tmp_path)
        with pytest.raises(ApiError) as error:
            api.request("GET", "/a")
        assert (error.value.status, error.value.reason, error.value.message) == (status, reason, f"Error response from daemon: {reason}")
        api.close()


@pytest.mark.parametrize(
    ("pings", "pinned", "version"),
    [
        ([b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n\r\n"], "", "1.41"),
        ([b"HTTP/1.1 200 OK\r\nApi-Version: 1.99\r\n\r\n"], "", "1.51"),
        ([b"HTTP/1.1 200 OK\r\n\r\n"], "", "1.24"),
        ([b"HTTP/1.1 405 No\r\n\r\n", b"HTTP/1.1 200 OK\r\nApi-Version: 1.30\r\nContent-Length: 2\r\n\r\nOK"], "", "1.30"),
        ([b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\n\r\n"], "1.44", "1.44"),
    ],
)
def test_the_version_is_negotiated(unix: socket.socket, tmp_path: Path, pings: list[bytes], pinned: str, version: str) -> None:
    with server(unix, pings):
        api = client(tmp_path, pinned)
        assert api.negotiate() == version
        assert api.at_least("1.24")
        assert not api.at_least("1.100")
        api.close()


def test_a_connection_closed_while_idle_is_opened_again(unix: socket.socket, tmp_path: Path) -> None:
    with server(unix, [PING, b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nclose me", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]):
        api = client(tmp_path)
        api.request("POST", "/a").read()
        threading.Event().wait(0.1)
        assert api.request("POST", "/b").status == 200
        api.close()


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(ConnectError, match=r"^Cannot connect to the Docker daemon at unix:///nonexist. Is the docker daemon running\?$"):
        Client(Host("unix:///nonexist")).negotiate()
    with pytest.raises(ConnectError, match=r"at tcp://127.0.0.1:1\. "):
        Client(Host("127.0.0.1:1")).negotiate()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become somebody else")
def test_a_hint_at_the_group_where_the_right_is_missing(unix: socket.socket, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.chmod(0o600)
    for parent in (tmp_path, *tmp_path.parents[:3]):
        parent.chmod(parent.stat().st_mode | 0o011)
    pid = os.fork()
    if pid == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        try:
            Client(Host(f"unix://{path}")).negotiate()
        except ConnectError as error:
            expected = f"permission denied while trying to connect to the Docker daemon socket at unix://{path}: "
            os._exit(0 if error.message.startswith(expected) and "sudo" in error.message else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    unix.close()


def test_tcp() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with server(listener, [PING]) as seen:
        api = Client(Host(f"tcp://127.0.0.1:{listener.getsockname()[1]}/base"))
        api.negotiate()
        api.close()
    assert seen[0].startswith(b"HEAD /base/_ping ")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificate with openssl")
def test_tls_with_verification(tmp_path: Path) -> None:
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
    ]
    subprocess.run([*command, "-keyout", key, "-out", cert, "-days", "2"], check=True, capture_output=True, timeout=60)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    listener = socket.create_server(("127.0.0.1", 0))
    with server(
        listener, [PING, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"], lambda sock: context.wrap_socket(sock, server_side=True)
    ):
        words = [f"--tlscacert={cert}", "--tlscert=/nonexistent", "--tlsverify", f"-H=tcp://127.0.0.1:{listener.getsockname()[1]}"]
        options = parse(GLOBAL_FLAGS, words)
        options.set.discard("tlscert")
        api = make_client(options)
        assert api.request("GET", "/x").read() == b"hi"
        api.close()


class Spout:
    """A socket whose other side sends this, and then one thing again and again, but not for ever."""

    def __init__(self, first: bytes, more: bytes, times: int) -> None:
        self.pieces = iter([first, *[more] * times])

    def recv(self, _size: int) -> bytes:
        return next(self.pieces, b"")

    def close(self) -> None:
        pass


HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("first", "more"),
    [
        (HEAD + b"Content-Length: abc\r\n\r\n", b""),
        (HEAD + b"Content-Length: -5\r\n\r\n[]", b""),
        (HEAD + b"Content-Length: 1_0\r\n\r\n", b"          "),
        (b"HTTP/1.1 " + b"9" * 5000 + b" OK\r\n\r\n", b""),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n-5\r\n", b"[1,2,3]"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"0" * 65536),
        (b"SSH-2.0 ", b"x" * 65536),
        (HEAD, b"A: b%b\r\n" % (b"c" * 1000) * 60),
        (HEAD + b"Content-Length: 4\r\n\r\nabcd", b""),
    ],
    ids=["no number", "negative", "underscore", "status", "negative chunk", "long chunk head", "no end", "no end of the head", "no JSON"],
)
def test_what_is_no_answer_is_refused_soon(first: bytes, more: bytes) -> None:
    spout = Spout(first, more, 1000)
    connection = Connection(cast("socket.socket", spout))
    with pytest.raises(CliError):
        Response(connection).json()
    assert next(spout.pieces, b"") == more
    assert len(connection.buffer) < 4 << 20


def test_quoting_of_paths_and_queries() -> None:
    assert quote("a b/ü%", safe="/") == "a%20b/%C3%BC%25"
    assert encode_query({"b": "x y&z", "a": ["1", "2"], "c": False}) == "a=1&a=2&b=x+y%26z&c=0"


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["foo"], "sampan: unknown command: sampan foo\n\nRun 'sampan --help' for more information\n", 1),
        (["container", "foo"], None, 1),
        (["-x"], None, 125),
        (["-H", "a", "-H", "b", "stop", "x"], "Failed to initialize: unable to resolve docker endpoint: Specify only one -H\n", 1),
        (
            ["-H", "foo://x", "stop", "x"],
            "Failed to initialize: unable to resolve docker endpoint: invalid bind address format: foo://x\n",
            1,
        ),
        (["-c", "nope", "stop", "x"], None, 1),
        (["--log-level", "foo", "ps"], "Unable to parse logging level: foo\n", 1),
        (["rename", "a"], None, 1),
    ],
)
def test_refusals_of_the_program(words: list[str], message: str | None, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    err = capsys.readouterr().err
    assert err
    assert message is None or err == message
