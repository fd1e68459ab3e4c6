"""Registries with certificates of their own, and through proxies."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.certificates import Authority
from tests.support.engine import Engine
from tests.support.faultyregistry import FaultyRegistry
from tests.support.imagetars import config
from tests.support.proxy import Proxy
from tests.support.registries import Docker, load
from tests.support.tars import tar

pytestmark = [pytest.mark.root, pytest.mark.usefixtures("no_images_left")]

LAYER = tar(("f", "a", "over TLS"))


@pytest.fixture
def address(engine: Engine) -> str:
    """An address of this machine that is not loopback, where every certificate is good."""
    return engine.subnet.partition("/")[0]


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


def test_no_verification_for_once(engine: Engine, address: str, tmp_path: Path) -> None:
    secure = FaultyRegistry(Authority(tmp_path / "ca").server(address), address)
    plain = FaultyRegistry(address=address)
    try:
        for registry in (secure, plain):
            registry.add("once", "1", config(LAYER), [LAYER])
            assert engine.cli("pull", f"{registry.host}/once:1").returncode == 1
            done = engine.cli("pull", "--tls-verify=false", f"{registry.host}/once:1")
            assert done.returncode == 0, done.stderr
            assert engine.cli("pull", f"{registry.host}/once:1").returncode == 1
            assert engine.cli("push", f"{registry.host}/once:1").returncode == 1
            pushed = engine.cli("push", "--tls-verify=false", f"{registry.host}/once:1")
            assert pushed.returncode == 0, pushed.stderr
    finally:
        secure.close()
        plain.close()


def test_no_verification_of_mirrors_for_once(make_engine: Callable[..., Engine], address: str, tmp_path: Path) -> None:
    mirror = FaultyRegistry(Authority(tmp_path / "ca").server(address), address)
    engine = make_engine("--bridge=none", f"--registry-mirror=https://{mirror.host}")
    engine.start()
    try:
        mirror.add("library/once", "1", config(LAYER), [LAYER])
        done = engine.cli("pull", "--tls-verify=false", "once:1")
        assert done.returncode == 0, done.stderr
        assert mirror.total_served
    finally:
        mirror.close()


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
