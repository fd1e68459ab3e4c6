"""A create request over an image's defaults."""

from typing import Any

import pytest

from sampan.engine.limits import HostLimits
from sampan.engine.merging import ContainerDefaults, merge_config, merge_env, merge_host_config, storage_size
from sampan.errors import InvalidArgument, SystemFailure
from sampan.spec.docker_api.container import CreateRequest, HostConfig, LogConfig, Ulimit
from sampan.spec.oci_image import ContainerConfig


@pytest.mark.parametrize(
    ("image", "wanted", "merged"),
    [
        ([], [], []),
        (["A=1"], [], ["A=1"]),
        (["A=1", "B=2"], ["B=3"], ["B=3", "A=1"]),
        (["A=1"], ["A="], ["A="]),
        (["A=1"], ["A"], ["A"]),  # the variable is taken away, at the start
    ],
)
def test_environment(image: list[str], wanted: list[str], merged: list[str]) -> None:
    assert merge_env(image, wanted) == merged


IMAGE = ContainerConfig(entrypoint=["entry"], cmd=["default"])


@pytest.mark.parametrize(
    ("image", "entrypoint", "cmd", "merged"),
    [
        (IMAGE, None, None, (["entry"], ["default"])),
        (IMAGE, None, ["own"], (["entry"], ["own"])),
        (IMAGE, ["other"], None, (["other"], None)),
        (IMAGE, ["other"], ["own"], (["other"], ["own"])),
        (IMAGE, [], ["own"], (None, ["own"])),
        (IMAGE, [""], ["own"], (None, ["own"])),
        (ContainerConfig(cmd=["default"]), None, None, (None, ["default"])),
    ],
)
def test_command(
    image: ContainerConfig, entrypoint: list[str] | None, cmd: list[str] | None, merged: tuple[list[str] | None, list[str] | None]
) -> None:
    found = merge_config(CreateRequest(entrypoint=entrypoint, cmd=cmd), image, "h")
    assert (found.entrypoint, found.cmd) == merged


def test_without_any_command() -> None:
    with pytest.raises(InvalidArgument, match=r"^no command specified$"):
        merge_config(CreateRequest(), ContainerConfig(), "h")


@pytest.mark.parametrize(
    ("field", "image", "wanted", "merged"),
    [
        ("user", "u", "", "u"),
        ("user", "u", "v", "v"),
        ("working_dir", "/w", "", "/w"),
        ("labels", {"a": "1", "b": "2"}, {"b": "3"}, {"a": "1", "b": "3"}),
        ("exposed_ports", {"80/tcp": {}}, {"81/tcp": {}}, {"80/tcp": {}, "81/tcp": {}}),
        ("exposed_ports", None, None, None),
        ("stop_signal", "SIGQUIT", "", "SIGQUIT"),
    ],
)
def test_other_fields(field: str, image: Any, wanted: Any, merged: Any) -> None:
    found = merge_config(CreateRequest(cmd=["x"], **{field: wanted}), ContainerConfig(**{field: image}), "h")
    assert getattr(found, field) == merged
    assert found.hostname == "h"


def merged_host(host: HostConfig, **given: Any) -> tuple[HostConfig, list[str]]:
    request = CreateRequest(cmd=["x"], host_config=host, **given)
    daemon = ContainerDefaults(
        log_opts={"max-size": "1m"}, cgroupns_mode="private", ulimits=[Ulimit(name="nofile", soft=5, hard=6)], init=True, timezone="local"
    )
    config = merge_config(request, ContainerConfig(), "h")
    return merge_host_config(request, config, defaults=daemon, limits=HostLimits(cpu_count=1, cpus="0", nodes="0"))


@pytest.mark.parametrize(
    ("given", "field", "merged"),
    [
        ({}, "network_mode", "bridge"),
        ({"network_mode": "host"}, "network_mode", "host"),
        ({"memory": 8 << 20}, "memory_swap", 16 << 20),
        ({"memory": 8 << 20, "memory_swap": -1}, "memory_swap", -1),
        ({}, "shm_size", 64 << 20),
        ({"shm_size": 1}, "shm_size", 1),
        ({}, "cgroupns_mode", "private"),
        ({"privileged": True}, "cgroupns_mode", "host"),
        ({"cgroupns_mode": "host"}, "cgroupns_mode", "host"),
        ({}, "ulimits", [Ulimit(name="nofile", soft=5, hard=6)]),
        ({"ulimits": [Ulimit(name="nofile", soft=1, hard=2)]}, "ulimits", [Ulimit(name="nofile", soft=1, hard=2)]),
        ({}, "init", True),
        ({"init": False}, "init", False),
        ({}, "timezone", "local"),
        ({"timezone": "Asia/Kolkata"}, "timezone", "Asia/Kolkata"),
        ({"pids_limit": -1}, "pids_limit", None),
        ({"privileged": True}, "security_opt", ["label=disable"]),
        ({}, "log_config", LogConfig(type="", config={"max-size": "1m"})),
        ({"log_config": LogConfig(config={"max-file": "2"})}, "log_config", LogConfig(type="", config={"max-size": "1m", "max-file": "2"})),
        ({"log_config": LogConfig(type="none")}, "log_config", LogConfig(type="none", config={})),
        ({"log_config": LogConfig(type="json-file")}, "log_config", LogConfig(type="json-file", config={"max-size": "1m"})),
    ],
)
def test_defaults_of_the_daemon(given: dict[str, Any], field: str, merged: Any) -> None:
    host, warnings = merged_host(HostConfig(**given))
    assert getattr(host, field) == merged
    assert warnings == []


def test_on_cgroup_v2_a_privileged_container_has_a_cgroup_namespace_too() -> None:
    request = CreateRequest(cmd=["x"], host_config=HostConfig(privileged=True))
    daemon = ContainerDefaults(cgroupns_mode="private", privileged_cgroupns_mode="private")
    limits = HostLimits(cpu_count=1, cpus="0", nodes="0")
    host, _ = merge_host_config(request, merge_config(request, ContainerConfig(), "h"), defaults=daemon, limits=limits)
    assert host.cgroupns_mode == "private"


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, None),
        ({"size": "20m"}, 20 << 20),
        ({"SIZE": "1.5GiB"}, 3 << 29),
        ({"size": "0"}, 0),
        ({"size": "8191p"}, 8191 << 50),
        ({"size": "100"}, 100),
    ],
)
def test_the_size_of_a_containers_tree(options: dict[str, str], size: int | None) -> None:
    assert storage_size(options) == size
    assert merged_host(HostConfig(storage_opt=options))[0].storage_opt == options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"Foo": "1"}, "Unknown option foo"),
        ({"size": "1G", "foo": "1"}, "Unknown option foo"),
        ({"size": ""}, "invalid size: ''"),
        ({"size": "-1"}, "invalid size: '-1'"),
        ({"size": "much"}, "invalid size: 'much'"),
        ({"size": "1x"}, "invalid suffix: 'x'"),
        ({"size": "9223372036854775808"}, "invalid size: '9223372036854775808'"),
        ({"size": "8192p"}, "invalid size: '8192p'"),
        ({"size": "1" * 400}, f'strconv.ParseFloat: parsing "{"1" * 400}": value out of range'),
        ({"size": "0x1p80"}, "invalid size: '0x1p80'"),
    ],
)
def test_storage_options_are_refused_in_dockers_words(options: dict[str, str], words: str) -> None:
    with pytest.raises(SystemFailure) as raised:
        merged_host(HostConfig(storage_opt=options))
    assert raised.value.message == words
