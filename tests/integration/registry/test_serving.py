"""`sampan registry serve` as a program: TLS, logins, logs, metrics, and its end."""

import asyncio
import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.registry import serving
from sampan.registry.config import Config, TlsConfig
from tests.support.certificates import Authority
from tests.support.registryprogram import SAMPAN, RegistryProgram
from tests.support.registryserver import EMPTY, Client, digest_of


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryProgram]:
    """With a user, whose password is `secret`, and everybody may pull."""
    directory = tmp_path_factory.mktemp("program")
    line = subprocess.run([SAMPAN, "registry", "passwd", "alice"], input="secret\n", capture_output=True, text=True, check=True, timeout=20)
    (directory / "htpasswd").write_text(line.stdout)
    settings = {"auth": {"htpasswd": str(directory / "htpasswd"), "anonymous-pull": True}, "metrics-listen": "127.0.0.1:0"}
    program = RegistryProgram(directory, settings=settings)
    yield program
    program.close()


def credentials(name: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_a_login_with_a_token_and_what_the_log_says(running: RegistryProgram) -> None:
    client = Client(running.host)
    challenge = client("GET", "/v2/")
    assert challenge.status == 401
    assert challenge.headers["WWW-Authenticate"] == f'Bearer realm="http://{running.host}/token",service="{running.host}"'
    assert client("POST", "team/app/blobs/uploads/").status == 401
    assert client("POST", "team/app/blobs/uploads/", None, credentials("alice", "wr0ng")).status == 401
    token = client("GET", "/token", None, credentials("alice", "secret"), scope="repository:team/app:pull,push").json["token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert client("GET", "/v2/", None, bearer).status == 200
    location = client("POST", "team/app/blobs/uploads/", None, bearer).headers["Location"]
    assert client("PUT", location, b"{}", bearer, digest=digest_of(b"{}")).status == 201
    assert client("GET", f"team/app/blobs/{digest_of(b'{}')}").body == b"{}"  # anonymous
    client.close()
    path = f"/v2/team/app/blobs/{digest_of(b'{}')}"
    last = running.accesses_until(lambda entries: (entries[-1]["method"], entries[-1]["path"]) == ("GET", path))[-1]
    assert (last["method"], last["status"], last["sent"], last["remote"]) == ("GET", 200, 2, "127.0.0.1")
    assert {entry["user"] for entry in running.accesses()} == {"", "alice"}
    everything = running.access_log.read_text() + "".join(running.said)
    for secret in ("secret", "wr0ng", token, base64.b64encode(b"alice:secret").decode()):
        assert secret not in everything


@pytest.mark.parametrize(
    "line",
    [
        b"Authorization: Basic %s\0",
        b"Authorization : Basic %s",
        b"Authorization: Basic %s" + b"x" * 33_000,
        b"Authorization\xff: Basic %s",
        b"Authorization Basic %s",
    ],
    ids=["a NUL", "a blank before the colon", "too long", "a name that is none", "no colon"],
)
def test_a_request_that_cannot_be_read_is_neither_logged_nor_sent_back(running: RegistryProgram, line: bytes) -> None:
    secret = base64.b64encode(b"alice:secret")
    with socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection:
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + line.replace(b"%s", secret) + b"\r\n\r\n")
        answer = b""
        with contextlib.suppress(ConnectionResetError):  # what of the request it did not read
            while piece := connection.recv(65536):
                answer += piece
    assert answer.split(b" ", 2)[1] == b"400"
    assert secret not in answer
    running.wait_for("bad request from 127.0.0.1")
    assert "Traceback" not in "".join(running.said)
    assert secret.decode() not in "".join(running.said)


def test_metrics_and_health(running: RegistryProgram) -> None:
    client = Client(running.metrics_host)
    text = client("GET", "/metrics").body.decode()
    assert "# TYPE sampan_registry_request_seconds histogram\n" in text
    assert "# TYPE sampan_registry_failed_logins counter\n" in text
    assert "# TYPE sampan_registry_uploads gauge\n" in text
    assert client("GET", "/healthz").body == b"ok\n"
    assert client("GET", "/v2/").status == 404  # the registry itself is elsewhere
    client.close()
    client = Client(running.host)
    assert (client("GET", "/readyz").status, client("GET", "/metrics").status) == (200, 404)
    client.close()


def test_what_systemd_is_told_and_tells(tmp_path: Path) -> None:
    """Type=notify: the main process says that it serves. ExecReload: it goes on, also where there is no certificate to read again."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(20)
        manager.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        manager.bind(str(tmp_path / "notify"))
        program = RegistryProgram(tmp_path, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        said, ancillary, _, _ = manager.recvmsg(100, 100)
        sender, *_ = struct.unpack("iii", next(data for _, kind, data in ancillary if kind == socket.SCM_CREDENTIALS))
    assert (said, sender) == (b"READY=1", program.process.pid)
    program.process.send_signal(signal.SIGHUP)
    client = Client(program.host)
    assert client("GET", "/v2/").status == 200
    client.close()
    assert program.end() == 0


def test_a_directory_has_one_registry(running: RegistryProgram) -> None:
    flags = ["--root", str(running.root), "--listen", "127.0.0.1:0"]
    second = subprocess.run([SAMPAN, "registry", "serve", *flags], capture_output=True, text=True, timeout=20, check=False)
    assert second.returncode == 1
    assert second.stderr == f"sampan registry serve: {running.root} belongs to another registry that is running\n"


def test_what_is_under_way_ends_before_it_stops(tmp_path: Path) -> None:
    program = RegistryProgram(tmp_path)
    client = Client(program.host)
    location = client.begin("team/app")
    idle = Client(program.host)
    assert idle("GET", "/v2/").status == 200
    connection = http.client.HTTPConnection(program.host, timeout=20)
    connection.putrequest("PUT", f"{location}?digest={digest_of(b'0123456789')}")
    connection.putheader("Content-Length", "10")
    connection.putheader("Expect", "100-continue")
    connection.endheaders()
    assert connection.sock.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
    connection.send(b"01234")
    client.close()
    program.process.terminate()
    program.wait_for("draining")
    connection.send(b"56789")
    reply = connection.getresponse()
    assert (reply.status, reply.read()) == (201, b"")
    connection.close()
    assert program.wait() == 0
    idle.close()
    again = RegistryProgram(tmp_path)
    client = Client(again.host)
    assert client("GET", f"team/app/blobs/{digest_of(b'0123456789')}").body == b"0123456789"
    client.close()
    assert again.end() == 0


def until_not_ready(host: str) -> None:
    """Ask until the answer is 503."""
    deadline = time.monotonic() + 20
    while True:
        client = Client(host)
        status = client("GET", "/readyz").status
        client.close()
        if status == 503:
            return
        assert time.monotonic() < deadline


def test_before_it_stops_it_is_not_ready(tmp_path: Path) -> None:
    program = RegistryProgram(tmp_path, settings={"unready-seconds": 600})
    try:
        program.process.terminate()
        until_not_ready(program.host)
        client = Client(program.host)
        assert client("GET", "/v2/").status == 200
        client.close()
        program.process.terminate()
        assert program.wait() == 130
    finally:
        program.close()


def test_it_is_not_ready_while_it_drains(tmp_path: Path) -> None:
    program = RegistryProgram(tmp_path, settings={"metrics-listen": "127.0.0.1:0"})
    client = Client(program.host)
    location = client.begin("team/app")
    client.close()
    with socket.create_connection(("127.0.0.1", program.port), timeout=20) as connection:
        head = f"PATCH {location} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        program.process.terminate()
        program.wait_for("draining")
        until_not_ready(program.metrics_host)
        connection.sendall(b"{}")
        assert connection.recv(1000).startswith(b"HTTP/1.1 202 ")
    assert program.wait() == 0


def test_an_upload_goes_on_after_kill_9(tmp_path: Path) -> None:
    program = RegistryProgram(tmp_path)
    client = Client(program.host)
    location = client("PATCH", client.begin("team/app"), b"01234").headers["Location"]
    program.close()
    client.close()
    program = RegistryProgram(tmp_path)
    client = Client(program.host)
    assert client("GET", location).headers["Range"] == "0-4"
    assert client("PATCH", location, b"56789", {"Content-Range": "5-9"}).status == 202
    assert client("PUT", location, digest=digest_of(b"0123456789")).status == 201
    client.close()
    assert program.end() == 0


def test_a_changed_certificate_is_read_without_being_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "LOOK_SECONDS", 0.01)
    authority = Authority(tmp_path / "ca")
    used = (tmp_path / "cert.pem", tmp_path / "key.pem")

    def put(name: str) -> str:
        """Its certificate."""
        for source, target in zip(authority.issue(name, "127.0.0.1"), used, strict=True):
            target.write_bytes(source.read_bytes())
        return used[0].read_text()

    async def whole() -> None:
        tls = TlsConfig(str(used[0]), str(used[1]))
        registry = serving.Registry(Config(listen=("127.0.0.1:0",), root=str(tmp_path / "data"), tls=tls, access_log="off"))
        try:
            await registry.start()
            assert await asyncio.to_thread(ssl.get_server_certificate, registry.addresses[0], timeout=20) == first
            second = put("second")
            while await asyncio.to_thread(ssl.get_server_certificate, registry.addresses[0], timeout=20) != second:
                pass
        finally:
            await registry.stop()

    first = put("first")
    asyncio.run(asyncio.wait_for(whole(), 20))


def test_tls_and_a_renewed_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    certificate, key = authority.issue("first", "127.0.0.1")
    used = (tmp_path / "cert.pem", tmp_path / "key.pem")
    for source, target in zip((certificate, key), used, strict=True):
        target.write_bytes(source.read_bytes())
    program = RegistryProgram(tmp_path / "r", "--tls-certificate", str(used[0]), "--tls-key", str(used[1]))
    context = ssl.create_default_context(cafile=str(authority.certificate))

    def name() -> str:
        connection = http.client.HTTPSConnection(program.host, timeout=20, context=context)
        connection.request("GET", "/v2/")
        found = connection.sock.getpeercert()
        assert connection.getresponse().read() == b"{}"
        connection.close()
        return str(dict(part[0] for part in found["subject"])["commonName"])

    try:
        assert name() == "first"
        for source, target in zip(authority.issue("second", "127.0.0.1"), used, strict=True):
            target.write_bytes(source.read_bytes())
        program.process.send_signal(1)  # SIGHUP; without it, a few seconds later
        program.wait_for("the certificate has been read again")
        assert name() == "second"
        used[1].write_text("no key")
        program.process.send_signal(1)
        program.wait_for("the certificate stays the old one")
        assert name() == "second"
        big = bytes(range(256)) * 4000
        connection = http.client.HTTPSConnection(program.host, timeout=20, context=context)
        connection.request("POST", f"/v2/a/blobs/uploads/?digest={digest_of(big)}", big)
        reply = connection.getresponse()
        assert (reply.status, reply.read()) == (201, b"")
        connection.request("GET", f"/v2/a/blobs/{digest_of(big)}")
        assert connection.getresponse().read() == big
        connection.close()
    finally:
        program.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_clients_with_certificates_and_another_authority_of_theirs(tmp_path: Path, version: ssl.TLSVersion) -> None:
    server, first, second = (Authority(tmp_path / name) for name in ("server", "first", "second"))
    authority = tmp_path / "clients.pem"
    authority.write_bytes(first.certificate.read_bytes())
    certificate, key = server.issue("registry", "127.0.0.1")
    tls = {"certificate": str(certificate), "key": str(key), "client-ca": str(authority)}
    program = RegistryProgram(tmp_path / "r", settings={"tls": tls})
    contexts = []
    for whose in (first, second):
        context = ssl.create_default_context(cafile=str(server.certificate))
        context.minimum_version = context.maximum_version = version
        context.load_cert_chain(*whose.issue("client", "client.example"))
        contexts.append(context)

    def welcome() -> list[bool]:
        found = []
        for context in (*contexts, ssl.create_default_context(cafile=str(server.certificate))):
            connection = http.client.HTTPSConnection(program.host, timeout=20, context=context)
            try:
                connection.request("GET", "/v2/")
                found.append(connection.getresponse().status == 200)
            except (ssl.SSLError, ConnectionError):
                found.append(False)
            connection.close()
        return found

    try:
        assert welcome() == [True, False, False]
        authority.write_bytes(second.certificate.read_bytes())
        program.process.send_signal(1)
        program.wait_for("the certificate has been read again")
        assert welcome() == [False, True, False]
    finally:
        program.close()


def test_a_session_of_tls_1_2_does_not_outlive_its_authority(tmp_path: Path) -> None:
    server, first, second = (Authority(tmp_path / name) for name in ("server", "first", "second"))
    authority = tmp_path / "clients.pem"
    authority.write_bytes(first.certificate.read_bytes())
    certificate, key = server.issue("registry", "127.0.0.1")
    program = RegistryProgram(
        tmp_path / "r", settings={"tls": {"certificate": str(certificate), "key": str(key), "client-ca": str(authority)}}
    )
    context = ssl.create_default_context(cafile=str(server.certificate))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*first.issue("client", "client.example"))

    def connect(session: ssl.SSLSession | None = None) -> ssl.SSLSession | None:
        with (
            socket.create_connection(("127.0.0.1", program.port), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as connection,
        ):
            connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
            return connection.session

    try:
        session = connect(connect())
        authority.write_bytes(second.certificate.read_bytes())
        program.process.send_signal(1)
        program.wait_for("the certificate has been read again")
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            connect(session)
    finally:
        program.close()


def test_a_root_that_is_made_is_nobody_elses(tmp_path: Path) -> None:
    for own in (False, True):
        directory = tmp_path / str(own)
        if own:
            (directory / "data").mkdir(mode=0o755, parents=True)
        program = RegistryProgram(directory)
        program.close()
        assert program.root.stat().st_mode & 0o777 == (0o755 if own else 0o700)


def test_settings_that_are_wrong() -> None:
    for flags, message in ((["--listen", "x"], "invalid address"), (["--tls-key", "x"], "missing required field `certificate`")):
        done = subprocess.run([SAMPAN, "registry", "serve", *flags], capture_output=True, text=True, timeout=20, check=False)
        assert (done.returncode, done.stdout) == (1, "")
        assert message in done.stderr


def test_whom_a_proxy_speaks_for(tmp_path: Path, running: RegistryProgram) -> None:
    headers = {"X-Forwarded-For": "192.0.2.9, 198.51.100.7", "X-Forwarded-Proto": "https"}
    (tmp_path / "htpasswd").touch()
    settings = {"auth": {"htpasswd": str(tmp_path / "htpasswd"), "token": True}}
    trusting = RegistryProgram(tmp_path, settings={**settings, "trusted-proxies": ["127.0.0.1"]})
    for program, remote, scheme in ((trusting, "198.51.100.7", "https"), (running, "127.0.0.1", "http")):
        client = Client(program.host)
        challenge = client("GET", "/v2/", None, {**headers, "User-Agent": "proxied"}).headers["WWW-Authenticate"]
        assert f'realm="{scheme}://{program.host}/token"' in challenge
        client.close()
        entries = program.accesses_until(lambda entries: any(entry["agent"] == "proxied" for entry in entries))
        assert [entry["remote"] for entry in entries if entry["agent"] == "proxied"] == [remote]
    assert trusting.end() == 0


def test_a_header_of_the_client_s_before_the_proxy_s_own(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """haproxy leaves what came and adds its own line below: else whoever guesses passwords has a new address each time."""
    program = RegistryProgram(tmp_path, settings={"trusted-proxies": ["127.0.0.1"]})
    request.addfinalizer(program.close)
    with socket.create_connection(("127.0.0.1", program.port), timeout=20) as connection:
        made_up, own = b"X-Forwarded-For: 192.0.2.9\r\n", b"X-Forwarded-For: 198.51.100.7\r\n"
        connection.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n" + made_up + own + b"Connection: close\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 ")
    assert program.end() == 0
    assert [entry["remote"] for entry in program.accesses()] == ["198.51.100.7"]


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    program = RegistryProgram(tmp_path, log=Path("/dev/full"))
    request.addfinalizer(program.close)
    client = Client(program.host)
    for _ in range(3):
        assert client("GET", "/v2/").status == 200
    client.close()
    program.process.terminate()
    program.wait_for("draining")
    assert program.wait() == 0
    assert sum("the access log cannot be written" in line for line in program.said) == 1
    assert "Traceback" not in "".join(program.said)


def test_a_client_that_reads_nothing_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "SILENCE_SECONDS", 0.3)
    big = os.urandom(16 << 20)

    def pull_nothing(port: int, ended: Callable[[], bool]) -> None:
        client = Client(f"127.0.0.1:{port}")
        digest = client.push_blob("team/app", big)
        client.close()
        with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
            connection.sendall(f"GET /v2/team/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            deadline = time.monotonic() + 20
            while not ended():
                assert time.monotonic() < deadline
                time.sleep(0.01)

    async def whole() -> None:
        registry = serving.Registry(Config(listen=("127.0.0.1:0",), root=str(tmp_path / "data"), access_log="off"))
        try:
            await registry.start()
            assert registry._app is not None
            metrics = registry._app._metrics
            gone = 'sampan_registry_requests_total{route="blob",method="GET",status="499"} 1'
            await asyncio.to_thread(pull_nothing, registry.addresses[0][1], lambda: gone in metrics.text())
        finally:
            await registry.stop()

    asyncio.run(asyncio.wait_for(whole(), 40))


def test_a_proxy_that_is_trusted_on_a_listener_of_both_families(tmp_path: Path) -> None:
    program = RegistryProgram(tmp_path, settings={"listen": [":0"], "trusted-proxies": ["127.0.0.1"]})
    for headers in ({"X-Forwarded-For": "198.51.100.7"}, {}):
        client = Client(f"127.0.0.1:{program.port}")
        assert client("GET", "/v2/", None, headers).status == 200
        client.close()
    assert program.end() == 0
    assert [entry["remote"] for entry in program.accesses()] == ["198.51.100.7", "127.0.0.1"]


def test_the_log_as_text(tmp_path: Path) -> None:
    program = RegistryProgram(tmp_path, environment={"SAMPAN_REGISTRY_ACCESS_LOG": "text"})
    client = Client(program.host)
    client("GET", "/v2/", None, {"User-Agent": 'x"\ny'.replace("\n", "\t")})
    client.close()
    assert program.end() == 0
    words = program.access_log.read_text().split(" ", 1)[1]
    assert words.startswith('127.0.0.1 - "GET /v2/" 200 0 2 ')
    with pytest.raises(json.JSONDecodeError):
        json.loads(words)


def test_gc_beside_the_running_registry_and_without_it(tmp_path: Path) -> None:
    program = RegistryProgram(tmp_path, settings={"gc": {"grace-seconds": 0}, "retention": [{"keep-last": 1}]})

    def collect(*flags: str) -> str:
        command = [SAMPAN, "registry", "gc", "--config", str(tmp_path / "registry.json"), *flags]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout

    client = Client(program.host)
    for tag in ("1", "2", "3"):
        client.push_image("team/app", tag)
    gone = client("GET", "team/app/manifests/3").headers["Docker-Content-Digest"]
    lines = collect("--dry-run").splitlines()
    assert lines == ["team/app: tag 1", "team/app: tag 2", "Would remove 0 blobs, 0 bytes"]
    assert collect().splitlines() == ["team/app: tag 1", "team/app: tag 2", "Removed 0 blobs, 0 bytes"]
    assert client("GET", "team/app/tags/list").json["tags"] == ["3"]
    assert client("DELETE", f"team/app/manifests/{gone}").status == 202
    client.close()
    assert program.end() == 0
    assert json.loads(collect("--json", "--dry-run"))["dry_run"]


def test_verify_beside_the_running_registry_and_without_it(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    program = RegistryProgram(tmp_path)
    request.addfinalizer(program.close)

    def verify(*flags: str) -> tuple[int, str]:
        command = [SAMPAN, "registry", "verify", "--config", str(tmp_path / "registry.json"), *flags]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        return done.returncode, done.stdout + done.stderr

    client = Client(program.host)
    manifest = client.push_image("team/app", "1")
    upload = client.begin("team/app")
    code, said = verify()
    assert code == 0
    assert re.fullmatch(r"Verified 3 blobs, \d+ bytes: no problems\n", said)
    digest = digest_of(manifest)
    encoded = digest.partition(":")[2]
    (program.root / f"docker/registry/v2/blobs/sha256/{encoded[:2]}/{encoded}/data").write_bytes(manifest + b"\n")
    code, said = verify("--json")
    assert (code, [problem["what"] for problem in json.loads(said)["problems"]]) == (1, [digest])
    assert client("PUT", upload, EMPTY, digest=digest_of(EMPTY)).status == 201  # what is under way stays
    client.close()
    assert program.end() == 0
    code, said = verify()
    assert (code, said.splitlines()[0]) == (1, f"{digest}: the content is {digest_of(manifest + bytes([10]))}, {len(manifest) + 1} bytes")
    shutil.rmtree(program.root)
    assert verify() == (2, f"sampan registry verify: {program.root}: no such directory\n")


def test_a_path_cannot_write_a_line_of_the_log(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    program = RegistryProgram(tmp_path)
    request.addfinalizer(program.close)
    shutil.rmtree(program.root / "sampan/uploads")
    (program.root / "sampan/uploads").write_bytes(b"")
    connection = http.client.HTTPConnection(program.host, timeout=20)
    connection.request("POST", "/v2/team/app/blobs/uploads/")
    assert connection.getresponse().status == 500
    connection.close()
    assert program.wait_for(r"POST (\S+) failed") == "'/v2/team/app/blobs/uploads/'"
