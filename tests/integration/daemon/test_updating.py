"""`docker update` by the real client: the kernel's limits of what runs, what is kept for what does not, and what is refused."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.engine.limits import host_limits
from sampan.runtime.cgroups import directories, host_layout, v1_path
from tests.support.engine import Engine

pytestmark = pytest.mark.root

Docker = Callable[..., subprocess.CompletedProcess[str]]
MB = 1 << 20
V1 = host_layout().version == 1
FILES = {
    "memory": ("memory", "memory.limit_in_bytes", "memory.max"),
    "pids": ("pids", "pids.max", "pids.max"),
    "quota": ("cpu", "cpu.cfs_quota_us", "cpu.max"),
    "real-time": ("cpu", "cpu.rt_runtime_us", ""),
}


def limit(engine: Engine, name: str, what: str) -> str:
    """What the kernel holds a container to."""
    pid = engine.request("GET", f"/containers/{name}/json")[1]["State"]["Pid"]
    controller, v1, v2 = FILES[what]
    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if V1 and controller in controllers.split(","):
            return Path(f"{v1_path(host_layout(), controller, path[1:])}/{v1}").read_text().strip()
        if not V1 and not controllers:
            return Path(f"{host_layout().unified}{path}/{v2}").read_text().strip()
    raise AssertionError(f"{name} is in no cgroup of {controller}")


def host_config(engine: Engine, name: str, *keys: str) -> list[object]:
    """Values of what inspect shows."""
    shown = engine.request("GET", f"/containers/{name}/json")[1]["HostConfig"]
    return [shown[key] for key in keys]


def run(docker: Docker, name: str, *options: str) -> None:
    """A container that lasts."""
    done = docker("run", "-d", "--network=none", "--name", name, *options, "busybox", "sleep", "1000")
    assert done.returncode == 0, done.stderr


def test_limits_of_what_runs_change_at_once(engine: Engine, docker: Docker) -> None:
    run(docker, "one", "-m", "64m", "--pids-limit", "50")
    done = docker("update", "-m", "256m", "--memory-swap", "300m", "--cpus", "0.5", "--pids-limit", "20", "one")
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\n", "")
    assert limit(engine, "one", "memory") == str(256 * MB)  # above the old limit with swap: told in the order the kernel takes
    assert limit(engine, "one", "pids") == "20"
    assert limit(engine, "one", "quota").split()[0] == "50000"
    assert host_config(engine, "one", "Memory", "MemorySwap", "NanoCpus", "PidsLimit") == [256 * MB, 300 * MB, 5 * 10**8, 20]
    assert docker("update", "-m", "32m", "--memory-swap", "32m", "--pids-limit", "-1", "one").returncode == 0
    assert (limit(engine, "one", "memory"), limit(engine, "one", "pids")) == (str(32 * MB), "max")
    docker("restart", "-t", "0", "one")
    assert (limit(engine, "one", "memory"), limit(engine, "one", "pids")) == (str(32 * MB), "max")


def test_what_does_not_run_has_them_when_it_starts_and_after_a_kill(engine: Engine, docker: Docker) -> None:
    docker("create", "--network=none", "--name", "later", "busybox", "sleep", "1000")
    assert docker("update", "--pids-limit", "30", "--restart", "on-failure:3", "later").stdout == "later\n"
    engine.stop(signal.SIGKILL)
    engine.start()
    assert host_config(engine, "later", "RestartPolicy", "PidsLimit") == [{"Name": "on-failure", "MaximumRetryCount": 3}, 30]
    docker("start", "later")
    assert limit(engine, "later", "pids") == "30"


def test_another_policy_holds_for_the_run_under_way(engine: Engine, docker: Docker) -> None:
    done = docker(
        "run", "-d", "--network=none", "--name", "again", "busybox", "sh", "-c", "while [ ! -e /go ]; do sleep 0.05; done; exit 3"
    )
    assert done.returncode == 0
    assert docker("update", "--restart", "on-failure:1", "again").returncode == 0
    docker("exec", "again", "touch", "/go")
    docker("wait", "again")
    status, _ = engine.request("POST", "/containers/again/wait?condition=not-running")
    assert status == 200
    assert engine.request("GET", "/containers/again/json")[1]["RestartCount"] == 1


def test_refusals_change_nothing(engine: Engine, docker: Docker) -> None:
    run(docker, "two", "-m", "64m", "--memory-swap", "64m")
    identifier = engine.request("GET", "/containers/two/json")[1]["Id"]
    words = "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time"
    done = docker("update", "-m", "128m", "two")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Error response from daemon: Cannot update container {identifier}: {words}\n"
    assert docker("update", "-m", "1m", "two").stderr == "Error response from daemon: Minimum memory limit allowed is 6MB\n"
    assert docker("update", "-m", "128m", "nobody").stderr == "Error response from daemon: No such container: nobody\n"
    assert docker("update", "two").stderr == "you must provide one or more flags when using this command\n"
    assert limit(engine, "two", "memory") == str(64 * MB)
    assert host_config(engine, "two", "Memory", "MemorySwap") == [64 * MB, 64 * MB]


def test_the_own_client_says_the_same(engine: Engine, docker: Docker) -> None:
    run(docker, "three")
    for words in (
        ("-m", "128m", "--cpus", "1", "three"),
        ("three",),
        ("-m", "1m", "three"),
        ("--restart", ":3", "three"),
        ("-m", "9m", "no", "three"),
    ):
        theirs, ours = docker("update", *words), engine.cli("update", *words)
        assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout), words
        assert ours.stderr == theirs.stderr, words


def _disk() -> tuple[str, str]:
    """(path, major:minor) of a disk of this machine."""
    for name in sorted(os.listdir("/sys/block")):
        if os.path.exists(f"/dev/{name}") and not name.startswith(("ram", "loop", "zram", "sr")):
            return f"/dev/{name}", Path(f"/sys/block/{name}/dev").read_text().strip()
    pytest.skip("there is no disk")


def test_limits_of_single_disks(engine: Engine, docker: Docker) -> None:
    path, number = _disk()
    run(docker, "disk", "--device-read-bps", f"{path}:1mb", "--device-write-iops", f"{path}:100")
    pid = engine.request("GET", "/containers/disk/json")[1]["State"]["Pid"]
    lines = [line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    if V1:
        directory = next(f"{v1_path(host_layout(), 'blkio', own[1:])}" for _, names, own in lines if "blkio" in names.split(","))
        assert Path(directory, "blkio.throttle.read_bps_device").read_text() == f"{number} 1048576\n"
        assert Path(directory, "blkio.throttle.write_iops_device").read_text() == f"{number} 100\n"
    else:
        directory = next(f"{host_layout().unified}{own}" for _, names, own in lines if not names)
        assert Path(directory, "io.max").read_text() == f"{number} rbps=1048576 wbps=max riops=max wiops=100\n"
    docker("update", "--pids-limit", "40", "disk")
    assert limit(engine, "disk", "pids") == "40"
    missing = docker("run", "--rm", "--network=none", "--device-read-bps", "/dev/nothing:1mb", "busybox", "true")
    assert (missing.returncode, missing.stderr.splitlines()[0]) == (
        127,
        "docker: Error response from daemon: stat /dev/nothing: no such file or directory",
    )


def test_another_parent_of_the_cgroup(engine: Engine, docker: Docker) -> None:
    parent = f"parents-{engine.root.name}/of"
    top = parent.partition("/")[0]
    run(docker, "child", "--cgroup-parent", f"/../{parent}", "--pids-limit", "33")
    identifier = docker("inspect", "-f", "{{.Id}} {{.HostConfig.CgroupParent}}", "child").stdout.split()[0]
    pid = engine.request("GET", "/containers/child/json")[1]["State"]["Pid"]
    places = {line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()}
    try:
        assert places <= {f"/{parent}/{identifier}", "/"}
        assert f"/{parent}/{identifier}" in places
        assert limit(engine, "child", "pids") == "33"
        assert docker("exec", "child", "true").returncode == 0
        assert docker("pause", "child").returncode == 0
        engine.stop(signal.SIGKILL)
        engine.start()
        assert docker("unpause", "child").returncode == 0
        assert "sleep 1000" in docker("top", "child").stdout
        assert engine.findings() == []
        docker("kill", "child")
        deadline = time.monotonic() + 30
        while any(os.path.exists(f"{directory}/{identifier}") for directory in directories(host_layout(), parent)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        engine.remove_containers()
        for directory in (*directories(host_layout(), parent), *directories(host_layout(), top)):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(directory)


@pytest.mark.skipif(not host_limits().real_time, reason="needs cgroup v1 with CONFIG_RT_GROUP_SCHED")
def test_real_time_scheduling_is_given_by_the_daemon_and_limited_for_a_container(engine: Engine, docker: Docker) -> None:
    done = docker("run", "--rm", "--network=none", "--cpu-rt-runtime=1000", "busybox", "true")
    assert done.returncode == 125
    assert 'unable to apply cgroup configuration: failed to write "1000": write ' in done.stderr
    config = engine.root / "daemon.json"
    before = config.read_text()
    config.write_text('{"cpu-rt-runtime": 3000}')
    engine.stop()
    engine.start()
    try:
        run(docker, "timely", "--cpu-rt-runtime=1000")
        assert limit(engine, "timely", "real-time") == "1000"
        assert docker("update", "--cpu-rt-runtime=2000", "timely").returncode == 0
        assert limit(engine, "timely", "real-time") == "2000"
        assert host_config(engine, "timely", "CpuRealtimeRuntime") == [2000]
        refused = docker("update", "--cpu-rt-runtime=4000", "timely")
        assert refused.returncode == 1
        assert "cannot set cpu.rt_runtime_us to 4000" in refused.stderr
        assert limit(engine, "timely", "real-time") == "2000"
    finally:
        docker("rm", "-f", "timely")
        config.write_text(before)
        engine.stop()
        engine.start()


@pytest.mark.slow  # what waits for the database gives up after 10 s
def test_what_cannot_be_recorded_is_taken_back(engine: Engine, docker: Docker) -> None:
    run(docker, "one", "-m", "64m")
    other = sqlite3.connect(engine.data_root / "state.db", isolation_level=None)
    with contextlib.closing(other):
        other.execute("BEGIN IMMEDIATE")
        assert engine.request("POST", "/containers/one/update", {"Memory": 128 * MB, "MemorySwap": -1})[0] == 500
    assert (limit(engine, "one", "memory"), host_config(engine, "one", "Memory")) == (str(64 * MB), [64 * MB])
    assert engine.request("POST", "/containers/one/update", {"Memory": 128 * MB, "MemorySwap": -1})[0] == 200
    assert limit(engine, "one", "memory") == str(128 * MB)
