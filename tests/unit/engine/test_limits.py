"""Limits of a create request against a host's: refused, adapted with a warning, or taken."""

import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sampan.engine.limits import HostLimits, check_limits, limits_of, parse_list, warnings_of
from sampan.errors import InvalidArgument
from sampan.runtime.cgroups import Layout
from sampan.spec.docker_api.container import HostConfig

MB = 1 << 20
HOST = HostLimits(cpu_count=2, cpus="0-1", nodes="0")
POOR = HostLimits(cpu_count=2, cpus="0-1", nodes="0", swap=False, swappiness=False, oom_kill_disable=False, block_weight=False)
BARE = HostLimits(cpu_count=2, cpus="0-1", nodes="0", memory=False, cpu_shares=False, cpu_quota=False, cpuset=False, pids=False, swap=False)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ({"memory": 5 * MB}, "Minimum memory limit allowed is 6MB"),
        ({"memory_reservation": 5 * MB}, "Minimum memory reservation allowed is 6MB"),
        ({"memory": 6 * MB, "memory_reservation": 7 * MB}, "Minimum memory limit can not be less than memory reservation limit, see usage"),
        ({"memory": 8 * MB, "memory_swap": 7 * MB}, "Minimum memoryswap limit should be larger than memory limit, see usage"),
        ({"memory_swap": 7 * MB}, "You should always set the Memory limit when using Memoryswap limit, see usage"),
        ({"memory_swappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        ({"shm_size": -1}, "SHM size can not be less than 0"),
        ({"oom_score_adj": 1001}, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        ({"nano_cpus": 1, "cpu_period": 1000}, "Conflicting options: Nano CPUs and CPU Period cannot both be set"),
        ({"nano_cpus": 1, "cpu_quota": 1000}, "Conflicting options: Nano CPUs and CPU Quota cannot both be set"),
        ({"nano_cpus": 3 * 10**9}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        ({"cpu_shares": -1}, "invalid CPU shares (-1): value must be a positive integer"),
        ({"cpu_period": 999}, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
        ({"cpu_quota": 999}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        ({"cpuset_cpus": "2"}, "Requested CPUs are not available - requested 2, available: 0-1"),
        ({"cpuset_cpus": "1-0"}, "Invalid value 1-0 for cpuset cpus: invalid format: 1-0"),
        ({"cpu_realtime_runtime": 2, "cpu_realtime_period": 1}, "cpu real-time runtime cannot be higher than cpu real-time period"),
        ({"io_maximum_bandwidth": 1}, "invalid option: QoS maximum bandwidth configuration is not supported on linux"),
        ({"io_maximum_iops": 1}, "invalid option: QoS maximum IOPs configuration is not supported on linux"),
        ({"cpuset_mems": "1"}, "Requested memory nodes are not available - requested 1, available: 0"),
    ],
)
def test_refused(wanted: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_limits(HostConfig(**wanted), HOST)
    assert caught.value.message == words


@pytest.mark.parametrize(
    "wanted",
    [
        {},
        {"memory": 6 * MB, "memory_reservation": 6 * MB, "memory_swap": 6 * MB},
        {"memory_swap": -1},
        {"memory_swappiness": -1},
        {"nano_cpus": 2 * 10**9},
        {"cpu_quota": -1},
        {"cpuset_cpus": "0,1", "cpuset_mems": "0"},
    ],
)
def test_taken_as_they_are(wanted: dict[str, Any]) -> None:
    host = HostConfig(**wanted)
    assert check_limits(host, HOST) == (host, [])


@pytest.mark.parametrize(
    ("wanted", "becomes", "warning"),
    [
        ({"memory": 6 * MB}, {"memory_swap": -1}, "Memory limited without swap."),
        ({"memory_swappiness": 5}, {"memory_swappiness": None}, "Memory swappiness discarded."),
        ({"oom_kill_disable": True}, {"oom_kill_disable": None}, "OomKillDisable discarded."),
        ({"blkio_weight": 10}, {"blkio_weight": 0}, "discarded."),
    ],
)
def test_left_out_where_the_host_lacks_it(wanted: dict[str, Any], becomes: dict[str, Any], warning: str) -> None:
    host, [words] = check_limits(HostConfig(**wanted), POOR)
    assert host == HostConfig(**{**wanted, **becomes})
    assert words.endswith(warning)


@pytest.mark.parametrize(
    ("wanted", "becomes", "warning"),
    [
        ({"memory": 6 * MB}, {"memory": 0, "memory_swap": -1}, "memory limit capabilities or the cgroup is not mounted. Limitation"),
        (
            {"memory_reservation": 6 * MB},
            {"memory_reservation": 0},
            "memory soft limit capabilities or the cgroup is not mounted. Limitation",
        ),
        ({"pids_limit": 5}, {"pids_limit": None}, "PIDs limit capabilities or the cgroup is not mounted. PIDs limit"),
        ({"cpu_shares": 5}, {"cpu_shares": 0}, "CPU shares or the cgroup is not mounted. Shares"),
        ({"cpu_quota": 5000, "cpu_period": 10000}, {"cpu_quota": 0, "cpu_period": 0}, "CPU CFS scheduler. CPU period/quota"),
        ({"cpuset_cpus": "0"}, {"cpuset_cpus": ""}, "cpuset or the cgroup is not mounted. Cpuset"),
    ],
)
def test_left_out_where_the_controller_is_missing(wanted: dict[str, Any], becomes: dict[str, Any], warning: str) -> None:
    host, warnings = check_limits(HostConfig(**wanted), BARE)
    assert host == HostConfig(**{**wanted, **becomes})
    assert warnings == [f"Your kernel does not support {warning} discarded."]
    assert check_limits(HostConfig(pids_limit=0), BARE)[1] == []


def test_what_info_says_of_it() -> None:
    assert warnings_of(HOST, 1) == warnings_of(HOST, 2) == []
    assert warnings_of(POOR, 1) == ["WARNING: No swap limit support", "WARNING: No oom kill disable support"]
    assert warnings_of(POOR, 2) == ["WARNING: No swap limit support", "WARNING: No io.weight support"]
    assert warnings_of(BARE, 1)[2:] == [
        f"WARNING: No {name} support" for name in ("cpu cfs quota", "cpu cfs period", "cpu shares", "cpuset")
    ]
    assert len(warnings_of(msgspec.structs.replace(HOST, block_throttle=False), 2)) == 4


def test_cpus_without_a_quota_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="NanoCPUs can not be set, as your kernel does not support CPU CFS scheduler"):
        check_limits(HostConfig(nano_cpus=10**9), BARE)


def test_controllers_of_a_host(tmp_path: Path) -> None:
    some = limits_of(Layout(2, (), str(tmp_path), ("cpu", "pids")))
    assert (some.memory, some.swap, some.cpu_shares, some.cpu_quota, some.cpuset, some.pids) == (False, False, True, True, False, True)
    (tmp_path / "cpu").mkdir()
    old = limits_of(Layout(1, (("cpu", f"{tmp_path}/cpu"),), "", ("cpu",)))
    assert (old.memory, old.cpu_shares, old.cpu_quota) == (False, True, False)


@pytest.mark.parametrize(("text", "numbers"), [("", set()), ("3", {3}), ("0,2-4", {0, 2, 3, 4}), ("8192", {8192})])
def test_a_list_of_numbers(text: str, numbers: set[int]) -> None:
    assert parse_list(text) == numbers


def test_a_long_list_holds_nobody_up() -> None:
    text = ",".join(["0-8192"] * 20_000)
    started = time.process_time()
    with pytest.raises(InvalidArgument):
        check_limits(HostConfig(cpuset_cpus=text), HOST)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("text", ["x", "1-", "-1", "2-1", "1,,2", "8193", "0-99999999999"])
def test_what_is_no_list_of_numbers(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid format|out range"):
        parse_list(text)


def test_without_real_time_scheduling() -> None:
    with pytest.raises(InvalidArgument, match=r"^kernel does not support CPU real-time scheduler$"):
        check_limits(HostConfig(cpu_realtime_runtime=1), HostLimits(cpu_count=2, cpus="0-1", nodes="0", real_time=False))
