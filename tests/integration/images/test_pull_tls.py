"""Registries with certificates of their own, and through proxies."""

import json
import select
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.integration.images.test_pull import Docker, no_images_left
from tests.integration.images.test_push import load
from tests.support.certificates import Authority
from tests.support.engine import Engine
from tests.support.faultyregistry import FaultyRegistry
from tests.support.imagetars import config
from tests.support.tars import tar

pytestmark = pytest.mark.root

__all__ = ["no_images_left"]

LAYER = tar(("f", "a", "over TLS"))


@pytest.fixture
def address(engine: Engine) -> str:
    """An address of this machine that is not loopback, where every certificate is good."""
    return engine.subnet.partition("/")[0]


@pytest.fixture
def certs_d() -> Iterator[Callable[[str, str], Path]]:
    """A function that makes a directory for a registry's certificates, below /etc/sampan or /etc/docker."""
    made: list[Path] = []

    def make(product: str, host: str) -> Path:
        path = Path("/etc") / product / "certs.d" / host
        made.extend(parent for parent in (path, *path.parents) if not parent.exists())
        path.mkdir(parents=True)
        return path

    yield make
    for path in sorted(made, key=lambda path: len(path.parts), reverse=True):
        if "certs.d" in path.parts[:-1]:
            shutil.rmtree(path)
        elif not any(path.iterdir()):
            path.rmdir()


@pytest.mark.parametrize("product", ["sampan", "docker"])
def test_an_authority_and_a_client_certificate(
    engine: Engine, docker: Docker, address: str, certs_d: Callable[[str, str], Path], product: str, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    registry = FaultyRegistry(authority.server(address, clients=True), address)
    try:
        registry.add("app", "1", config(LAYER), [LAYER])
        name = f"{registry.host}/app:1"
        unknown = docker("pull", name)
        assert (unknown.returncode, "tls: failed to verify certificate" in unknown.stderr) == (1, True), unknown.stderr
        directory = certs_d(product, registry.host)
        shutil.copy(authority.certificate, directory / "ca.crt")
        nobody = docker("pull", name)
        assert nobody.returncode == 1
        certificate, key = authority.issue("client", "127.0.0.1")
        shutil.copy(certificate, directory / "client.cert")
        alone = docker("pull", name)
        assert "missing key client.key for client certificate client.cert" in alone.stderr
        shutil.copy(key, directory / "client.key")
        assert docker("pull", name).returncode == 0
        load(engine, f"{registry.host}/mine:1", LAYER)
        assert docker("push", f"{registry.host}/mine:1").returncode == 0
    finally:
        registry.close()


def test_an_insecure_registry(make_engine: Callable[..., Engine], docker_path: str, address: str, tmp_path: Path) -> None:
    secure = FaultyRegistry(Authority(tmp_path / "ca").server(address), address)
    plain = FaultyRegistry(address=address)
    engine = make_engine("--bridge=none", f"--insecure-registry={address}/32")
    engine.start()
    try:
        for registry in (secure, plain):
            registry.add("app", "1", config(LAYER), [LAYER])
            done = engine.run_client([docker_path], "pull", f"{registry.host}/app:1")
            assert done.returncode == 0, done.stderr
    finally:
        secure.close()
        plain.close()


class Proxy:
    """An HTTP proxy that passes GET on, and counts."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                proxy.seen.append(self.path)
                if not self.path.startswith("http://registry.example/"):
                    self.send_error(502)
                    return
                with urlopen(self.path.replace("registry.example", proxy.target), timeout=20) as answer:
                    body = answer.read()
                    self.send_response(answer.status)
                    self.send_header("Content-Type", answer.headers["Content-Type"])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_CONNECT(self) -> None:
                proxy.seen.append(self.path)
                proxy.passwords.add(self.headers.get("Proxy-Authorization", ""))
                host, _, port = self.path.rpartition(":")
                with socket.create_connection((host, int(port)), 20) as there:
                    self.send_response(200)
                    self.end_headers()
                    ends = {self.connection: there, there: self.connection}
                    while True:
                        for ready in select.select(list(ends), [], [], 20)[0]:
                            data = ready.recv(65536)
                            if not data:
                                self.close_connection = True
                                return
                            ends[ready].sendall(data)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.target = ""
        self.passwords: set[str] = set()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join(10)


def test_a_proxy_from_the_configuration(make_engine: Callable[..., Engine], docker_path: str) -> None:
    proxy, registry = Proxy(), FaultyRegistry()
    proxy.target = registry.host
    registry.add("app", "1", config(LAYER), [LAYER])
    engine = make_engine("--bridge=none", "--insecure-registry=registry.example")
    (engine.root / "daemon.json").write_text(json.dumps({"proxies": {"http-proxy": proxy.url, "https-proxy": proxy.url}}))
    engine.start()
    try:
        done = engine.run_client([docker_path], "pull", "registry.example/app:1")
        assert done.returncode == 0, done.stderr
        assert "http://registry.example/v2/app/manifests/1" in proxy.seen
        seen = len(proxy.seen)
        assert engine.run_client([docker_path], "pull", f"{registry.host}/app:1").returncode == 0, "loopback goes directly"
        assert len(proxy.seen) == seen
    finally:
        proxy.close()
        registry.close()


def test_tls_through_a_proxy_with_a_password(
    make_engine: Callable[..., Engine], docker_path: str, address: str, certs_d: Callable[[str, str], Path], tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ca")
    proxy, registry = Proxy(), FaultyRegistry(authority.server(address), address)
    registry.add("app", "1", config(LAYER), [LAYER])
    shutil.copy(authority.certificate, certs_d("sampan", registry.host) / "ca.crt")
    engine = make_engine("--bridge=none")
    (engine.root / "daemon.json").write_text(json.dumps({"proxies": {"https-proxy": proxy.url.replace("://", "://user:pass@")}}))
    engine.start()
    try:
        done = engine.run_client([docker_path], "pull", f"{registry.host}/app:1")
        assert done.returncode == 0, done.stderr
        assert set(proxy.seen) == {registry.host}
        assert proxy.passwords == {"Basic dXNlcjpwYXNz"}
        assert "https://xxxxx:xxxxx@" in engine.run_client([docker_path], "info").stdout.replace("http://", "https://")
        proxy.close()
        gone = engine.run_client([docker_path], "pull", f"{registry.host}/app:2")
        assert "proxyconnect tcp: dial tcp 127.0.0.1:" in gone.stderr
        assert "pass" not in gone.stderr
    finally:
        registry.close()
