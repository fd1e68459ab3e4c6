"""Settings: what wins over what, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import InvalidArgument
from sampan.registry import config
from sampan.registry.access.rules import Rule
from sampan.registry.config import address, load


def test_flags_over_variables_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "registry.json"
    file.write_text(json.dumps({"root": "/file", "url": "http://file", "delete": False, "tls": {"certificate": "c", "key": "file"}}))
    environment = {"SAMPAN_REGISTRY_ROOT": "/variable", "SAMPAN_REGISTRY_TLS_KEY": "variable", "SAMPAN_REGISTRY_LISTEN": ":1, [::1]:2"}
    found = load(file, environment, {"root": "/flag"})
    assert (found.root, found.url, found.delete, found.listen) == ("/flag", "http://file", False, (":1", "[::1]:2"))
    assert found.tls == config.TlsConfig("c", "variable")


def test_without_anything(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(config, "DEFAULT_FILE", tmp_path / "nothing")
    assert load(None, {}, {}) == config.Config()


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"lisen": []}, "Object contains unknown field `lisen`"),
        ({"listen": []}, "listen: there must be an address"),
        ({"listen": ["5000"]}, "invalid address '5000': it is HOST:PORT"),
        ({"listen": [":70000"]}, "invalid address ':70000': it is HOST:PORT"),
        ({"tls": {"certificate": "c"}}, "Object missing required field `key` - at `$.tls`"),
        ({"auth": {"rules": [{"actions": ["eat"]}]}}, "auth.rules: unknown action 'eat': there are catalogue, delete, pull, push"),
        ({"url": "registry.example"}, "url: it is http:// or https:// and a host, without a path"),
        ({"mirrors": {"a.example/x": {}}}, "mirrors: 'a.example/x' is no registry's name: it is HOST or HOST:PORT"),
        ({"mirrors": {"": {}}}, "mirrors: '' is no registry's name: it is HOST or HOST:PORT"),
        (
            {"mirrors": {"a.example": {"prefix": "hub"}, "b.example": {"prefix": "hub"}}},
            "mirrors: a.example and b.example are both below hub",
        ),
        (
            {"mirrors": {"a.example": {"prefix": "all/a"}, "b.example": {}, "c.example": {"prefix": "all"}}},
            "mirrors: a.example and c.example are both below all",
        ),
        ({"mirrors": {"a.example": {}, "b.example": {"prefix": "a.example"}}}, "mirrors: a.example and b.example are both below a.example"),
        ({"mirrors": {"a:5000": {}, "a-5000": {}}}, "mirrors: a:5000 and a-5000 are both below a-5000"),
        ({"access-log": "xml"}, "access-log: json, text or off"),
    ],
)
def test_refusals(tmp_path: Path, document: dict[str, Any], message: str) -> None:
    file = tmp_path / "registry.json"
    file.write_text(json.dumps(document))
    with pytest.raises(InvalidArgument) as caught:
        load(file, {}, {})
    assert caught.value.message.endswith(message)


def test_mirrors_side_by_side(tmp_path: Path) -> None:
    mirrors = {
        "docker.io": {},
        "docker.io.example": {},
        "[::1]:5000": {},
        "localhost:5000": {"prefix": "local/a"},
        "b": {"prefix": "local/b"},
    }
    (tmp_path / "f").write_text(json.dumps({"mirrors": mirrors}))
    assert list(load(tmp_path / "f", {}, {}).mirrors) == list(mirrors)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("{")
    for name in ("bad", "missing"):
        with pytest.raises(InvalidArgument, match=name):
            load(tmp_path / name, {}, {})


def test_addresses() -> None:
    assert [address(text) for text in (":5000", "127.0.0.1:0", "[::1]:80", "host:1")] == [
        ("", 5000),
        ("127.0.0.1", 0),
        ("::1", 80),
        ("host", 1),
    ]


def test_rules_by_default() -> None:
    everything = ("pull", "push", "delete", "catalogue")
    assert config.AuthConfig().all_rules() == [Rule(users=("anonymous",), actions=everything)]
    assert config.AuthConfig(htpasswd="f", anonymous_pull=True).all_rules() == [Rule(actions=everything), Rule(users=("anonymous",))]
