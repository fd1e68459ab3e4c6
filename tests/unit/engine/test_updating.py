"""Other limits for a container that is there: what is merged, what is refused, and in which order the kernel is told."""

import os
import time
from pathlib import Path
from typing import Any

import pytest

from sampan.engine import updating
from sampan.engine.limits import HostLimits
from sampan.errors import EngineError, SystemFailure
from sampan.runtime.cgroups import Layout, Resources, resource_writes
from sampan.runtime.supervisor import child
from sampan.spec.docker_api.container import Config, HostConfig, PortBinding, RestartPolicy, UpdateRequest, WeightDevice

MB = 1 << 20
HOST = HostLimits(cpu_count=2, cpus="0-1", nodes="0")


def updated(have: dict[str, Any], wanted: dict[str, Any]) -> HostConfig:
    return updating.updated(HostConfig(**have), UpdateRequest(**wanted), HOST)[0]


def test_nothing_asked_changes_nothing() -> None:
    have = {"memory": 8 * MB, "memory_swap": 16 * MB, "cpu_shares": 5, "restart_policy": RestartPolicy(name="always")}
    assert updated(have, {}) == HostConfig(**have)


@pytest.mark.parametrize(
    ("have", "wanted", "now"),
    [
        ({"pids_limit": 5}, {"pids_limit": -1}, {"pids_limit": 0}),
        ({}, {"memory": 8 * MB}, {"memory": 8 * MB, "memory_swap": 16 * MB}),
        ({"memory": 8 * MB, "memory_swap": -1}, {"memory": 9 * MB}, {"memory": 9 * MB, "memory_swap": -1}),
        ({"memory": 8 * MB, "memory_swap": 9 * MB}, {"memory_swap": 20 * MB}, {"memory": 8 * MB, "memory_swap": 20 * MB}),
        ({}, {"restart_policy": RestartPolicy(name="on-failure", maximum_retry_count=3)}, None),
        ({"nano_cpus": 10**9}, {"nano_cpus": 15 * 10**8}, {"nano_cpus": 15 * 10**8}),
    ],
    ids=["no-pids", "first-memory", "unlimited-swap", "swap-alone", "policy", "cpus"],
)
def test_merged(have: dict[str, Any], wanted: dict[str, Any], now: dict[str, Any] | None) -> None:
    assert updated(have, wanted) == HostConfig(**(wanted if now is None else now))


@pytest.mark.parametrize(
    ("have", "wanted", "words"),
    [
        ({"cpu_period": 2000}, {"nano_cpus": 10**9}, "Conflicting options: Nano CPUs cannot be updated as CPU Period has already been set"),
        ({"cpu_quota": 2000}, {"nano_cpus": 10**9}, "Conflicting options: Nano CPUs cannot be updated as CPU Quota has already been set"),
        ({"nano_cpus": 10**9}, {"cpu_period": 2000}, "Conflicting options: CPU Period cannot be updated as NanoCPUs has already been set"),
        ({"nano_cpus": 10**9}, {"cpu_quota": 2000}, "Conflicting options: CPU Quota cannot be updated as NanoCPUs has already been set"),
        (
            {"memory": 8 * MB, "memory_swap": 9 * MB},
            {"memory": 10 * MB},
            "Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time",
        ),
        (
            {"auto_remove": True},
            {"restart_policy": RestartPolicy(name="always")},
            "Restart policy cannot be updated because AutoRemove is enabled for the container",
        ),
        (
            {},
            {"cpu_realtime_runtime": 2000, "cpu_realtime_period": 1000},
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ),
        ({}, {"memory": 5 * MB}, "Minimum memory limit allowed is 6MB"),
        (
            {},
            {"restart_policy": RestartPolicy(name="never")},
            "invalid restart policy: unknown policy 'never'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
    ],
    ids=["period", "quota", "nano-period", "nano-quota", "below-swap", "rm", "real-time", "too-little", "policy"],
)
def test_refused(have: dict[str, Any], wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(EngineError) as caught:
        updated(have, wanted)
    assert caught.value.message == words


def test_a_refused_write_leaves_the_old_limits(tmp_path: Path) -> None:
    layout = Layout(2, (), str(tmp_path), ("memory", "pids", "cpu"))
    directory = tmp_path / "c"
    directory.mkdir()
    old = HostConfig(memory=8 * MB, memory_swap=16 * MB, cpu_shares=100)
    for file in ("memory.max", "memory.swap.max", "cpu.weight"):
        (directory / file).touch()
    os.mkdir(directory / "pids.max")  # what cannot be written
    with pytest.raises(SystemFailure) as caught:
        updating.apply(layout, "c", old, HostConfig(memory=32 * MB, memory_swap=64 * MB, cpu_shares=200, pids_limit=5))
    assert caught.value.message == "cannot set pids.max to 5: Is a directory"
    assert (directory / "memory.max").read_text().startswith(str(8 * MB))
    assert (directory / "cpu.weight").read_text().startswith("4")


WEB = {"80/tcp": [PortBinding(host_port="8080")]}


@pytest.mark.parametrize(
    ("have", "removed", "added", "now"),
    [
        ({}, [], {"80": [PortBinding(host_port="8080")]}, WEB),
        (WEB, [], {"80/TCP": [PortBinding(host_port="81")]}, {"80/tcp": [PortBinding(host_port="8080"), PortBinding(host_port="81")]}),
        (WEB, ["80/tcp"], {}, {}),
        (WEB, ["80/tcp"], {"80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8080")]},
         {"80/tcp": [PortBinding(host_ip="127.0.0.1", host_port="8080")]}),
        ({"80/tcp": [PortBinding()]}, [], {"80/tcp": [PortBinding()]}, {"80/tcp": [PortBinding(), PortBinding()]}),
    ],
    ids=["first", "second", "none", "elsewhere", "any-twice"],
)  # fmt: skip
def test_other_ports(have: Any, removed: list[str], added: Any, now: Any) -> None:
    host = HostConfig(port_bindings=have)
    assert updating.republished(Config(), host, removed, added).port_bindings == now
    assert host.port_bindings == have


@pytest.mark.parametrize(
    ("host", "removed", "added", "words"),
    [
        ({}, ["80/tcp"], {}, "port 80/tcp is not published"),
        ({"port_bindings": WEB}, ["80/udp"], {}, "port 80/udp is not published"),
        ({"publish_all_ports": True}, ["80/tcp"], {}, "port 80/tcp is published by --publish-all"),
        ({"port_bindings": WEB}, [], WEB, "port 80/tcp is published as 0.0.0.0:8080 already"),
        ({}, [], {"x": [PortBinding()]}, "invalid port specification: 'x'"),
        ({}, [], {"80/tcp": [PortBinding(host_ip="y")]}, "invalid IP address: y"),
        ({"network_mode": "container:c"}, [], WEB, "conflicting options: port publishing and the container type network mode"),
    ],
)
def test_ports_that_cannot_be_other(host: dict[str, Any], removed: list[str], added: Any, words: str) -> None:
    with pytest.raises(EngineError) as caught:
        updating.republished(Config(exposed_ports={"80": {}}), HostConfig(**host), removed, added)
    assert caught.value.message == words


def test_another_weight_beside_those_of_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """cgroup v2 has all of them in one file."""
    layout = Layout(2, (), str(tmp_path), ("io",))
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "io.weight").touch()
    written: list[tuple[str, str]] = []
    monkeypatch.setattr(updating, "write", lambda file, value: written.append((os.path.basename(file), value)))
    devices = [WeightDevice(path="/dev/null", weight=1000)]
    updating.apply(
        layout, "c", HostConfig(blkio_weight=100, blkio_weight_device=devices), HostConfig(blkio_weight=10, blkio_weight_device=devices)
    )
    assert written == [("io.weight", "default 1")]


def test_cpu_shares_with_which_no_container_starts(tmp_path: Path) -> None:
    (tmp_path / "c").mkdir()
    for shares in (1, 262145):
        with pytest.raises(SystemFailure, match="allowed cpu-shares is"):
            updating.apply(Layout(1, (("cpu", str(tmp_path)),), "", ("cpu",)), "c", HostConfig(), HostConfig(cpu_shares=shares))
    assert not os.listdir(tmp_path / "c")


def test_a_weight_where_only_bfq_has_weights(tmp_path: Path) -> None:
    directory = tmp_path / "c"
    directory.mkdir()
    layout = Layout(2, (), str(tmp_path), ("io",))
    with pytest.raises(SystemFailure):
        updating.apply(layout, "c", HostConfig(), HostConfig(blkio_weight=100))
    (directory / "io.bfq.weight").touch()
    updating.apply(layout, "c", HostConfig(), HostConfig(blkio_weight=100))
    child.write_limits(resource_writes(layout, "c", Resources(blkio_weight=200)), ["", ""])
    assert (directory / "io.bfq.weight").read_text() == "default 200"
    assert os.listdir(directory) == ["io.bfq.weight"]


def test_very_many_ports_are_soon_looked_through() -> None:
    added = {"80/tcp": [PortBinding(host_ip="127.0.0.1", host_port=str(number)) for number in range(1, 20_001)]}
    started = time.process_time()
    assert updating.republished(Config(), HostConfig(), [], added).port_bindings == added
    assert time.process_time() - started < 2
