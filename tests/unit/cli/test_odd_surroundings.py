"""What the command line says about broken config files and an output that cannot be written."""

import subprocess
import sys
from pathlib import Path

import pytest

from sampan.cli.main import main


@pytest.mark.parametrize("command", [["--help"], ["ps", "--help"]])
def test_a_full_disk_under_stdout_is_told(command: list[str]) -> None:
    start = "from sampan.cli.main import entry; entry()"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-I", "-c", start, *command], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (1, b"write /dev/stdout: no space left on device\n")


def test_config_files_that_are_not_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, (text, problem) in enumerate(
        [
            ("{bad", "invalid character 'b' looking for beginning of object key string"),
            ("[" * 100_000, "exceeded max depth"),
            ("[]", "json: cannot unmarshal array into Go value of type configfile.ConfigFile"),
            ('{"psFormat": 5}', "json: cannot unmarshal number into Go struct field ConfigFile.psFormat of type string"),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "config.json").write_text(text)
        main(["--config", str(folder), "-H", "unix:///nowhere", "ps"])
        assert capsys.readouterr().err.splitlines()[0] == f"WARNING: Error parsing config file ({folder}/config.json): {problem}"


def test_the_context_of_the_config_file_is_not_ignored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    (tmp_path / "config.json").write_text('{"currentContext": "elsewhere"}')
    assert main(["--config", str(tmp_path), "ps"]) == 1
    assert 'context "elsewhere": context not found' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("http://127.0.0.1:1", "Failed to initialize: unable to resolve docker endpoint: invalid bind address format: http://127.0.0.1:1"),
        ("tcp://x:y", 'Failed to initialize: unable to resolve docker endpoint: parse "tcp://x:y": invalid port ":y" after host'),
        ("tcp://127.0.0.1:1/base", "Cannot connect to the Docker daemon at tcp://127.0.0.1:1/base. Is the docker daemon running?"),
        ("127.0.0.1:1", "Cannot connect to the Docker daemon at tcp://127.0.0.1:1. Is the docker daemon running?"),
        ("tcp://a..b:1", 'error during connect: Get "http://a..b:1": dial tcp: lookup a..b: no such host'),
        ("ssh://a\0b", 'error during connect: exec: "ssh": embedded null byte'),
        ("ssh://", "Failed to initialize: ssh host connection is not valid: invalid SSH URL: hostname is empty"),
        ("unix:///nowhere", "Cannot connect to the Docker daemon at unix:///nowhere. Is the docker daemon running?"),
    ],
)
def test_hosts_that_cannot_be_reached(host: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In docker's words (28.2.2)."""
    assert main(["-H", host, "ps"]) == 1
    assert capsys.readouterr().err == message + "\n"
