"""/etc/default/sampan: DOCKER_OPTS and SAMPAN_OPTS reach sampand through the systemd unit, the sysv script and quickstart."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.engine import Engine

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


class SysvScript:
    """The script for sysvinit with the files of an engine of its own."""

    def __init__(self, engine: Engine, place: Path) -> None:
        """place: an empty directory."""
        self.engine = engine
        self.defaults = place / "defaults"
        self.defaults.write_text(f'DOCKER_OPTS="{" ".join(engine.flags[:2])}"\nSAMPAN_OPTS="{" ".join(engine.flags[2:])}"\n')
        text = (REPO / "packaging/sysv/sampan").read_text()
        for name, module in (("sampand", "main"), ("sampan-teardown", "teardown")):
            (place / name).write_text(f"#!{sys.executable} -I\nfrom sampan.daemon.{module} import entry\nentry()\n")
            (place / name).chmod(0o755)
        for installed, here in (
            ("/usr/local/bin/sampand\n", f"{place}/sampand\n"),
            ("/opt/sampan/current/launch/", f"{place}/"),
            ("/etc/default/sampan\n", f"{self.defaults}\n"),
            ("/run/sampand-sysv.pid ", f"{place}/pid "),
            ("/var/log/sampan.log", str(engine.log)),
        ):
            assert text.count(installed) == 1
            text = text.replace(installed, here)
        self.path = place / "sampan"
        self.path.write_text(text)

    def __call__(self, verb: str, **environment: str) -> tuple[int, str]:
        """Its status, and what it says."""
        command = ["sh", str(self.path), verb]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=150, env={**os.environ, **environment})
        return done.returncode, done.stdout + done.stderr

    def info(self, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The engine's facts, once it answers what is wanted."""
        deadline = time.monotonic() + 60
        while True:
            try:
                answer = self.engine.request("GET", "/info")[1]
                if wanted(answer):
                    return dict(answer)
            except OSError:
                answer = None
            assert time.monotonic() < deadline, f"{answer}\n{self.engine.log.read_text()[-2000:]}"
            time.sleep(0.05)


@pytest.mark.root
def test_the_sysv_script(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    engine = make_engine()
    script = SysvScript(engine, tmp_path)
    assert script("status") == (3, "sampand is not running.\n")
    assert script("reload")[0] == 7
    assert script("stop") == (0, "")
    assert script("start") == (0, "")
    assert script.info(lambda _: True)["DockerRootDir"] == str(engine.data_root)
    status, said = script("status")
    assert (status, said.startswith("sampand is running (process ")) == (0, True)
    assert script("start")[0] == 0
    assert script("status") == (0, said)
    engine.bootstrap()
    assert engine.cli("run", "-d", "--name", "c1", "--stop-signal=KILL", "busybox", "sleep", "1000").returncode == 0
    pid = engine.request("GET", "/containers/c1/json")[1]["State"]["Pid"]

    (engine.root / "daemon.json").write_text('{"debug": true}')
    assert script("reload") == (0, "")
    script.info(lambda info: info["Debug"])
    assert script("restart") == (0, "")
    assert script("status") not in ((0, said), (3, "sampand is not running.\n"))
    script.info(lambda info: info["ContainersRunning"] == 1)
    assert script("stop") == (0, "")
    assert script("status") == (3, "sampand is not running.\n")
    assert Path(f"/proc/{pid}").exists(), "containers go on"
    assert script("start") == (0, "")
    script.info(lambda info: info["ContainersRunning"] == 1)
    assert script("stop", RUNLEVEL="0") == (0, "sampan: stopping 1 container\n")
    assert not Path(f"/proc/{pid}").exists(), "the host goes down"


@pytest.mark.root
def test_the_sysv_script_says_why_nothing_starts(make_engine: Callable[..., Engine], tmp_path: Path) -> None:
    script = SysvScript(make_engine(), tmp_path)
    script.defaults.write_text("SAMPAN_OPTS=--nope\n")
    status, said = script("start")
    assert (status, "unknown flag: --nope" in said) == (1, True)
    assert script("status")[0] == 3
    assert script("nope")[0] == 2
