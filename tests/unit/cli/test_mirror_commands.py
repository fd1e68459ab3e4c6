"""`sampan mirror`: what it does to daemon.json, with no engine that runs."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.cli import daemonfile, mirrorprobe, mirrors
from sampan.cli.main import main
from sampan.cli.mirrorprobe import Probe
from sampan.daemon.options import DEFAULT_CONFIG_FILE

Run = Callable[..., tuple[int, str, str]]
TEXT = '{\n    "log-level": "debug",\n    "registry-mirrors": ["https://a.example"],\n    "labels": ["名=x"]\n}\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "etc/daemon.json"


@pytest.fixture
def mirror(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """A function that runs `sampan mirror VERB ARGS...`; status, output and errors."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/sampan.sock")

    def run(verb: str, *words: str) -> tuple[int, str, str]:
        code = main(["mirror", verb, f"--config-file={file}", *words])
        return code, *capsys.readouterr()

    return run


def given(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def test_the_file_is_sampands() -> None:
    assert daemonfile.DEFAULT_PATH == DEFAULT_CONFIG_FILE


def test_a_file_is_made_where_there_is_none(file: Path, mirror: Run) -> None:
    code, out, _ = mirror("add", "https://m.example", "http://n.example/p")
    assert (code, out.splitlines()[-1]) == (0, "sampand does not run: it reads this when it starts")
    assert json.loads(file.read_text()) == {"registry-mirrors": ["https://m.example/", "http://n.example/p/"]}
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert os.listdir(file.parent) == ["daemon.json"]


def test_other_keys_stay_in_their_order(file: Path, mirror: Run) -> None:
    given(file, TEXT)
    file.chmod(0o600)
    assert mirror("add", "https://b.example/")[0] == 0
    assert mirror("add", "--registry=ghcr.io", "https://g.example")[0] == 0
    assert mirror("add", "--first", "https://c.example/")[0] == 0
    keys = json.loads(file.read_text())
    assert list(keys) == ["log-level", "registry-mirrors", "labels", "mirrors"]
    assert keys["registry-mirrors"] == ["https://c.example/", "https://a.example", "https://b.example/"]
    assert keys["mirrors"] == {"ghcr.io": ["https://g.example/"]}
    assert '\n    "labels": [\n        "名=x"\n' in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert mirror("rm", "--registry=ghcr.io", "https://g.example/")[0] == 0
    assert mirror("rm", "https://c.example", "https://b.example", "https://a.example/")[0] == 0
    assert json.loads(file.read_text()) == {"log-level": "debug", "labels": ["名=x"]}


def test_a_link_stays_one(file: Path, mirror: Run, tmp_path: Path) -> None:
    given(tmp_path / "real/daemon.json", "{}")
    file.parent.mkdir()
    file.symlink_to(tmp_path / "real/daemon.json")
    assert mirror("add", "https://m.example")[0] == 0
    assert file.is_symlink()
    assert json.loads((tmp_path / "real/daemon.json").read_text()) == {"registry-mirrors": ["https://m.example/"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{\n "debug": true,\n}', "invalid JSON: Expecting property name enclosed in double quotes (line 3, column 1)"),
        ("[]", "invalid JSON: not an object (line 1)"),
        ('{"registry-mirrors": "https://a"}', "mirrors or registry-mirrors is not made of lists of URLs: see docs/mirrors.md"),
        ('{"mirrors": {"ghcr.io": [1]}}', "mirrors or registry-mirrors is not made of lists of URLs: see docs/mirrors.md"),
    ],
)
def test_a_file_that_cannot_be_used_is_left_as_it_is(file: Path, mirror: Run, text: str, message: str) -> None:
    given(file, text)
    for verb, words in (("add", ["https://m.example"]), ("rm", ["https://m.example"]), ("ls", [])):
        code, _, err = mirror(verb, *words)
        assert (code, err) == (1, f"{file} is left as it is: {message}\n")
    assert file.read_text() == text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m.example"], 'invalid mirror: unsupported scheme "" in "m.example"'),
        (["https://m.example?x=1"], 'invalid mirror: query or fragment at end of the URI "https://m.example?x=1"'),
        (["https://user:secret@m.example"], 'invalid mirror: username/password not allowed in URI "https://user:xxxxx@m.example"'),
        (["ftp://user:se@cret@m.example"], 'invalid mirror: unsupported scheme "ftp" in "ftp://user:xxxxx@m.example"'),
        (["https://user:secret@[m.example"], 'invalid mirror: "https://user:xxxxx@[m.example" is not a valid URI'),
        (["--registry=https://ghcr.io", "https://m"], 'invalid registry "https://ghcr.io": it is HOST[:PORT], as in ghcr.io'),
    ],
)
def test_what_sampand_would_refuse_is_refused(file: Path, mirror: Run, words: list[str], message: str) -> None:
    assert mirror("add", *words) == (1, "", message + "\n")
    assert not file.exists()


def test_what_is_there_already_and_what_is_not(file: Path, mirror: Run) -> None:
    given(file, TEXT)
    assert mirror("add", "https://a.example/") == (0, "https://a.example/ is a mirror of docker.io already\n", "")
    assert mirror("rm", "https://b.example") == (1, "", "no such mirror: https://b.example/ is none of docker.io\n")
    assert file.read_text() == TEXT


def test_a_directory_one_may_not_write_to(file: Path, mirror: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given(file, TEXT)

    def refused(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.rename", refused)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert mirror("add", "https://b.example") == (1, "", f"cannot write {file}: permission denied (run it as root)\n")
    assert os.listdir(file.parent) == ["daemon.json"]


def test_ls(file: Path, mirror: Run) -> None:
    given(file, '{"registry-mirrors": ["https://a.example"], "mirrors": {"ghcr.io": ["https://g.example"]}}')
    code, out, _ = mirror("ls")
    assert (code, [line.split(None, 2) for line in out.splitlines()]) == (
        0,
        [
            ["REGISTRY", "MIRROR", "STATUS"],
            ["docker.io", "https://a.example/", "sampand does not run"],
            ["ghcr.io", "https://g.example/", "sampand does not run"],
        ],
    )
    assert [line.split()[0] for line in mirror("ls", "--registry=ghcr.io")[1].splitlines()] == ["REGISTRY", "ghcr.io"]


def test_an_engine_elsewhere(mirror: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.1:2375")
    code, _, err = mirror("add", "https://a.example")
    assert (code, err) == (
        1,
        "mirrors are those of the engine on this machine, and tcp://192.0.2.1:2375 may be on another: run it there\n",
    )


def test_mirrors_given_as_flags_are_timed(file: Path, mirror: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    given(file, '{"registry-mirrors": [], "mirrors": {"ghcr.io": ["https://g.example"]}}')
    indexes = {
        "docker.io": {"Mirrors": ["http://flag.example:5000/"], "Secure": True},
        "flag.example:5000": {"Mirrors": [], "Secure": False},
    }
    info = {"RegistryConfig": {"IndexConfigs": indexes, "InsecureRegistryCIDRs": ["127.0.0.0/8"]}}
    probed: list[tuple[str, str, list[str]]] = []

    def run(probe: Probe, _path: str, _reference: str) -> None:
        probe.ping = 0.001

    def made(registry: str, url: str, keys: dict[str, list[str]], *, mirror: bool = True) -> Probe:
        if mirror:
            probed.append((registry, url, keys["insecure-registries"]))
        return Probe(registry, url, keys, mirror=mirror)

    monkeypatch.setattr(Probe, "run", run)
    monkeypatch.setattr(mirrorprobe, "Probe", made)
    monkeypatch.setattr(daemonfile, "find", lambda *_: daemonfile.Daemon(1, [], str(file)))
    monkeypatch.setattr(mirrors, "info_of", lambda *_: info)
    code, out, _ = mirror("test")
    assert code == 0
    insecure = ["flag.example:5000", "127.0.0.0/8"]
    assert probed == [("docker.io", "http://flag.example:5000/", insecure), ("ghcr.io", "https://g.example/", insecure)]
    assert "http://flag.example:5000/" in out
