"""What any HTTP server under the API must do with hijacked connections and streams.

The six cases: {the client sends after the 101, the client sends with the request} x {half-close before the answer, half-close after, none}.
A subclass gives `connect()`; the server behind it is the fake engine, whose processes echo their stdin.
"""

import json
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator

import pytest

ATTACH = "POST /v1.51/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\nHost: docker\r\n{extra}\r\n"
UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"


def read_head(sock: socket.socket) -> tuple[str, dict[str, str], bytes]:
    """(status line, headers, bytes after the head)."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        assert piece, f"connection ended in the head: {data!r}"
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    return lines[0], {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines[1:]}, rest


def read_all(sock: socket.socket, data: bytes = b"") -> bytes:
    """Everything up to EOF."""
    pieces = [data]
    while piece := sock.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def payload_of(frames: bytes) -> bytes:
    """The payload of multiplexed frames, which must be whole."""
    place, parts = 0, []
    while place < len(frames):
        assert frames[place] == 1
        size = int.from_bytes(frames[place + 4 : place + 8], "big")
        parts.append(frames[place + 8 : place + 8 + size])
        assert len(parts[-1]) == size
        place += 8 + size
    return b"".join(parts)


class HttpServerContract:
    """The suite."""

    def connect(self) -> socket.socket:
        """A new connection to the server."""
        raise NotImplementedError

    @pytest.fixture
    def sock(self) -> Iterator[socket.socket]:
        with self.connect() as sock:
            sock.settimeout(20)
            yield sock

    def call(self, sock: socket.socket, method: str, path: str, body: object = None) -> tuple[int, dict[str, str], bytes]:
        """One ordinary request on a connection that stays open."""
        data = b"" if body is None else json.dumps(body).encode()
        kind = "" if body is None else "Content-Type: application/json\r\n"
        sock.sendall(f"{method} {path} HTTP/1.1\r\nHost: docker\r\n{kind}Content-Length: {len(data)}\r\n\r\n".encode() + data)
        status, headers, rest = read_head(sock)
        while len(rest) < int(headers.get("content-length", "0")):
            rest += sock.recv(65536)
        return int(status.split()[1]), headers, rest

    def create(self, sock: socket.socket, *, tty: bool = False) -> str:
        """A started container."""
        name = f"c{time.monotonic_ns()}"
        status, _, body = self.call(sock, "POST", f"/containers/create?name={name}", {"Image": "busybox", "Tty": tty, "OpenStdin": True})
        assert status == 201, body
        container_id: str = json.loads(body)["Id"]
        assert self.call(sock, "POST", f"/containers/{container_id}/start")[0] == 204
        return container_id

    @pytest.mark.parametrize("early", [False, True], ids=["after-101", "with-request"])
    @pytest.mark.parametrize("close", ["before-answer", "after-answer", "never"])
    def test_hijack(self, sock: socket.socket, early: bool, close: str) -> None:
        container = self.create(sock)
        request = ATTACH.format(id=container, extra=UPGRADE).encode()
        sock.sendall(request + (b"early hello" if early else b""))
        if close == "before-answer" and early:
            sock.shutdown(socket.SHUT_WR)
        status, headers, rest = read_head(sock)
        assert status == "HTTP/1.1 101 UPGRADED"
        assert headers["content-type"] == "application/vnd.docker.multiplexed-stream"
        assert headers["connection"] == "Upgrade"
        assert headers["upgrade"] == "tcp"
        if not early:
            sock.sendall(b"late  hello")
            if close == "before-answer":
                sock.shutdown(socket.SHUT_WR)
        while len(rest) < 19:
            rest += sock.recv(100)
        if close == "after-answer":
            sock.shutdown(socket.SHUT_WR)
        if close != "never":
            rest = read_all(sock, rest)
        assert payload_of(rest) == (b"early hello" if early else b"late  hello")

    def test_hijack_without_upgrade_header(self, sock: socket.socket) -> None:
        container = self.create(sock, tty=True)
        sock.sendall(ATTACH.format(id=container, extra="").encode() + b"GET / HTTP/1.1\r\n\r\n")
        status, headers, rest = read_head(sock)
        assert status == "HTTP/1.1 200 OK"
        assert headers == {"content-type": "application/vnd.docker.raw-stream"}
        while len(rest) < 18:
            rest += sock.recv(100)
        assert rest == b"GET / HTTP/1.1\r\n\r\n"

    @pytest.mark.parametrize("version", ["1.41", "1.42"])
    def test_content_type_by_version(self, sock: socket.socket, version: str) -> None:
        container = self.create(sock)
        sock.sendall(ATTACH.format(id=container, extra=UPGRADE).replace("1.51", version).encode())
        kind = "multiplexed" if version == "1.42" else "raw"
        assert read_head(sock)[1]["content-type"] == f"application/vnd.docker.{kind}-stream"

    def test_big_streams_both_ways(self, sock: socket.socket) -> None:
        container = self.create(sock, tty=True)
        sock.sendall(ATTACH.format(id=container, extra=UPGRADE).encode())
        rest = read_head(sock)[2]
        block = bytes(range(256)) * 4096
        count = 24

        def feed() -> None:
            for _ in range(count):
                sock.sendall(block)
            sock.shutdown(socket.SHUT_WR)

        feeder = threading.Thread(target=feed)
        feeder.start()
        got = read_all(sock, rest)
        feeder.join(20)
        assert len(got) == count * len(block)
        assert got == block * count

    def test_exec_start_has_a_body_and_early_bytes(self, sock: socket.socket) -> None:
        container = self.create(sock)
        _, _, body = self.call(sock, "POST", f"/containers/{container}/exec", {"Cmd": ["cat"], "AttachStdin": True})
        exec_id = json.loads(body)["Id"]
        start = b'{"Detach":false,"Tty":false}'
        head = f"POST /exec/{exec_id}/start HTTP/1.1\r\nHost: d\r\n{UPGRADE}Content-Type: application/json\r\n"
        sock.sendall(f"{head}Content-Length: {len(start)}\r\n\r\n".encode() + start + b"early")
        status, headers, rest = read_head(sock)
        assert status == "HTTP/1.1 101 UPGRADED"
        assert headers["api-version"] == "1.51"
        while len(rest) < 13:
            rest += sock.recv(100)
        assert payload_of(rest) == b"early"

    def test_errors_before_hijack_are_ordinary(self, sock: socket.socket) -> None:
        sock.sendall(ATTACH.format(id="nope", extra=UPGRADE).encode())
        status, headers, rest = read_head(sock)
        assert status.split()[1] == "404"
        while len(rest) < int(headers["content-length"]):
            rest += sock.recv(100)
        assert json.loads(rest) == {"message": "No such container: nope"}

    def test_pipelining_answers_in_order(self, sock: socket.socket) -> None:
        paths = ["/_ping", "/version", "/nope", "/containers/json"] * 50
        sock.sendall(b"".join(f"GET {path} HTTP/1.1\r\nHost: d\r\n\r\n".encode() for path in paths))
        buffer = b""
        for path in paths:
            while b"\r\n\r\n" not in buffer:
                buffer += sock.recv(65536)
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while len(buffer) < length:
                buffer += sock.recv(65536)
            assert head.split()[1] == (b"404" if path == "/nope" else b"200")
            buffer = buffer[length:]

    @pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
    def test_large_request_body_is_streamed(self, sock: socket.socket, chunked: bool) -> None:
        block, count = b"x" * (1 << 20), 20
        framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(block) * count}"
        sock.sendall(f"POST /images/create?fromSrc=-&repo=x HTTP/1.1\r\nHost: d\r\n{framing}\r\n\r\n".encode())
        for _ in range(count):
            sock.sendall(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
        if chunked:
            sock.sendall(b"0\r\n\r\n")
        status, headers, rest = read_head(sock)
        assert status == "HTTP/1.1 200 OK"
        assert headers["transfer-encoding"] == "chunked"
        while not rest.endswith(b"0\r\n\r\n"):
            rest += sock.recv(65536)
        assert f"{len(block) * count} bytes".encode() in rest
        assert self.call(sock, "GET", "/_ping")[2] == b"OK"

    def test_expect_continue(self, sock: socket.socket) -> None:
        sock.sendall(b"POST /images/create?fromSrc=- HTTP/1.1\r\nHost: d\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"abc")
        assert read_head(sock)[0] == "HTTP/1.1 200 OK"

    def test_refused_body_is_not_taken_for_a_request(self, sock: socket.socket) -> None:
        body = b"GET /_ping HTTP/1.1\r\n\r\n" * 1000
        sock.sendall(f"POST /build/cancel HTTP/1.1\r\nHost: d\r\nContent-Length: {len(body) * 2}\r\n\r\n".encode() + body)
        status, headers, rest = read_head(sock)
        assert status.split()[1] == "501"
        assert headers["connection"] == "close"
        assert b"HTTP/1.1" not in read_all(sock, rest)

    @pytest.mark.parametrize(
        "request_bytes",
        [
            b"NONSENSE\r\n\r\n",
            b"GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            b"POST / HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc",
            b"POST / HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            b"GET / HTTP/1.1\r\nA b: c\r\n\r\n",
            b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        ],
    )
    def test_malformed_requests_end_the_connection(self, sock: socket.socket, request_bytes: bytes) -> None:
        sock.sendall(request_bytes + b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        answer = read_all(sock)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert answer.count(b"HTTP/1.1") == 1

    def test_bad_chunk_ends_the_connection(self, sock: socket.socket) -> None:
        sock.sendall(b"POST /images/create?fromSrc=- HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc")
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")

    def test_endless_head_is_refused(self, sock: socket.socket) -> None:
        sock.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000)
        assert read_all(sock).startswith(b"HTTP/1.1 431 ")

    def test_http_10_gets_no_chunks(self, sock: socket.socket) -> None:
        sock.sendall(b"POST /images/create?fromSrc=- HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc")
        status, headers, rest = read_head(sock)
        assert status.endswith("200 OK")
        assert "transfer-encoding" not in headers
        assert json.loads(read_all(sock, rest)) == {"status": "3 bytes"}

    def test_wait_sends_its_head_at_once(self, sock: socket.socket) -> None:
        container = self.create(sock)
        with self.connect() as other:
            other.settimeout(20)
            other.sendall(f"POST /containers/{container}/wait?condition=next-exit HTTP/1.1\r\nHost: d\r\n\r\n".encode())
            status, _, rest = read_head(other)
            assert status == "HTTP/1.1 200 OK"
            assert self.call(sock, "POST", f"/containers/{container}/kill")[0] == 204
            while not rest.endswith(b"0\r\n\r\n"):
                rest += other.recv(1000)
            assert b'{"StatusCode":0}' in rest

    def test_get_half_closed_is_answered(self, sock: socket.socket) -> None:
        sock.sendall(b"GET /version HTTP/1.1\r\nHost: d\r\n\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).startswith(b"HTTP/1.1 200 OK")

    def test_absolute_and_escaped_targets(self, sock: socket.socket) -> None:
        status, _, body = self.call(sock, "GET", "http://docker/v1.44/images/docker.io%2Flibrary%2Fnope/json")
        assert (status, json.loads(body)) == (404, {"message": "No such image: docker.io/library/nope"})
        name = urllib.parse.quote("ü/\n", safe="")
        assert self.call(sock, "GET", f"/images/{name}/json")[0] == 404
