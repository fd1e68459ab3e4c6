"""`sampan mirror test` asks as sampand would: with its certificates, through its proxies."""

import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan import registryhosts
from sampan.cli.mirrorprobe import Probe
from tests.support.certificates import Authority
from tests.support.faultyregistry import FaultyRegistry
from tests.support.proxy import Proxy


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    for name in ("http_proxy", "https_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    proxy = Proxy()
    yield proxy
    proxy.close()


@pytest.fixture
def registry() -> Iterator[FaultyRegistry]:
    registry = FaultyRegistry()
    registry.add_manifest("team/app", "1", b"{}", "application/json")
    yield registry
    registry.close()


def asked(url: str, keys: dict[str, object]) -> Probe:
    """A probe that has run."""
    probe = Probe("docker.io", url, keys)
    probe.run("team/app", "1")
    return probe


def test_a_client_certificate_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxy: Proxy) -> None:
    authority = Authority(tmp_path / "ca")
    registry = FaultyRegistry(authority.server("127.0.0.1", clients=True))
    try:
        monkeypatch.setattr(registryhosts, "CERTS_DIRS", (tmp_path / "certs.d",))
        directory = tmp_path / "certs.d" / registry.host
        directory.mkdir(parents=True)
        url = f"https://{registry.host}/"
        assert isinstance(asked(url, {}).ping, str)
        certificate, key = authority.issue("client", "127.0.0.1")
        shutil.copy(certificate, directory / "client.cert")
        assert isinstance(asked(url, {}).ping, str), "without its key"
        shutil.copy(key, directory / "client.key")
        assert isinstance(asked(url, {}).ping, float)
    finally:
        registry.close()


@pytest.mark.parametrize("nested", [True, False])
def test_the_proxies_of_daemon_json(registry: FaultyRegistry, proxy: Proxy, nested: bool) -> None:
    proxy.target = registry.host
    keys: dict[str, object] = {"http-proxy": proxy.url}
    given: dict[str, object] = {"proxies": keys} if nested else keys
    probe = asked("http://registry.example/", given)
    assert isinstance(probe.ping, float)
    assert proxy.seen[0] == "http://registry.example/v2/"
    proxy.seen.clear()
    keys["no-proxy"] = ".org,registry.example"
    assert isinstance(asked("http://registry.example/", given).ping, str)
    assert proxy.seen == []


def test_no_proxy_of_the_environment_gives_way_to_daemon_json(
    registry: FaultyRegistry, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy.target = registry.host
    monkeypatch.setenv("NO_PROXY", "registry.example")
    keys: dict[str, object] = {"proxies": {"http-proxy": proxy.url, "no-proxy": "other.example"}}
    assert isinstance(asked("http://registry.example/", keys).ping, float)
    assert proxy.seen


def test_a_token_server_that_nests_without_end(registry: FaultyRegistry, proxy: Proxy) -> None:
    registry.login = ("user", "secret")
    deep = FaultyRegistry()
    try:
        deep.refuse = (200, {}, b"[" * 900_000)
        registry.challenge = f'Bearer realm="http://{deep.host}/deep",service="x"'
        assert asked(f"http://{registry.host}/", {}).ping == "the token server's answer cannot be read"
    finally:
        deep.close()


def test_an_answer_that_would_move_the_cursor(proxy: Proxy) -> None:
    def serve() -> None:
        with listener.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/2\x1b[1;1f\x1b]0;x\x07 200 OK\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        ping = asked(f"http://127.0.0.1:{listener.getsockname()[1]}/", {}).ping
        thread.join(10)
    assert isinstance(ping, str)
    assert ping.isprintable()
    assert r"\x1b[1;1f" in ping
