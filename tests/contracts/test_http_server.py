"""The HTTP contract on a unix socket, on TCP and over TLS."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from sampan.api.app import App
from sampan.api.server import tcp_listener, tls_context, unix_listener
from sampan.cli.tlssocket import TlsSocket
from sampan.testing.fake_engine import fake_engine
from sampan.testing.serving import serving
from tests.contracts.http_server import HttpServerContract


class TestUnix(HttpServerContract):
    @pytest.fixture(autouse=True)
    def _server(self, tmp_path: Path) -> Iterator[None]:
        self.path = str(tmp_path / "s")
        with serving(lambda: App(fake_engine().services).resolve, [(unix_listener(self.path), None)]):
            yield

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(self.path)
        return sock


class TestTcp(HttpServerContract):
    @pytest.fixture(autouse=True)
    def _server(self) -> Iterator[None]:
        listener = tcp_listener("127.0.0.1", 0)
        self.address = listener.getsockname()
        with serving(lambda: App(fake_engine().services).resolve, [(listener, None)]):
            yield

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address)


@pytest.fixture(scope="module")
def tls_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = str(folder / "key.pem"), str(folder / "cert.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost"],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    return cert, key


class TlsClient(TlsSocket):
    """What the contract asks of a socket besides."""

    def __init__(self, address: tuple[str, int]) -> None:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self._plain = socket.create_connection(address)
        super().__init__(self._plain, context, "localhost")

    def settimeout(self, seconds: float) -> None:
        self._plain.settimeout(seconds)

    def __enter__(self) -> "TlsClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class TestTls(HttpServerContract):
    @pytest.fixture(autouse=True)
    def _server(self, tls_pair: tuple[str, str]) -> Iterator[None]:
        listener = tcp_listener("127.0.0.1", 0)
        self.address = listener.getsockname()
        with serving(lambda: App(fake_engine().services).resolve, [(listener, tls_context(*tls_pair, None, verify=False))]):
            yield

    def connect(self) -> socket.socket:
        return cast("socket.socket", TlsClient(self.address))
