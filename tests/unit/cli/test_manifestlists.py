"""Manifests of a registry that means no good, and a registry that wants a login."""

import http.server
import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from sampan.cli.flags import parse
from sampan.cli.http import CliError
from sampan.cli.main import GLOBAL_FLAGS, Context
from sampan.cli.manifestlists import ImageManifest, fetched, parse_reference
from sampan.cli.registryclient import DOCKER_MANIFEST, RegistryClient, digest_of

CONFIG = b'{"architecture":"amd64","os":"linux"}'
MANIFEST = json.dumps({"schemaVersion": 2, "config": {"digest": digest_of(CONFIG)}, "layers": []}).encode()


class Handler(http.server.BaseHTTPRequestHandler):
    """A registry behind a token server, which gives a token to one user."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """A token, a manifest or a blob."""
        url = urlsplit(self.path)
        home = f"http://{self.headers['Host']}"
        body, status, extra = b"", 200, {"Content-Type": DOCKER_MANIFEST}
        if url.path == "/token":
            known = self.headers.get("Authorization") == "Basic " + b64encode(b"me:secret").decode()
            self.server.scopes.append(parse_qs(url.query)["scope"])  # type: ignore[attr-defined]
            body = json.dumps({"token": "good" if known else "bad"}).encode()
        elif self.headers.get("Authorization") != "Bearer good":
            body, status = b'{"errors":[{"code":"UNAUTHORIZED","message":"authentication required\\u001b[2J"}]}', 401
            extra["WWW-Authenticate"] = f'Bearer realm="{home}/token",service="s",scope="repository:x:pull"'
        else:
            body = MANIFEST if "/manifests/" in url.path else CONFIG + (b" " if "spoilt" in url.path else b"")
        self.send_response(status)
        for name, value in {**extra, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Callable[[str], RegistryClient]]:
    """A function that makes a client of that registry with a password."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.scopes = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_address[1]}"

        def make(password: str) -> RegistryClient:
            auth = b64encode(f"me:{password}".encode()).decode()
            (tmp_path / "config.json").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
            from sampan.cli import connect

            connect._loaded.clear()
            return RegistryClient(Context(parse(GLOBAL_FLAGS, ["--config", str(tmp_path)])), host, insecure=True)

        yield make
        server.shutdown()


def test_a_token_is_asked_for_with_the_users_password(client: Callable[[str], RegistryClient]) -> None:
    image = fetched(client("secret"), parse_reference("127.0.0.1:1/x:1"))
    assert (image.raw, image.platform) == (MANIFEST, {"architecture": "amd64", "os": "linux"})


def test_a_refusal_is_shown_in_the_registrys_words_without_its_escapes(client: Callable[[str], RegistryClient]) -> None:
    with pytest.raises(CliError) as failed:
        fetched(client("wrong"), parse_reference("127.0.0.1:1/x:1"))
    assert failed.value.message.startswith("unauthorized: authentication required")
    assert "\x1b" not in failed.value.message


def test_other_content_than_the_digests_is_refused(client: Callable[[str], RegistryClient]) -> None:
    with pytest.raises(CliError, match="has another content"):
        fetched(client("secret"), parse_reference("127.0.0.1:1/spoilt:1"))
    with pytest.raises(CliError, match="manifest verification failed"):
        client("secret").manifest(parse_reference(f"127.0.0.1:1/x@sha256:{'0' * 64}"))


@pytest.mark.parametrize("raw", [b"[]", b"{", b"{}", b'{"config":{"digest":1}}', MANIFEST[:-1] + b',"x":"\x1b[2J"}'])
def test_what_is_no_manifest_is_refused(raw: bytes) -> None:
    with pytest.raises(CliError):
        ImageManifest("x", DOCKER_MANIFEST, raw, {})
