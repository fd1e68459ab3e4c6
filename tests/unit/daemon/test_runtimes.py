"""OCI runtimes in daemon.json and as flags, in docker's words."""

import json
from pathlib import Path
from typing import Any

import pytest

from sampan.daemon import runtimes
from sampan.daemon.config import ConfigError, merge
from sampan.daemon.flags import parse
from sampan.engine.launch_failures import StartFailure
from sampan.engine.paths import Paths
from sampan.engine.runtimes import Runtimes, RuntimeSettings
from sampan.errors import InvalidArgument, NotImplementedYet
from sampan.spec.docker_api.container import HostConfig


def configured(tmp_path: Path, document: dict[str, Any], *flags: str) -> RuntimeSettings:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps(document))
    config = merge(parse([f"--config-file={file}", *flags]))
    return runtimes.settings(config.runtimes, config.default_runtime)


def test_runtimes_of_file_and_flags(tmp_path: Path) -> None:
    document = {
        "runtimes": {
            "a": {"path": "/bin/a", "runtimeArgs": ["--debug", "-x"]},
            "b": {"runtimeType": "io.containerd.runc.v2", "options": {"BinaryName": "/bin/b", "SystemdCgroup": False}},
            "same": {"runtimeType": "io.containerd.runc.v2"},
        },
        "default-runtime": "b",
    }
    found = configured(tmp_path, document, "--add-runtime=C=/bin/c")
    assert found.default == "b"
    assert found.commands == {"a": ("/bin/a", "--debug", "-x"), "b": ("/bin/b",), "same": (), "c": ("/bin/c",)}
    assert configured(tmp_path, {}) == RuntimeSettings("runc", {})


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"runtimes": {"runc": {"path": "/x"}}}, "runtime name 'runc' is reserved"),
        ({"runtimes": {"a": {}}}, "runtime a: either a runtimeType or a path must be configured"),
        (
            {"runtimes": {"a": {"path": "/x", "runtimeType": "y"}}},
            "runtime a: cannot configure both path and runtimeType for the same runtime",
        ),
        ({"runtimes": {"a": {"path": "/x", "options": {"y": 1}}}}, "runtime a: options cannot be used with a path runtime"),
        ({"runtimes": {"a": {"runtimeType": "y", "runtimeArgs": ["z"]}}}, "runtime a: args cannot be used with a runtimeType runtime"),
        (
            {"runtimes": {"a": {"runtimeType": "io.containerd.kata.v2"}}},
            "runtime a: not supported by Sampan: runtimeType io.containerd.kata.v2",
        ),
        (
            {"runtimes": {"a": {"runtimeType": "io.containerd.runc.v2", "options": {"SystemdCgroup": True}}}},
            "runtime a: not supported by Sampan: option SystemdCgroup of io.containerd.runc.v2",
        ),
        ({"runtimes": {"a": "x"}}, "json: cannot unmarshal string into Go struct field Config.runtimes.a of type system.Runtime"),
        ({"runtimes": {"a": {"path": 1}}}, "json: cannot unmarshal number into Go struct field Config.runtimes.a.path of type string"),
        ({"default-runtime": "nope"}, "specified default runtime 'nope' does not exist"),
    ],
)
def test_mistakes_are_told_in_dockers_words(document: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        configured(tmp_path, document)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--add-runtime=a"], "invalid runtime argument: a"),
        (["--add-runtime=RunC=/x"], "runtime name 'runc' is reserved"),
        (["--add-runtime=a=/x", "--add-runtime=A=/y"], "runtime 'a' was already defined"),
    ],
)
def test_mistakes_in_flags(flags: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, Exception)) as caught:
        configured(tmp_path, {}, *flags)
    assert words in str(caught.value)


def test_which_program_a_container_gets(tmp_path: Path) -> None:
    commands = {"true": ("true", "--debug"), "gone": ("/nowhere/x",), "lost": ("nosuchprogram",), "same": ()}
    known = Runtimes(RuntimeSettings("true", commands), Paths(tmp_path, tmp_path, "x"))
    assert (known.chosen(""), known.chosen("io.containerd.runc.v2")) == ("true", "io.containerd.runc.v2")
    assert known.command(HostConfig(runtime=""), remapped=False) == ()  # created before there were others
    assert known.command(HostConfig(runtime="runc"), remapped=False) == known.command(HostConfig(runtime="same"), remapped=False) == ()
    program, *arguments = known.command(HostConfig(runtime="true"), remapped=False)
    assert (program[0], Path(program).name, arguments) == ("/", "true", ["--debug"])
    with pytest.raises(InvalidArgument, match="unknown or invalid runtime name: other"):
        known.chosen("other")
    with pytest.raises(StartFailure, match="fork/exec /nowhere/x: no such file or directory") as caught:
        known.command(HostConfig(runtime="gone"), remapped=False)
    assert caught.value.exit_code == 127
    with pytest.raises(StartFailure, match=r'exec: "nosuchprogram": executable file not found in \$PATH'):
        known.command(HostConfig(runtime="lost"), remapped=False)
    with pytest.raises(NotImplementedYet, match="--init"):
        known.command(HostConfig(runtime="true", init=True), remapped=False)
    with pytest.raises(NotImplementedYet, match=r"user namespaces \(userns-remap; --userns=host is without\) with the runtime true"):
        known.check(HostConfig(runtime="true"), remapped=True)
    assert known.check(HostConfig(runtime="runc", init=True), remapped=True) == ()
