"""Ends, restarts and kills that come close upon each other: one process for one container, and nothing of it that nobody owns."""

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.support.engine import Engine
from tests.support.strays import pid_of

pytestmark = pytest.mark.root

Docker = Callable[..., subprocess.CompletedProcess[str]]
QUICK = ["sh", "-c", "sleep 0.02"]


def made(engine: Engine, command: list[str], **host: Any) -> str:
    """Create and start; the path of the container in the API."""
    status, answer = engine.request(
        "POST", "/containers/create", {"Image": "busybox", "Cmd": command, "HostConfig": {"NetworkMode": "none", **host}}
    )
    assert status == 201, answer
    path = f"/containers/{answer['Id']}"
    assert engine.request("POST", f"{path}/start")[0] == 204
    return path


def shown(engine: Engine, path: str) -> dict[str, Any]:
    """inspect."""
    status, answer = engine.request("GET", f"{path}/json")
    assert status == 200, answer
    found: dict[str, Any] = answer
    return found


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Until it holds, a minute at the most."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def processes_in(engine: Engine, path: str) -> list[int]:
    """PIDs in a container's cgroup."""
    name = path.rpartition("/")[2]
    found = [Path(place) for place in engine.cgroups() if place.rpartition("/")[2] == name]
    pids: list[int] = []
    for place in found:
        with contextlib.suppress(OSError):  # it goes, or is gone
            pids += map(int, (place / "cgroup.procs").read_text().split())
    return pids


def test_a_restart_keeps_what_is_removed_at_its_end(engine: Engine) -> None:
    path = made(engine, ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.01; done"], AutoRemove=True)
    for _ in range(10):
        assert engine.request("POST", f"{path}/restart?t=1")[0] == 204
        found = shown(engine, path)
        assert (found["State"]["Status"], found["HostConfig"]["AutoRemove"]) == ("running", True)
    assert engine.request("POST", f"{path}/stop?t=1")[0] == 204
    wait_for(lambda: engine.request("GET", f"{path}/json")[0] == 404, "--rm")


def test_a_removal_without_force_upon_a_start(engine: Engine) -> None:
    """Neither rm nor prune takes a container whose start was under way; and of two prunes the second says so."""
    status, answer = engine.request("POST", "/containers/create", {"Image": "busybox", "Cmd": ["sleep", "1000"]})
    assert status == 201
    path = f"/containers/{answer['Id']}"
    supervisor = pid_of(engine, "supervisor")
    assert supervisor is not None
    os.kill(supervisor, signal.SIGSTOP)  # no start comes to its end
    try:
        with ThreadPoolExecutor(2) as pool:
            try:
                start = pool.submit(engine.request, "POST", f"{path}/start")
                wait_for((engine.data_root / f"{path[1:]}/hostname").exists, "the start")
                prune = pool.submit(engine.request, "POST", "/containers/prune")
                removing = f"/containers/json?all=1&filters={quote(json.dumps({'status': ['removing']}))}"
                wait_for(lambda: bool(engine.request("GET", removing)[1]), "the prune")
                assert engine.request("POST", "/containers/prune") == (409, {"message": "a prune operation is already running"})
            finally:
                os.kill(supervisor, signal.SIGCONT)
            assert start.result()[0] == 204
            assert prune.result() == (200, {"ContainersDeleted": None, "SpaceReclaimed": 0})
    finally:
        os.kill(supervisor, signal.SIGCONT)
    assert shown(engine, path)["State"]["Running"]


def test_a_restart_by_hand_counts_failures_anew(engine: Engine) -> None:
    path = made(engine, ["sh", "-c", "echo run; exit 1"], RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 1})

    def is_given_up() -> bool:
        found = shown(engine, path)
        return (found["State"]["Status"], found["RestartCount"]) == ("exited", 1)

    wait_for(is_given_up, "the second failure")
    assert engine.request("POST", f"{path}/restart")[0] == 204
    wait_for(is_given_up, "the fourth failure")
    assert engine.request("GET", f"{path}/logs?stdout=1")[1].count(b"run") == 4


def test_what_a_policy_is_about_to_start_again(engine: Engine) -> None:
    """As docker has it: a start finds it started, a wait goes on, a stop is one; what needs a process is told why there is none."""
    path = made(engine, ["false"], RestartPolicy={"Name": "always"})

    def rest() -> int:
        """The number of the rest it is in, 0 while there is none or a short one. Each is twice as long as the one before."""
        found = shown(engine, path)
        return found["RestartCount"] if found["State"]["Status"] == "restarting" and found["RestartCount"] >= 5 else 0

    def asked(method: str, what: str, body: object = None) -> tuple[int, Any]:
        """An answer that came within one rest."""
        while True:
            wait_for(lambda: rest() > 0, "a rest")
            number = rest()
            answer = engine.request(method, path + what, body)
            if number and rest() == number:
                return answer

    assert asked("POST", "/start")[0] == 304
    assert asked("POST", "/kill?signal=HUP")[0] == 204  # a reload, not an end
    words = f"Container {path.rpartition('/')[2]} is restarting, wait until the container is running"
    assert asked("POST", "/exec", {"Cmd": ["true"]}) == (409, {"message": words})
    assert asked("POST", "/pause") == (409, {"message": words})
    assert asked("GET", "/top") == (409, {"message": words})
    with ThreadPoolExecutor(1) as pool:
        number = rest()
        wait = pool.submit(engine.request, "POST", f"{path}/wait")
        until = time.monotonic() + 0.3
        while number and time.monotonic() < until:
            done = wait.done()
            if rest() != number:
                break
            assert not done
        since = time.time()
        assert engine.request("POST", f"{path}/stop")[0] == 204
        assert wait.result()[1]["StatusCode"] == 1
    query = urlencode({"since": f"{since:.9f}", "until": f"{time.time():.9f}", "filters": json.dumps({"event": ["stop"]})})
    told = engine.request("GET", f"/events?{query}")[1]
    assert told["Actor"]["ID"] == path.rpartition("/")[2]


def test_a_restart_that_fails_says_so(engine: Engine) -> None:
    status, answer = engine.request("POST", "/containers/create", {"Image": "busybox", "Cmd": ["nothing"]})
    assert status == 201
    status, told = engine.request("POST", f"/containers/{answer['Id']}/restart")
    assert (status, told["message"].partition(": ")[0]) == (500, f"Cannot restart container {answer['Id']}")


def test_starts_upon_ends(engine: Engine) -> None:
    """A start at once after each end, from two clients: it begins a new run or says that one is there, and loses nothing."""
    path = made(engine, QUICK)
    wrong: list[object] = []

    def client() -> None:
        for _ in range(15):
            status, answer = engine.request("POST", f"{path}/start")
            if status not in (204, 304):
                wrong.append(answer)
            engine.request("POST", f"{path}/wait")

    threads = [threading.Thread(target=client) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    found = shown(engine, path)["State"]
    assert (found["Status"], found["ExitCode"], found["Error"]) == ("exited", 0, "")
    wait_for(lambda: not processes_in(engine, path), "processes")


@pytest.mark.parametrize("delay", [0.0, 0.09, 0.1, 0.105, 0.11, 0.12])
def test_a_kill_upon_a_restart(engine: Engine, delay: float) -> None:
    """The back-off ends, the next run begins, and just then somebody kills it."""
    path = made(engine, ["sh", "-c", "test -e /again && exec sleep 1000; touch /again; exit 1"], RestartPolicy={"Name": "always"})
    wait_for(lambda: shown(engine, path)["State"]["Status"] == "restarting" or shown(engine, path)["RestartCount"] > 0, "the first end")
    time.sleep(delay)
    assert engine.request("POST", f"{path}/kill")[0] == 204
    wait_for(lambda: shown(engine, path)["State"]["Status"] == "exited", "the end")
    wait_for(lambda: not processes_in(engine, path), "a process that nobody owns")
    assert engine.request("POST", f"{path}/start")[0] == 204
    assert shown(engine, path)["State"]["Running"]
    assert engine.request("DELETE", f"{path}?force=1")[0] == 204


def test_nothing_outlives_a_container_in_the_hosts_pid_namespace(engine: Engine) -> None:
    path = made(engine, ["sh", "-c", "sleep 1234567 & exit 3"], PidMode="host")
    wait_for(lambda: shown(engine, path)["State"]["Status"] == "exited", "the end")
    assert engine.request("POST", f"{path}/wait")[1]["StatusCode"] == 3
    wait_for(lambda: not processes_in(engine, path), "a process that outlives its container")
    assert subprocess.run(["pgrep", "-f", "sleep 1234567"], capture_output=True, check=False).stdout == b""


def test_an_init_knows_nothing_of_others(engine: Engine) -> None:
    """--init stays in its container, where CAP_SYS_PTRACE may read its memory."""
    other = made(engine, ["sleep", "1000"], CapAdd=["SYS_PTRACE"])
    secret = "S3CR3T-" + os.urandom(8).hex()
    status, answer = engine.request(
        "POST", "/containers/create",
        {"Image": "busybox", "Cmd": ["true"], "Env": [f"PASSWORD={secret}"], "HostConfig": {"NetworkMode": "none"}},
    )  # fmt: skip
    assert status == 201
    assert engine.request("POST", f"/containers/{answer['Id']}/start")[0] == 204
    path = made(engine, ["sleep", "1000"], Init=True, CapAdd=["SYS_PTRACE"])
    memory = memory_of(shown(engine, path)["State"]["Pid"])
    assert b"docker-init" in memory
    assert secret[:-4].encode() not in memory
    assert engine.request("POST", f"{other}/kill")[0] == 204


def memory_of(pid: int) -> bytes:
    """What can be read of a process's memory that it can write."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            place, mode, *_ = line.split()
            if mode.startswith("rw") and "[v" not in line:
                start, end = (int(part, 16) for part in place.split("-"))
                memory.seek(start)
                found.append(memory.read(end - start) or b"")
    return b"".join(found)


def test_no_new_privileges_of_daemon_json(make_engine: Callable[..., Engine]) -> None:
    engine = make_engine("--no-new-privileges")
    engine.start()
    engine.bootstrap()
    ran = engine.cli("run", "--rm", "--network=none", "busybox", "grep", "NoNewPrivs", "/proc/self/status")
    assert ran.stdout.split() == ["NoNewPrivs:", "1"]
    allowed = ["run", "-d", "--name=allowed", "--network=none", "--security-opt=no-new-privileges:false", "busybox", "sleep", "1000"]
    assert engine.cli(*allowed).returncode == 0
    assert engine.cli("exec", "allowed", "grep", "NoNewPrivs", "/proc/self/status").stdout.split() == ["NoNewPrivs:", "0"]
    assert engine.cli("run", "-d", "--name=inherits", "--network=none", "busybox", "sleep", "1000").returncode == 0
    assert engine.cli("exec", "inherits", "grep", "NoNewPrivs", "/proc/self/status").stdout.split() == ["NoNewPrivs:", "1"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"Cmd": ["a\0b"]}, "a NUL character in a string"),
        ({"HostConfig": {"Binds": ["/tmp\0x:/y"]}}, "a NUL character in a string"),
        ({"HostConfig": {"Binds": ["/tmp:/proc"]}}, "not of type proc"),
        ({"HostConfig": {"Binds": ["/tmp:/proc/sys"]}}, "inside /proc"),
        ({"HostConfig": {"Tmpfs": {"/proc/sys/net": ""}}}, "inside /proc"),
        ({"StopSignal": "9" * 5000}, "invalid signal"),
        ({"StopSignal": "SIGRTMIN+" + "9" * 5000}, "invalid signal"),
    ],
)
def test_what_is_refused(engine: Engine, body: dict[str, Any], words: str) -> None:
    status, answer = engine.request("POST", "/containers/create", {"Image": "busybox", **body})
    assert (status, words in answer["message"]) == (400, True), answer


def test_a_place_in_proc_that_may_be_covered(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "uptime").write_text("1 2\n")
    done = docker("run", "--rm", "-v", f"{tmp_path}/uptime:/proc/uptime", "busybox", "cat", "/proc/uptime")
    assert (done.returncode, done.stdout) == (0, "1 2\n"), done.stderr


def test_a_terminal_of_any_size(engine: Engine) -> None:
    status, answer = engine.request("POST", "/containers/create", {"Image": "busybox", "Cmd": ["sleep", "1000"], "Tty": True})
    assert status == 201
    path = f"/containers/{answer['Id']}"
    assert engine.request("POST", f"{path}/start")[0] == 204
    assert engine.request("POST", f"{path}/resize?h=70000&w=5")[0] == 200


def test_filters_of_any_size(engine: Engine) -> None:
    for path in ("/containers/prune", "/images/prune"):
        status, answer = engine.request("POST", path + '?filters={"until":["' + "9" * 400 + 'h"]}')
        assert status == 400, answer


def test_sizes_of_containers_of_which_one_is_going(engine: Engine) -> None:
    """Its tree goes before its row."""
    names = [engine.request("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]})[1]["Id"] for _ in range(2)]
    (engine.data_root / "overlay/c" / names[0]).rename(engine.root / "gone")
    try:
        status, listed = engine.request("GET", "/containers/json?all=1&size=1")
        assert status == 200, listed
        assert {item["Id"] for item in listed} >= set(names)
        assert engine.request("GET", f"/containers/{names[0]}/json?size=1")[0] == 200
        assert engine.request("GET", "/system/df")[0] == 200
    finally:
        (engine.root / "gone").rename(engine.data_root / "overlay/c" / names[0])


def test_what_fails_once_a_container_runs_does_not_lose_it(engine: Engine) -> None:
    """Here: another's hosts file, which is to have its new address, cannot be written."""
    path = made(engine, ["sleep", "1000"], NetworkMode="bridge", RestartPolicy={"Name": "always"})
    other = made(engine, ["sleep", "1000"], NetworkMode="bridge", Links=[f"{path.rpartition('/')[2]}:it"])
    (engine.data_root / other[1:] / "hosts.made").unlink()
    (engine.data_root / other[1:] / "hosts.made").mkdir()
    os.kill(shown(engine, path)["State"]["Pid"], signal.SIGKILL)
    wait_for(lambda: shown(engine, path)["RestartCount"] == 1 and shown(engine, path)["State"]["Pid"] > 0, "the next run")
    assert engine.request("POST", f"{path}/stop?t=0")[0] == 204
    wait_for(lambda: not processes_in(engine, path), "a process that nobody owns")
    assert engine.request("POST", f"{path}/start")[0] == 204
    for one in (other, path):
        assert engine.request("DELETE", f"{one}?force=1")[0] == 204
