"""The event stream of a container's life: types, actions and attributes as dockerd 28 sends them for the same commands."""

import json
import subprocess
import time
from collections.abc import Callable

import pytest

pytestmark = pytest.mark.root

Docker = Callable[..., subprocess.CompletedProcess[str]]

EXPECTED = [
    ("container", "create", {}),
    ("network", "connect", {"name": "bridge", "type": "bridge"}),
    ("container", "start", {}),
    ("container", "exec_create: true ", {}),
    ("container", "exec_start: true ", {}),
    ("container", "exec_die", {"exitCode": "0"}),
    ("container", "exec_create: sh -c exit 4", {}),
    ("container", "exec_start: sh -c exit 4", {}),
    ("container", "exec_die", {"exitCode": "4"}),
    ("container", "pause", {}),
    ("container", "unpause", {}),
    ("container", "rename", {"oldName": "/lived"}),
    ("container", "kill", {"signal": "9"}),
    ("network", "disconnect", {"name": "bridge", "type": "bridge"}),
    ("container", "die", {"exitCode": "137"}),
    ("container", "destroy", {}),
    ("container", "prune", {"reclaimed": "0"}),
]


def test_a_life_in_events(docker: Docker) -> None:
    since = time.time()
    for command in (
        ["run", "-d", "--name", "lived", "-l", "a=b", "busybox", "sleep", "1000"],
        ["exec", "lived", "true"],
        ["exec", "lived", "sh", "-c", "exit 4"],
        ["pause", "lived"],
        ["unpause", "lived"],
        ["rename", "lived", "lived2"],
        ["kill", "lived2"],
        ["rm", "lived2"],
        ["container", "prune", "--force", "--filter", "label=nothing"],
    ):
        result = docker(*command)
        assert result.returncode == 0 or command[:2] == ["exec", "lived"], result.stderr
    text = docker("events", "--since", f"{since:.9f}", "--until", f"{time.time():.9f}", "--format", "{{json .}}").stdout
    events = [json.loads(line) for line in text.splitlines()]
    seen = [(event["Type"], event["Action"], event["Actor"]["Attributes"]) for event in events]
    assert [item[:2] for item in seen] == [item[:2] for item in EXPECTED]
    for (kind, action, attributes), (_, _, expected) in zip(seen, EXPECTED, strict=True):
        assert attributes.items() >= expected.items()
        if kind == "container" and action != "prune":
            assert attributes["a"] == "b"
            assert attributes["image"] == "busybox"
            assert attributes["name"] == ("lived2" if action in ("rename", "kill", "die", "destroy") else "lived")
        if kind == "network":
            assert set(attributes) == {"container", "name", "type"}


def test_a_failed_start_is_no_end(docker: Docker) -> None:
    since = time.time()
    docker("create", "--name", "unborn", "busybox", "nothing")
    assert docker("start", "unborn").returncode == 1
    text = docker("events", "--since", f"{since:.9f}", "--until", f"{time.time():.9f}", "--format", "{{.Type}} {{.Action}}").stdout
    assert text.splitlines() == ["container create"]


def test_a_restart_stops_and_starts(docker: Docker) -> None:
    docker("run", "-d", "--name", "again", "--network", "none", "busybox", "sleep", "1000")
    since = time.time()
    assert docker("restart", "-t", "0", "again").returncode == 0
    assert docker("builder", "prune", "--force", "--filter", "until=10000h").returncode == 0
    text = docker("events", "--since", f"{since:.9f}", "--until", f"{time.time():.9f}", "--format", "{{.Type}} {{.Action}}").stdout
    seen = text.splitlines()
    assert sorted(seen) == sorted([
        "container kill", "container kill", "network disconnect", "container die", "container stop", "network connect",
        "container start", "container restart", "builder prune",
    ])  # fmt: skip
    assert seen.index("container die") < seen.index("container start") < seen.index("container restart")
