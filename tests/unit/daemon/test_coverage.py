"""The generated coverage document is current, and complete against the endpoint list of the API's specification."""

import re
from pathlib import Path
from typing import Any

import pytest

from sampan.api.app import ROUTES
from sampan.api.routes.containers import normalise
from sampan.daemon.coverage import FIELDS, render
from sampan.engine import containers
from sampan.engine.limits import HostLimits
from sampan.engine.merging import ContainerDefaults, merge_config, merge_host_config
from sampan.errors import EngineError
from sampan.spec.docker_api.container import Config, CreateRequest, HostConfig, ThrottleDevice, WeightDevice
from sampan.spec.oci_image import ContainerConfig

DOCUMENT = Path(__file__).parents[3] / "docs/api-coverage.md"


def test_document_is_current() -> None:
    assert DOCUMENT.read_text() == render(), "run: python -m sampan.daemon.coverage > docs/api-coverage.md"


def test_no_route_is_listed_twice() -> None:
    keys = [(route.method, route.path) for route in ROUTES]
    assert sorted(keys) == sorted(set(keys))


@pytest.mark.parametrize(
    "tag",
    [
        "System",
        "Container",
        "Exec",
        "Image",
        "Network",
        "Volume",
        "Distribution",
        "Session",
        "Plugin",
        "Swarm",
        "Node",
        "Service",
        "Task",
        "Secret",
        "Config",
    ],
)
def test_every_tag_of_the_specification_is_there(tag: str) -> None:
    assert any(route.tag == tag for route in ROUTES)


HOST = HostLimits(cpu_count=2, cpus="0-1", nodes="0")
POOR = HostLimits(
    cpu_count=2, cpus="0-1", nodes="0", swap=False, swappiness=False, oom_kill_disable=False, block_weight=False,
    block_weight_device=False, block_throttle=False, real_time=False, memory=False, cpu_shares=False, cpu_quota=False, cpuset=False,
    pids=False,
)  # fmt: skip
SAMPLES: dict[str, Any] = {
    "args_escaped": True, "attach_stdin": True, "attach_stdout": True, "attach_stderr": True, "on_build": ["RUN true"],
    "annotations": {"a": "b"}, "container_id_file": "/f", "cgroup": "c", "cpu_count": 1, "cpu_percent": 1, "io_maximum_iops": 1,
    "io_maximum_bandwidth": 1, "isolation": "hyperv", "kernel_memory": 1 << 30, "kernel_memory_tcp": 1 << 30, "cpu_realtime_period": 1000,
    "cpu_realtime_runtime": 1000, "memory_swap": 2 << 30, "memory_swappiness": 10, "oom_kill_disable": True, "blkio_weight": 10,
    "blkio_weight_device": [WeightDevice(path="/dev/null", weight=10)],
    **{f"blkio_device_{what}": [ThrottleDevice(path="/dev/null", rate=1)] for what in ("read_bps", "write_bps", "read_iops", "write_iops")},
    "storage_opt": {"size": "1G"}, "userns_mode": "private", "memory": 1 << 30, "memory_reservation": 1 << 30, "cpu_shares": 5,
    "cpu_period": 1000, "cpu_quota": 1000, "cpuset_cpus": "0", "cpuset_mems": "0", "pids_limit": 5, "nano_cpus": 10**9,
}  # fmt: skip
NAMED = {"userns_mode": "user namespace", "io_maximum_iops": "IOPs", "cpu_percent": "CPU percent",
         "io_maximum_bandwidth": "bandwidth"}  # fmt: skip
"""What a sentence about a field calls it, where that is not its name."""


def is_read(field: str) -> bool:
    """Whether the engine looks at a field of a container's documents."""
    receivers = r"(config|host|host_config|request|wanted|container|asked)"
    return any(re.search(rf"\b{receivers}\.{field}\b", file.read_text()) for file in Path(containers.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("field", [*Config.__struct_fields__, *HostConfig.__struct_fields__])
def test_no_field_is_ignored_in_silence(field: str) -> None:
    if field not in FIELDS:
        assert is_read(field), f"{field} is read by nobody: say so in sampan.daemon.coverage.FIELDS"
        return
    done, _ = FIELDS[field]
    memory = {"memory": 1 << 30} if field == "memory_swap" else {}
    own, host = ({field: SAMPLES[field]}, {}) if field in Config.__struct_fields__ else ({}, {field: SAMPLES[field]})
    request = normalise(CreateRequest(cmd=["x"], host_config=HostConfig(**host, **memory), **own), (1, 51))

    def merged(limits: HostLimits) -> tuple[Any, str]:
        config = merge_config(request, ContainerConfig(), "h")
        found, warnings = merge_host_config(request, config, defaults=ContainerDefaults(), limits=limits)
        return getattr(config if own else found, field), " ".join(warnings)

    name = NAMED.get(field, "")
    if done == "kept and shown":
        assert merged(HOST) == (SAMPLES[field], "")
    elif done == "ignored, as by docker":
        assert merged(HOST) == (0, "")
    elif done == "discarded with a warning":
        value, words = merged(HOST)
        assert not value
        assert name in words
    elif done == "where the file system has project quotas":
        assert merged(HOST) == (SAMPLES[field], "")
        assert is_read(field)
    elif done == "where the kernel has it":
        assert merged(HOST)[0] == SAMPLES[field]
        try:
            value, words = merged(POOR)
        except EngineError as error:
            value, words = None, error.message
        assert value != SAMPLES[field]
        assert words
    else:
        with pytest.raises(EngineError, match=name or field.replace("_", " ")):
            merged(HOST)
