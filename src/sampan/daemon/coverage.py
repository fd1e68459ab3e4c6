"""docs/api-coverage.md out of the tables: `python -m sampan.daemon.coverage > docs/api-coverage.md`. A test keeps it current."""

import sys
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Final

import msgspec

from sampan.api.app import ROUTES
from sampan.daemon.config import ALWAYS_SO, MISSING
from sampan.daemon.options import BY_KEY
from sampan.spec.docker_api.base import go_name
from sampan.spec.docker_api.container import Config, HostConfig
from sampan.version import API_VERSION, MIN_API_VERSION

_WORDS = {"served": "yes", "partial": "in part", "refused": "refused in docker's words", "missing": "501"}
_SHOWN = "kept and shown"
_REFUSED = "refused by name"
_KERNEL = "where the kernel has it"
_DISK = "where the file system has project quotas"
_DISCARDED = "discarded with a warning"
_IGNORED = "ignored, as by docker"

FIELDS: Final[Mapping[str, tuple[str, str]]] = {
    "args_escaped": (_SHOWN, "Windows'"),
    "attach_stdin": (_SHOWN, "the client's affair"),
    "attach_stdout": (_SHOWN, "the client's affair"),
    "attach_stderr": (_SHOWN, "the client's affair"),
    "on_build": (_SHOWN, "a build's affair"),
    "annotations": (_SHOWN, "for OCI runtimes"),
    "container_id_file": (_SHOWN, "the client writes it"),
    "cgroup": (_SHOWN, "docker does nothing with it"),
    "cpu_count": (_SHOWN, "Windows'"),
    "cpu_percent": (_DISCARDED, "Windows'"),
    "io_maximum_iops": (_REFUSED, "Windows'"),
    "io_maximum_bandwidth": (_REFUSED, "Windows'"),
    "isolation": (_REFUSED, "but `default`: Windows'"),
    "kernel_memory": (_IGNORED, "kernels no longer have it"),
    "kernel_memory_tcp": (_IGNORED, "kernels no longer have it"),
    "cpu_realtime_period": (_KERNEL, "cgroup v1 with CONFIG_RT_GROUP_SCHED; else refused"),
    "cpu_realtime_runtime": (_KERNEL, "cgroup v1 with CONFIG_RT_GROUP_SCHED; else refused"),
    **dict.fromkeys(
        ("memory", "memory_reservation", "cpu_shares", "cpu_period", "cpu_quota", "cpuset_cpus", "cpuset_mems", "pids_limit"),
        (_KERNEL, "else discarded with a warning"),
    ),
    "nano_cpus": (_KERNEL, "else refused"),
    "memory_swap": (_KERNEL, "else unlimited swap, with a warning"),
    "memory_swappiness": (_KERNEL, "cgroup v1; else discarded with a warning"),
    "oom_kill_disable": (_KERNEL, "cgroup v1; else discarded with a warning"),
    "blkio_weight": (_KERNEL, "else discarded with a warning"),
    "blkio_weight_device": (_KERNEL, "else discarded with a warning"),
    "blkio_device_read_bps": (_KERNEL, "else discarded with a warning"),
    "blkio_device_write_bps": (_KERNEL, "else discarded with a warning"),
    "blkio_device_read_iops": (_KERNEL, "else discarded with a warning"),
    "blkio_device_write_iops": (_KERNEL, "else discarded with a warning"),
    "storage_opt": (
        _DISK,
        "XFS mounted with `prjquota`, ext4 with its features `quota` and `project` too; else `size` is refused in docker's words",
    ),
    "userns_mode": ("yes", "`host`, or by `userns-remap`; modes of others (`auto`, `keep-id`) are refused"),
}
"""Fields of Config and HostConfig that are not simply done; a test tries each."""


def render() -> str:
    """The whole document."""
    lines = [
        "# Engine API coverage",
        "",
        f"Versions {MIN_API_VERSION} to {API_VERSION}. Written by `python -m sampan.daemon.coverage`; do not edit.",
        "What is not there yet answers 501 with a message that names it.",
    ]
    counts = {word: sum(route.coverage == word for route in ROUTES) for word in _WORDS}
    summary = ", ".join(f"{_WORDS[word]}: {count}" for word, count in counts.items())
    lines += ["", f"{len(ROUTES)} endpoints; {summary}."]
    for tag, routes in groupby(sorted(ROUTES, key=lambda route: route.tag), key=lambda route: route.tag):
        lines += ["", f"## {tag}", "", "| endpoint | served | note |", "|---|---|---|"]
        lines += [f"| {route.method} {route.path.replace(':.*', '')} | {_WORDS[route.coverage]} | {route.note} |" for route in routes]
    for title, body in (("Config", Config), ("HostConfig", HostConfig)):
        lines += ["", f"## Fields of {title}", "", "| field | done | note |", "|---|---|---|", *_fields(body)]
    lines += ["", "## Keys of daemon.json", "", "| key | done | note |", "|---|---|---|", *_keys()]
    return "\n".join(lines) + "\n"


def _fields(body: type[msgspec.Struct]) -> Iterator[str]:
    for name in sorted(body.__struct_fields__, key=go_name):
        done, note = FIELDS.get(name, ("yes", ""))
        yield f"| {go_name(name)} | {done} | {note} |"


def _keys() -> Iterator[str]:
    for key in sorted(BY_KEY):
        done = _REFUSED if key in MISSING else "always so" if key in ALWAYS_SO else "yes"
        yield f"| {key} | {done} | {MISSING.get(key) or ALWAYS_SO.get(key, '')} |"


if __name__ == "__main__":
    sys.stdout.write(render())
