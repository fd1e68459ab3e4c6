"""The registry's web pages: what they show, that all of it is escaped, and who may see them."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sampan.spec.oci_layout import INDEX, MANIFEST
from tests.support.registryserver import EMPTY, EMPTY_TYPE, Client, RegistryThread, descriptor, digest_of, manifest_of


class Page(HTMLParser):
    """The text and the links of a page; every element that is opened must be closed."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = ""
        self.links: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "img", "iframe", "form", "object")
        assert not any(name.startswith("on") for name, _ in attrs)
        if tag not in self.VOID:
            self._open.append(tag)
        self.links += [value or "" for name, value in attrs if name == "href"]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self._open:
            self.text += " " + data.strip()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryThread]:
    server = RegistryThread.on(tmp_path_factory.mktemp("pages"))
    yield server
    server.close()


@pytest.fixture
def client(registry: RegistryThread) -> Iterator[Client]:
    client = Client(registry.host)
    yield client
    client.close()


def page(client: Client, path: str) -> Page:
    reply = client("GET", path)
    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8"), reply
    assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'")
    return Page(reply.body.decode())


def test_from_the_first_page_to_the_layers(client: Client) -> None:
    manifest = client.push_image("team/app", "1", size=12_345)
    client.push_blob("team/app", EMPTY)
    document = {
        "schemaVersion": 2, "mediaType": MANIFEST, "artifactType": "application/x.sbom", "config": descriptor(EMPTY, EMPTY_TYPE),
        "layers": [], "subject": descriptor(manifest, MANIFEST),
    }  # fmt: skip
    sbom = json.dumps(document).encode()
    client.put_manifest("team/app", digest_of(sbom), sbom)
    first = page(client, "/")
    assert "/repositories/team/app" in first.links
    tags = page(client, "/repositories/team/app")
    assert "/repositories/team/app:1" in tags.links
    assert f"docker pull 127.0.0.1:{client.port}/team/app" in tags.text
    image = page(client, "/repositories/team/app:1")
    assert digest_of(manifest) in image.text
    assert "12.3 kB" in image.text
    assert "linux/amd64" in image.text
    assert f"/repositories/team/app@{digest_of(sbom)}" in image.links
    assert "application/x.sbom" in page(client, f"/repositories/team/app@{digest_of(sbom)}").text


def test_an_index_shows_its_platforms(client: Client) -> None:
    manifest = client.push_image("team/multi", "1")
    entry = {**descriptor(manifest, MANIFEST), "platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}}
    client.put_manifest("team/multi", "all", json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}).encode(), INDEX)
    shown = page(client, "/repositories/team/multi:all")
    assert "linux/arm64/v8" in shown.text
    assert f"/repositories/team/multi@{digest_of(manifest)}" in shown.links


def test_what_others_wrote_is_text(client: Client) -> None:
    evil = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
    config = json.dumps({"architecture": evil, "os": "linux", "created": evil, "config": {"Cmd": [evil]}}).encode()
    client.push_blob("team/evil", config)
    client.put_manifest("team/evil", "1", manifest_of(config, annotations={evil: evil}, artifactType=evil))
    assert evil in page(client, "/repositories/team/evil:1").text


def test_many_tags_are_shown_page_by_page(client: Client) -> None:
    manifest = client.push_image("team/many", "0")
    client.put_manifest("team/many", f"{digest_of(manifest)}?" + "&".join(f"tag=t{number:03}" for number in range(100)), manifest)
    client.put_manifest("team/many", "u", manifest)
    first = page(client, "/repositories/team/many")
    (more,) = [link for link in first.links if "last=" in link]
    assert "/repositories/team/many:u" in page(client, more).links


def test_what_is_not_there(client: Client) -> None:
    for path in ("/repositories/team/nobody", "/repositories/team/nobody:1", "/repositories/", "/index.html"):
        assert client("GET", path).status == 404
    assert client("POST", "/").status == 405


def test_sizes() -> None:
    from sampan.registry.handlers.pages import bytes_of

    assert [bytes_of(size) for size in (0, 999, 1000, 12_345_678, 10**12)] == ["0 B", "999 B", "1.0 kB", "12.3 MB", "1.0 TB"]


def test_the_style_is_all_there_is(tmp_path: Path) -> None:
    from sampan.registry.handlers import pages

    assert not re.search(r"url\(|@import|http", pages._STYLE)


@pytest.mark.slow
def test_in_a_browser(registry: RegistryThread, client: Client, tmp_path: Path) -> None:
    """Headless Chromium shows the pages, and complains of nothing (the content security policy would refuse what is not ours)."""
    browser = shutil.which("chromium") or pytest.skip("apt install chromium")
    manifest = client.push_image("team/browsed", "1", size=12_345)

    def shown(path: str) -> str:
        done = subprocess.run(
            [
                browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}",
                "--dump-dom", f"http://{registry.host}{path}",
            ],
            capture_output=True, text=True, timeout=100, check=True,
        )  # fmt: skip
        assert "CONSOLE" not in done.stderr, done.stderr
        return Page(done.stdout).text

    assert "team/browsed" in shown("/")
    text = shown("/repositories/team/browsed:1")
    assert digest_of(manifest) in text
    assert "12.3 kB" in text
