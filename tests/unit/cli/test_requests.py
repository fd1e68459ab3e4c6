"""Commands ask the daemon for what docker's CLI asks, in the same order: compared with a recording of docker 28.2 (tests/golden/cli)."""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sampan.testing.fakedaemon import ID, FakeDaemon

SOURCE = str(Path(__file__).parents[3] / "src")
CASES: list[dict[str, Any]] = json.loads((Path(__file__).parents[2] / "golden" / "cli" / "requests.json").read_text())


def comparable(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without the body of a container's create (test_create_bodies looks at it), and what goes out at once in a fixed order."""
    plain = [{**request, "body": None} if request["path"].endswith("/containers/create") else request for request in requests]
    at_once = ("/stop", "/kill", "/pause", "/unpause")
    if all(request["path"].endswith(at_once) or request["method"] == "DELETE" for request in plain):
        plain.sort(key=lambda request: str(request["path"]))
    return plain


@pytest.mark.parametrize("case", CASES, ids=[case["arguments"] for case in CASES])
def test_asks_what_docker_asks(case: dict[str, Any], tmp_path: Path) -> None:
    arguments = shlex.split(case["arguments"])
    environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/s", "HOME": str(tmp_path), "PYTHONPATH": SOURCE}
    environment.pop("DOCKER_API_VERSION", None)
    with FakeDaemon(tmp_path / "s", lambda _: 0, version="1.50") as daemon:
        if arguments[0] == "attach":
            daemon.mark_running()
        if arguments[0] == "wait":
            daemon.mark_ended()
        command = [sys.executable, "-m", "sampan.cli", *arguments]
        subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
        asked = [request for request in daemon.log if not request["path"].endswith("_ping")]
    expected = case["requests"]
    if arguments[:2] == ["run", "-d"] and "--rm" not in arguments:
        # docker also begins to wait for the exit of what it leaves running, and never looks at the answer
        expected = [request for request in expected if not request["path"].endswith("/wait")]
    assert comparable(asked) == comparable(expected)


def test_several_containers_are_stopped_at_the_same_time(tmp_path: Path) -> None:
    """Ten containers that each take their time to stop take that time once."""
    with FakeDaemon(tmp_path / "s", lambda _: 0) as daemon:
        daemon.delay = 0.5
        environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/s", "PYTHONPATH": SOURCE}
        names = [f"c{n}" for n in range(10)]
        command = [sys.executable, "-m", "sampan.cli", "stop", *names]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=4, check=True)
        assert done.stdout.split() == names


def test_there_is_no_container_of_a_daemon_that_knows_nothing_of_time_zones(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "s", lambda _: 0) as daemon:
        environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/s", "PYTHONPATH": SOURCE}
        command = [sys.executable, "-m", "sampan.cli", "create", "--tz=Europe/Berlin", "busybox"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "this daemon cannot give a container a time zone" in done.stderr
    assert daemon.names() == ["POST create", "GET json", f"DELETE {ID}"]


def test_ports_are_not_updated_by_a_daemon_that_knows_nothing_of_it(tmp_path: Path) -> None:
    with FakeDaemon(tmp_path / "s", lambda _: 0) as daemon:
        environment = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/s", "PYTHONPATH": SOURCE}
        options = ["--publish-add", "127.0.0.1:8080:80", "--publish-rm", "81/tcp"]
        command = [sys.executable, "-m", "sampan.cli", "update", *options, "web"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, "this daemon cannot publish other ports" in done.stderr) == (1, True)
    sent = daemon.log[-1]["body"]
    assert sent["PublishAdd"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
    assert sent["PublishRm"] == ["81/tcp"]
