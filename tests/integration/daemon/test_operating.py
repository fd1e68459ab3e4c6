"""What sampand shows of itself: metrics, messages as JSON, its stacks."""

import contextlib
import json
import os
import re
import signal
import socket
import statistics
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.engine import Engine

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def shown_engine(make_engine: Callable[..., Engine]) -> Engine:
    engine = make_engine("--metrics-addr=127.0.0.1:0", "--log-format=json")
    engine.start()
    return engine


def messages(engine: Engine) -> list[dict[str, str]]:
    """Every line of the log is one."""
    return [json.loads(line) for line in engine.log.read_text().splitlines()]


def wait_for_message(engine: Engine, pattern: str) -> re.Match[str]:
    deadline = time.monotonic() + 30
    while True:
        for one in messages(engine):
            if found := re.search(pattern, one["msg"]):
                return found
        assert time.monotonic() < deadline, engine.log.read_text()
        time.sleep(0.02)


def metrics(engine: Engine) -> dict[str, float]:
    address = wait_for_message(engine, r"metrics at (http://\S+)")[1]
    with urllib.request.urlopen(address, timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_metrics_have_the_names_of_docker(shown_engine: Engine) -> None:
    before = metrics(shown_engine)
    (info,) = (name for name in before if name.startswith("engine_daemon_engine_info{"))
    assert 'os_type="linux"' in info
    assert before["engine_daemon_engine_cpus_cpus"] == os.cpu_count()
    assert before["engine_daemon_engine_memory_bytes"] > 1 << 20
    assert before['engine_daemon_container_states_containers{state="running"}'] == 0
    assert 0 < before["process_open_fds"] < before["process_max_fds"]
    assert before["process_resident_memory_bytes"] > 1 << 20
    assert abs(before["process_start_time_seconds"] - time.time()) < 600
    assert before["sampan_event_loop_blocked_total"] == 0
    assert shown_engine.request("POST", "/containers/create", {"Image": "no-such-image"})[0] == 404
    assert shown_engine.request("POST", "/volumes/create", {"Name": "counted"})[0] == 201
    after = metrics(shown_engine)
    assert after['engine_daemon_container_actions_seconds_count{action="create"}'] == 1
    assert after["engine_daemon_events_total"] == before["engine_daemon_events_total"] + 1


def built(engine: Engine, directory: Path, dockerfile: str, *options: str) -> int:
    (directory / "Dockerfile").write_text(dockerfile)
    return engine.cli("build", "-q", *options, str(directory)).returncode


def test_networks_health_checks_and_failed_builds_are_measured(shown_engine: Engine, tmp_path: Path) -> None:
    shown_engine.bootstrap()
    builds = 'builder_builds_failed_total{{reason="{}"}}'.format
    reasons = (
        "unknown_instruction_error",
        "build_target_not_reachable_error",
        "dockerfile_syntax_error",
        "error_processing_commands_error",
    )
    before = metrics(shown_engine)
    assert before[builds("build_canceled")] == 0
    assert built(shown_engine, tmp_path, "FROM busybox\nTRUE\n") != 0
    assert built(shown_engine, tmp_path, "FROM busybox\n", "--target=none") != 0
    assert built(shown_engine, tmp_path, "FROM busybox\nENV\n") != 0
    assert built(shown_engine, tmp_path, "FROM busybox\nRUN false\n") != 0
    done = shown_engine.cli("run", "-d", "--name=measured", "--health-cmd=true", "--health-interval=100ms", "busybox", "sleep", "1000")
    assert done.returncode == 0, done.stderr
    deadline = time.monotonic() + 30
    while not metrics(shown_engine).get("engine_daemon_health_check_start_duration_seconds_count"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert shown_engine.cli("rm", "-f", "measured").returncode == 0
    shown_engine.cli("info")
    after = metrics(shown_engine)
    assert {reason: after[builds(reason)] - before[builds(reason)] for reason in reasons} == dict.fromkeys(reasons, 1)
    for action in ("allocate", "release"):
        assert after[f'engine_daemon_network_actions_seconds_count{{action="{action}"}}'] >= 1
    assert after['engine_daemon_host_info_functions_seconds_count{function="system_info"}'] >= 1


def test_there_is_nothing_else(shown_engine: Engine) -> None:
    address = wait_for_message(shown_engine, r"metrics at (http://\S+)/metrics")[1]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{address}/containers/json", timeout=30)


def test_messages_are_objects_of_lines(shown_engine: Engine) -> None:
    wait_for_message(shown_engine, "API listen on")
    for one in messages(shown_engine):
        assert one.keys() >= {"level", "msg", "time"}
        assert one["level"] in ("debug", "info", "warning", "error", "fatal")


def test_stacks_on_a_signal(shown_engine: Engine) -> None:
    os.kill(shown_engine.pid, signal.SIGUSR1)
    path = Path(wait_for_message(shown_engine, r"^stacks written to (/\S+)$")[1])
    text = path.read_text()
    assert path.parent == shown_engine.exec_root
    assert path.stat().st_mode & 0o777 == 0o600
    assert "thread MainThread" in text
    assert re.search(r"\ntask ", text)
    assert shown_engine.request("GET", "/_ping")[0] == 200


def median_of_ps(engine: Engine) -> float:
    taken = []
    for _ in range(60):
        started = time.monotonic()
        assert engine.request("GET", "/containers/json?all=1")[0] == 200
        taken.append(time.monotonic() - started)
    return statistics.median(taken)


def test_many_connections_do_not_hurt_ps(shown_engine: Engine) -> None:
    alone = median_of_ps(shown_engine)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(1200)]
        for one in connections:
            one.settimeout(30)
            one.connect(shown_engine.socket)
        watching = connections[:200]
        for one in watching:
            one.sendall(b"GET /events HTTP/1.1\r\nHost: d\r\n\r\n")
            assert one.recv(4096).startswith(b"HTTP/1.1 200 ")
        shown = metrics(shown_engine)
        assert shown["sampan_connections"] >= 1200
        assert shown["engine_daemon_events_subscribers_total"] >= 200
        beside = min(median_of_ps(shown_engine) for _ in range(3))
        assert shown_engine.request("POST", "/volumes/create", {"Name": "seen-by-all"})[0] == 201
        assert all(b"seen-by-all" in one.recv(65536) for one in watching)
    assert beside < 3 * alone + 0.002
    deadline = time.monotonic() + 30
    while metrics(shown_engine)["sampan_connections"] > 100:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_info_says_what_is_so(shown_engine: Engine) -> None:
    info = shown_engine.request("GET", "/v1.50/info")[1]
    assert info["Plugins"]["Log"] == ["journald", "json-file", "local", "syslog"]
    assert {"bridge", "host", "ipvlan", "macvlan", "null"} == set(info["Plugins"]["Network"])
    assert info["FirewallBackend"] == {"Driver": "nftables"}
    assert info["NGoroutines"] > 0
    release = Path("/etc/os-release").read_text()
    assert f'PRETTY_NAME="{info["OperatingSystem"]}"' in release
    assert info["OSVersion"] in release
    assert "FirewallBackend" not in shown_engine.request("GET", "/v1.48/info")[1]
