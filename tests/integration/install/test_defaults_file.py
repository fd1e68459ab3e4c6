"""/etc/default/sampan: DOCKER_OPTS and SAMPAN_OPTS reach sampand through the systemd unit and through quickstart."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[3]
DEFAULTS = 'DOCKER_OPTS="--registry-mirror=https://a.example --registry-mirror=https://b.example/"\nSAMPAN_OPTS="--debug"\n'
FLAGS = ["--registry-mirror=https://a.example", "--registry-mirror=https://b.example/", "--debug"]


def of_quickstart(file: Path) -> list[str]:
    """The flags that quickstart's own function reads."""
    function = re.search(r"^read_flags\(\) \{$.*?^\}$", (REPO / "quickstart").read_text(), re.M | re.S)
    assert function
    script = f'set -euo pipefail\ndefaults={file}\n{function[0]}\nread_flags\nprintf "%s\\n" "${{flags[@]}}"'
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.split()


def of_the_unit(file: Path) -> list[str]:
    """The flags that systemd makes of the unit (systemd.exec EnvironmentFile=, systemd.service on $WORD: parted at blanks)."""
    unit = dict(
        line.split("=", 1) for line in (REPO / "packaging/systemd/sampan.service").read_text().splitlines() if line[:4] in ("Exec", "Envi")
    )
    assert unit["EnvironmentFile"] == "-/etc/default/sampan", "it need not be there"
    pairs = re.findall(r'^(\w+)="([^"]*)"$', file.read_text() if file.exists() else "", re.M)
    program, *words = unit["ExecStart"].split()
    assert program == "/usr/local/bin/sampand"
    values = {f"${name}": value.split() for name, value in pairs}
    return [flag for word in words for flag in values.get(word, [] if word.startswith("$") else [word])]


@pytest.mark.parametrize("read", [of_quickstart, of_the_unit])
def test_the_same_setting_in_both_places_is_refused(read, tmp_path: Path) -> None:
    file, config = tmp_path / "sampan", tmp_path / "daemon.json"
    file.write_text(DEFAULTS)
    config.write_text('{"registry-mirrors": ["https://c.example"]}')
    assert read(file) == FLAGS
    command = [sys.executable, "-I", "-c", "from sampan.daemon.main import entry; entry()", f"--config-file={config}", "--validate"]
    done = subprocess.run([*command, *read(file)], capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 1
    assert done.stderr == (
        f"unable to configure the Docker daemon with file {config}: the following directives are specified both as a flag and in the "
        "configuration file: registry-mirrors: (from flag: [https://a.example https://b.example/], from file: [https://c.example]) "
        "(registry-mirrors: line 1, column 2)\n"
    )
    config.write_text("{}")
    done = subprocess.run([*command, *read(file)], capture_output=True, text=True, check=False, timeout=20)
    assert (done.returncode, done.stdout) == (0, "configuration OK\n")


def test_without_the_file_there_are_no_flags(tmp_path: Path) -> None:
    assert of_quickstart(tmp_path / "none") == of_the_unit(tmp_path / "none") == []


def test_what_quickstart_starts_has_them() -> None:
    text = (REPO / "quickstart").read_text()
    assert 'sampand "${flags[@]}"' in text
    for line in text.splitlines():
        if 'launch/sampan-teardown" ' in line and "[ -x" not in line:
            assert '"${flags[@]}"' in line, "what ends an engine must know where it is"


def test_systemd_can_read_the_unit(tmp_path: Path) -> None:
    if not os.access("/usr/bin/systemd-analyze", os.X_OK):
        pytest.skip("systemd-analyze is not installed")
    for unit in (REPO / "packaging/systemd").glob("*.service"):
        (tmp_path / unit.name).write_text(
            unit.read_text()
            .replace("/usr/local/bin/sampand", "/bin/true")
            .replace("/usr/local/bin/sampan registry", "/bin/true")
            .replace("/opt/sampan/current/launch/sampan-teardown", "/bin/true")
        )
    for name in ("sampan.service", "sampan-registry.service"):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)], capture_output=True, text=True, check=False, timeout=60
        )
        assert name not in done.stderr, done.stderr
