"""Other limits and another restart policy for a container that is there (docker update). Pure but for apply."""

import errno
import os
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from sampan.engine.launching import resources_of, shares_refused
from sampan.engine.limits import HostLimits, check_limits
from sampan.engine.merging import check_restart_policy
from sampan.errors import Conflict, InvalidArgument, SystemFailure
from sampan.linux import cgroup2
from sampan.linux.kernelfile import write
from sampan.network.ports import port_requests, split
from sampan.runtime.cgroups import Layout, resource_writes
from sampan.spec.docker_api.container import Config, HostConfig, PortBinding, UpdateRequest

PortBindings = Mapping[str, list[PortBinding] | None]

_CHANGEABLE = (
    "blkio_weight",
    "cpu_shares",
    "nano_cpus",
    "cpu_period",
    "cpu_quota",
    "cpu_realtime_period",
    "cpu_realtime_runtime",
    "cpuset_cpus",
    "cpuset_mems",
    "memory",
    "memory_swap",
    "memory_reservation",
)
_UNSET = {"pids.max": "max"}
"""What is written where a limit is taken away."""


def updated(host: HostConfig, asked: UpdateRequest, limits: HostLimits) -> tuple[HostConfig, list[str]]:
    """(what a container has then, warnings); 0, "" and None of what is asked for mean `as it is` (moby container_unix.go UpdateContainer).

    Raises InvalidArgument: it can be of no container. Conflict: not of this one.
    """
    wanted = HostConfig(**{name: getattr(asked, name) for name in (*_CHANGEABLE, "pids_limit", "restart_policy")})
    check_restart_policy(wanted)
    wanted, warnings = check_limits(wanted, limits, update=True)
    _check_conflicts(host, wanted)
    changes = {name: value for name in _CHANGEABLE if (value := getattr(wanted, name))}
    if wanted.memory and not wanted.memory_swap and not host.memory_swap:
        changes["memory_swap"] = 2 * wanted.memory  # as when it is created with that limit
    if wanted.pids_limit is not None:
        changes["pids_limit"] = max(wanted.pids_limit, 0)
    if wanted.restart_policy.name:
        changes["restart_policy"] = wanted.restart_policy
    return msgspec.structs.replace(host, **changes), warnings


def republished(config: Config, host: HostConfig, removed: Sequence[str], added: PortBindings) -> HostConfig:
    """What a container has with other published ports; removed: as in `80/tcp`. Raises InvalidArgument, Conflict."""
    if host.network_mode.startswith("container:"):
        raise InvalidArgument("conflicting options: port publishing and the container type network mode")
    port_requests((), added, False)
    bindings = {port_name(key): list(items or ()) for key, items in (host.port_bindings or {}).items()}
    for port in removed:
        if not bindings.pop(port, None):
            exposed = host.publish_all_ports and port in map(port_name, config.exposed_ports or ())
            raise Conflict(f"port {port} is {'published by --publish-all' if exposed else 'not published'}")
    for key, items in added.items():
        have = bindings.setdefault(port_name(key), [])
        fixed = {item for item in have if item.host_port}
        for item in items or ():
            if item in fixed:
                raise Conflict(f"port {port_name(key)} is published as {item.host_ip or '0.0.0.0'}:{item.host_port} already")
            have.append(item)
            if item.host_port:
                fixed.add(item)
    return msgspec.structs.replace(host, port_bindings=bindings)


def port_name(port: str) -> str:
    """`80/tcp` for whatever way of writing it. Raises InvalidArgument."""
    number, protocol = split(port)
    return f"{number}/{protocol}"


def _check_conflicts(host: HostConfig, wanted: HostConfig) -> None:
    for asked, have, words in (
        (wanted.nano_cpus, host.cpu_period, "Nano CPUs cannot be updated as CPU Period has"),
        (wanted.nano_cpus, host.cpu_quota, "Nano CPUs cannot be updated as CPU Quota has"),
        (wanted.cpu_period, host.nano_cpus, "CPU Period cannot be updated as NanoCPUs has"),
        (wanted.cpu_quota, host.nano_cpus, "CPU Quota cannot be updated as NanoCPUs has"),
    ):
        if asked > 0 and have > 0:
            raise Conflict(f"Conflicting options: {words} already been set")
    if not wanted.memory_swap and 0 < host.memory_swap < wanted.memory:
        raise Conflict("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
    if host.auto_remove and wanted.restart_policy.name not in ("", "no"):
        raise Conflict("Restart policy cannot be updated because AutoRemove is enabled for the container")


def apply(layout: Layout, cgroup: str, old: HostConfig, new: HostConfig) -> None:
    """Give a running container's cgroups the new limits; on failure they have the old ones again. Raises SystemFailure."""
    if refused := shares_refused(new.cpu_shares, layout):
        raise SystemFailure(refused)
    before = _values(layout, cgroup, old)
    after = _values(layout, cgroup, new)
    writes = {place: value for place, value in after.items() if before.get(place) != value}
    writes.update({place: unset for place in before.keys() - after.keys() if (unset := _unset(place))})
    try:
        _write(writes)
    except OSError as error:
        restored = {place: before.get(place) or _unset(place) for place in writes}
        _write({place: value for place, value in restored.items() if value}, what_can_be=True)
        value = next(value for (file, _), value in writes.items() if file == error.filename)
        raise SystemFailure(f"cannot set {os.path.basename(error.filename)} to {value}: {error.strerror}") from error


_Place: TypeAlias = tuple[str, str]
"""A file, and which of its lines where it has one for each device."""


def _values(layout: Layout, cgroup: str, host: HostConfig) -> dict[_Place, str]:
    return {
        (file, _line(value)): value
        for file, value, required in resource_writes(layout, cgroup, resources_of(host))
        if os.path.exists(file) or (required and not cgroup2.has_bfq_instead(file))
    }


def _line(value: str) -> str:
    """`8:0` or `default` of a value that is for one device."""
    first = value.partition(" ")[0]
    return first if first == "default" or ":" in first else ""


def _unset(place: _Place) -> str:
    return _UNSET.get(os.path.basename(place[0]), "")


def _write(values: Mapping[_Place, str], *, what_can_be: bool = False) -> None:
    """Write each file, in an order in which the kernel takes them: a memory limit is never above that with swap (EINVAL).

    what_can_be: what it refuses in whatever order stays as it is. Else raises OSError.
    """
    left = dict(values)
    for is_last in (False, True):
        for place, value in list(left.items()):
            try:
                _put(place[0], value)
            except OSError as error:
                if not what_can_be and (is_last or error.errno != errno.EINVAL):
                    raise
            else:
                del left[place]


def _put(file: str, value: str) -> None:
    try:
        write(file, value)
    except OSError as error:  # the kernel's refusal of a value does not name the file
        raise OSError(error.errno, error.strerror, file) from None
