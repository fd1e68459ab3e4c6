"""CLI plugins: sampan's client finds, lists and runs what docker's does."""

import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.support.engine import CLI

Run = Callable[..., subprocess.CompletedProcess[str]]
HELLO = """#!/bin/sh
if [ "$1" = docker-cli-plugin-metadata ]; then
    echo '{"SchemaVersion":"0.1.0","Vendor":"Tests Inc.","Version":"v1.2","ShortDescription":"Says hello","URL":"https://x"}'
elif [ "$1" = __complete ]; then
    printf '%b\\n' "one\\tof $2" "$3$4" :4
else
    echo "args: $*"; env | grep '^DOCKER_' | sort; exit 7
fi
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration directory with good and bad plugins, and another directory that comes before it."""
    plugins, extra = tmp_path / "cli-plugins", tmp_path / "extra"
    plugins.mkdir()
    extra.mkdir()
    texts = {
        "hello": HELLO,
        "bad": """#!/bin/sh\necho '{"SchemaVersion":"9.1.0","Vendor":"x"}'\n""",
        "broken": "#!/bin/sh\necho nope; exit 3\n",
        "nojson": "#!/bin/sh\necho hello\n",
        "novendor": """#!/bin/sh\necho '{"SchemaVersion":"0.1.0"}'\n""",
        "ps": HELLO,
        "Up-per": HELLO,
    }
    for name, text in texts.items():
        path = plugins / f"docker-{name}"
        path.write_text(text)
        path.chmod(0o755)
    (extra / "docker-hello").symlink_to(plugins / "docker-hello")
    (plugins / "docker-noexec").write_text(HELLO)
    (plugins / "docker-dangling").symlink_to("nowhere")
    (plugins / "docker-directory").mkdir()
    (tmp_path / "config.json").write_text(json.dumps({"cliPluginsExtraDirs": [str(extra)]}))
    return tmp_path


@pytest.fixture
def run(config: Path) -> Run:
    """A function that runs a client with that configuration."""

    def run(client: Sequence[str], *words: str, host: str = "") -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "DOCKER_CONFIG": str(config), "HOME": str(config)}
        environment |= {"DOCKER_HOST": host} if host else {}
        return subprocess.run([*client, *words], capture_output=True, text=True, env=environment, timeout=60, check=False)

    return run


def test_plugins_are_listed_as_by_docker(run: Run, docker_path: str) -> None:
    mine, theirs = run(CLI, "--help").stdout, run([docker_path], "--help").stdout
    assert "  hello*      Says hello\n" in mine
    invalid = re.compile(r"\nInvalid Plugins:\n.*\n\nGlobal", re.DOTALL)
    assert invalid.findall(mine) == invalid.findall(theirs) != []
    mine, theirs = (run(client, "info", "--format", "{{json .ClientInfo.Plugins}}").stdout for client in (CLI, [docker_path]))
    assert json.loads(mine) == json.loads(theirs)
    mine, theirs = (run(client, "info") for client in (CLI, [docker_path]))
    warnings = re.compile("WARNING: Plugin .*")
    assert warnings.findall(mine.stderr) == warnings.findall(theirs.stderr) != []
    shown = re.compile(r" Plugins:\n(?:  .*\n)+")
    assert shown.findall(mine.stdout) == shown.findall(theirs.stdout) != []


def test_a_plugin_gets_the_whole_command_line(run: Run, docker_path: str) -> None:
    words = ("-H", "tcp://1:2", "hello", "--x", "-h", "y")
    mine, theirs = run(CLI, *words), run([docker_path], *words)
    assert (mine.returncode, mine.stdout.splitlines()[0]) == (7, "args: -H tcp://1:2 hello --x -h y")
    assert (theirs.returncode, theirs.stdout.splitlines()[0]) == (7, "args: -H tcp://1:2 hello --x -h y")
    assert "DOCKER_CLI_PLUGIN_ORIGINAL_CLI_COMMAND=sampan\n" in mine.stdout
    assert "DOCKER_HOST" not in mine.stdout


def test_a_plugin_talks_to_the_daemon_that_sampan_talks_to(run: Run) -> None:
    assert "DOCKER_HOST=unix:///run/sampan/sampan.sock\n" in run(CLI, "hello").stdout
    assert "DOCKER_HOST=unix:///x\n" in run(CLI, "hello", host="unix:///x").stdout
    assert "DOCKER_HOST" not in run(CLI, "--context", "other", "hello").stdout


@pytest.mark.parametrize("name", ["bad", "broken", "noexec", "dangling", "directory", "Up-per", "../x"])
def test_what_is_no_plugin_is_no_command(run: Run, name: str) -> None:
    done = run(CLI, name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"sampan: unknown command: sampan {name}\n")


def test_a_plugin_takes_no_commands_place(run: Run) -> None:
    assert "args" not in run(CLI, "ps").stdout


def test_builder_may_be_a_plugin(run: Run, config: Path, docker_path: str) -> None:
    (config / "config.json").write_text(json.dumps({"aliases": {"builder": "hello"}}))
    for client in (CLI, [docker_path]):
        assert run(client, "-D", "builder", "builder", "--x").stdout.splitlines()[0] == "args: -D hello builder --x"
    (config / "config.json").write_text(json.dumps({"aliases": {"builder": "nosuch"}}))
    assert run(CLI, "builder", "--help").stdout.startswith("Usage:  sampan builder COMMAND\n")


def test_a_plugin_completes_its_words(run: Run) -> None:
    assert run(CLI, "__complete", "hel").stdout == "hello\tSays hello\n:4\n"
    assert run(CLI, "__complete", "hello", "o").stdout == "one\tof hello\no\n:4\n"
    assert run(CLI, "help", "hello").stdout.startswith("args: hello --help\n")
