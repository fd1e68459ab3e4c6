"""docker stats: what containers use, by the API and by the clients."""

import contextlib
import http.client
import json
import os
import pty
import re
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.engine import CLI, Engine, UnixConnection

pytestmark = pytest.mark.root

BUSY = (
    "dd if=/dev/zero of=/dev/shm/held bs=1M count=16 2>/dev/null; dd if=/dev/zero of=/written bs=1M count=4 conv=fsync 2>/dev/null; "
    "(while :; do :; done) & "
    "ping -q -i 0.2 -s 1000 $(ip route | awk '/default/ {print $3}') >/dev/null & wait"
)


def started(engine: Engine, *words: str, script: str = "sleep 1000") -> str:
    made = engine.cli("run", "-d", "--init", *words, "busybox", "sh", "-c", script)
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def once(engine: Engine, name: str, query: str = "stream=false", version: str = "1.51") -> dict[str, Any]:
    status, body = engine.request("GET", f"/v{version}/containers/{name}/stats?{query}")
    assert status == 200, body
    assert isinstance(body, dict)
    return body


@contextlib.contextmanager
def stream(engine: Engine, name: str) -> Iterator[http.client.HTTPResponse]:
    connection = UnixConnection(engine.socket, 20)
    try:
        connection.request("GET", f"/v1.51/containers/{name}/stats")
        response = connection.getresponse()
        assert (response.status, response.getheader("Content-Type")) == (200, None)
        yield response
    finally:
        connection.close()


def wait(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_the_figures_rise_with_what_is_used(engine: Engine) -> None:
    name = started(engine, "-m", "64m", script=BUSY)

    def is_busy() -> bool:
        found = once(engine, name)
        cpu, before = found["cpu_stats"], found["precpu_stats"]
        eth0 = found["networks"]["eth0"]
        return bool(
            cpu["cpu_usage"]["total_usage"] > before["cpu_usage"]["total_usage"] + 10_000_000
            and cpu["system_cpu_usage"] > before["system_cpu_usage"]
            and found["memory_stats"]["usage"] > 16 << 20
            and found["pids_stats"]["current"] >= 3
            and eth0["tx_bytes"] > 2000
            and eth0["rx_bytes"] > 2000
        )

    wait(is_busy)
    found = once(engine, name)
    assert found["memory_stats"]["limit"] == 64 << 20
    inside = engine.cli("exec", name, "cat", "/proc/net/dev").stdout
    words = next(line for line in inside.splitlines() if "eth0:" in line).split()
    assert 0 < found["networks"]["eth0"]["rx_bytes"] <= int(words[1])
    assert 0 < found["networks"]["eth0"]["tx_bytes"] <= int(words[9])
    assert found["precpu_stats"]["online_cpus"] == found["cpu_stats"]["online_cpus"]
    assert found["preread"] < found["read"]


def test_networks_of_others(engine: Engine) -> None:
    first = started(engine)
    joined = once(engine, started(engine, "--network", f"container:{first}"), "stream=0&one-shot=1")
    assert set(joined["networks"]) == {"eth0"}
    for mode in ("host", "none"):
        assert "networks" not in once(engine, started(engine, "--network", mode), "stream=0&one-shot=1")
    engine.cli("network", "create", "statsnet")
    try:
        engine.cli("network", "connect", "statsnet", first)
        assert set(once(engine, first, "stream=0&one-shot=1")["networks"]) == {"eth0", "eth1"}
    finally:
        engine.cli("rm", "-f", first)
        engine.cli("network", "rm", "statsnet")


def test_one_shot_and_errors(engine: Engine) -> None:
    name = started(engine)
    begun = time.monotonic()
    found = once(engine, name, "stream=false&one-shot=true")
    assert time.monotonic() - begun < 5
    assert "system_cpu_usage" not in found["precpu_stats"]
    assert "system_cpu_usage" in once(engine, name, "stream=false&one-shot=true", version="1.40")["precpu_stats"]
    status, body = engine.request("GET", f"/containers/{name}/stats?one-shot=1")
    assert (status, body) == (400, {"message": "cannot have stream=true and one-shot=true"})
    status, body = engine.request("GET", "/containers/missing/stats")
    assert (status, body) == (404, {"message": "No such container: missing"})


def test_a_stream_over_the_ends_of_runs(engine: Engine) -> None:
    name = started(engine)
    with stream(engine, name) as lines:
        found = json.loads(lines.readline())
        assert found["pids_stats"]["current"] >= 1
        assert engine.cli("kill", name).returncode == 0
        while found["read"] != "0001-01-01T00:00:00Z":
            found = json.loads(lines.readline())
        assert found["id"] == name
        assert engine.cli("start", name).returncode == 0
        while found["read"] == "0001-01-01T00:00:00Z":
            found = json.loads(lines.readline())
        assert engine.cli("rm", "-f", name).returncode == 0
        while line := lines.readline():
            found = json.loads(line)
        assert found["id"] == name


def test_clients_that_leave_free_the_sampler(engine: Engine) -> None:
    name = started(engine)

    def open_files() -> int:
        return len(os.listdir(f"/proc/{engine.pid}/fd"))

    before = open_files()
    for at in range(30):
        with stream(engine, name) as lines:
            if at % 10 == 0:
                lines.readline()
    wait(lambda: open_files() <= before)


def test_docker_py(engine: Engine) -> None:
    docker = pytest.importorskip("docker")
    name = started(engine)
    client = docker.DockerClient(base_url=engine.url, timeout=60)
    try:
        box = client.containers.get(name)
        assert box.stats(stream=False)["memory_stats"]["usage"] > 0
        assert box.stats(stream=False, one_shot=True)["precpu_stats"]["cpu_usage"]["total_usage"] == 0
        found = box.stats(decode=True)
        assert [next(found)["id"], next(found)["id"]] == [name, name]
        found.close()
    finally:
        client.close()


class Live:
    """A client's `stats` that runs on; on a terminal or into a pipe."""

    def __init__(self, engine: Engine, command: list[str], *, terminal: bool) -> None:
        self.end, far = pty.openpty() if terminal else os.pipe()
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=far, stderr=subprocess.STDOUT, env=engine.environment(), start_new_session=True
        )
        os.close(far)
        self.text = ""

    def frame(self, matches: Callable[[str], bool]) -> str:
        """The next whole picture that is as wanted."""
        deadline = time.monotonic() + 30
        while True:
            while "\x1b[J" in self.text:
                frame, _, self.text = self.text.partition("\x1b[J")
                if matches(frame):
                    return frame
            assert time.monotonic() < deadline, self.text
            if select.select([self.end], [], [], 1)[0]:
                self.text += os.read(self.end, 1 << 16).decode().replace("\r\n", "\n")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.end)


@pytest.fixture(params=["sampan", "docker"])
def client(request: pytest.FixtureRequest, docker_path: str) -> list[str]:
    return CLI if request.param == "sampan" else [docker_path]


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "pipe"])
def test_live_as_containers_come_and_go(engine: Engine, client: list[str], terminal: bool) -> None:
    first = started(engine, "--name", "stats-first")
    live = Live(engine, [*client, "stats"], terminal=terminal)
    try:
        frame = live.frame(lambda text: "stats-first" in text)
        _, once_more, erasing = frame.split("\x1b[H")
        assert erasing == "".join(f"{line} \x1b[K\n" for line in once_more.split("\n"))
        title, row, *_ = once_more.split("\n")
        assert title.split("  ")[0] == "CONTAINER ID"
        assert re.fullmatch(
            rf"{first[:12]}   stats-first +[\d.]+% +[\d.]+[KM]iB / [\d.]+GiB +[\d.]+% +[\d.]+k?B / [\d.]+k?B +[\d.]+\w?B / [\d.]+\w?B +\d+",
            row,
        )
        started(engine, "--name", "stats-second")
        live.frame(lambda text: re.search(r"stats-second .*% .*iB / .*\n", text) is not None)
        engine.cli("kill", "stats-first")
        live.frame(lambda text: "stats-first" not in text and "stats-second" in text)
    finally:
        live.close()


def test_all_containers_with_those_to_come(engine: Engine, client: list[str]) -> None:
    engine.cli("create", "--name", "stats-first", "busybox", "true")
    live = Live(engine, [*client, "stats", "-a", "--format", "{{.Name}} {{.PIDs}};"], terminal=False)
    try:
        live.frame(lambda text: "stats-first 0;" in text)
        second = engine.cli("create", "--name", "stats-second", "busybox", "sleep", "1000").stdout.strip()
        live.frame(lambda text: "stats-second 0;" in text)
        engine.cli("start", second)
        live.frame(lambda text: "stats-second 1;" in text)
    finally:
        live.close()


def test_both_clients_print_alike(engine: Engine, docker_path: str) -> None:
    started(engine, "--name", "stats-runs", "-m", "64m")
    engine.cli("create", "--name", "stats-stopped", "busybox", "true")
    for words in (["-a"], ["--no-trunc", "--format", "json", "stats-runs", "stats-stopped"]):
        found = [engine.run_client(program, "stats", "--no-stream", *words) for program in (CLI, [docker_path])]
        ours, theirs = ([_masked(line) for line in result.stdout.splitlines()] for result in found)
        assert (found[0].returncode, ours) == (0, theirs)
    found = [engine.run_client(program, "stats", "nope", "stats-runs", "nope2") for program in (CLI, [docker_path])]
    assert (found[0].returncode, found[0].stderr, found[0].stdout) == (1, found[1].stderr, found[1].stdout)
    assert found[0].stderr.startswith("Error response from daemon: No such container: nope\n")


def _masked(line: str) -> str:
    """Without what a running container's figures are; those of one that does not run stay."""
    if "stats-runs" not in line:
        return re.sub(" +", " ", line)
    return re.sub(" +", " ", re.sub(r"\b[\d.]+(?=%|B|kB|MB|KiB|MiB)(%|kB|MB|KiB|MiB|B)", "N", line))


def test_control_c_ends_it(engine: Engine) -> None:
    started(engine, "--name", "stats-first")
    live = Live(engine, [*CLI, "stats", "stats-first"], terminal=True)
    try:
        live.frame(lambda text: "stats-first" in text)
        os.kill(live.process.pid, signal.SIGINT)
        assert live.process.wait(20) == 130
    finally:
        live.close()
