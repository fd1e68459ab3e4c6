"""Namespaces that a container shares with another: the modes `container:NAME` of network, IPC and PID."""

import contextlib
import os

import msgspec

from sampan.engine.containerstore import Container, Containers
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.spec.docker_api.container import HostConfig

PREFIX = "container:"


def resolved(host: HostConfig, containers: Containers) -> HostConfig:
    """With containers' IDs in place of their names: the mode outlives a renaming. Raises InvalidArgument."""
    modes = {name: getattr(host, name) for name in ("network_mode", "ipc_mode", "pid_mode")}
    try:
        changes = {name: PREFIX + containers.find(mode.removeprefix(PREFIX)).id for name, mode in modes.items() if mode.startswith(PREFIX)}
    except NotFound as error:
        raise InvalidArgument(error.message) from None  # clients take a 404 of create for a missing image, and pull it
    return msgspec.structs.replace(host, **changes) if changes else host


def descriptors(host: HostConfig, containers: Containers, undo: contextlib.ExitStack) -> dict[str, int]:
    """`ipcns` and `pidns` of a launch, where they are another's: pidfds, which setns(2) takes, closed by undo.

    Raises InvalidArgument, Conflict in docker's words.
    """
    found: dict[str, int] = {}
    for name, mode in (("ipc", host.ipc_mode), ("pid", host.pid_mode)):
        if mode.startswith(PREFIX):
            found[f"{name}ns"] = _handle(name, mode.removeprefix(PREFIX), containers)
            undo.callback(os.close, found[f"{name}ns"])
    return found


def _handle(name: str, ref: str, containers: Containers) -> int:
    failure = f"failed to join {name.upper()} namespace: "
    try:
        other = containers.find(ref)
    except NotFound as error:
        raise InvalidArgument(failure + error.message) from None
    if not _runs(other):
        raise Conflict(f"{failure}container {ref} is not running")
    if name == "ipc" and other.host_config.ipc_mode != "shareable":
        raise InvalidArgument(f"{failure}container {ref}: non-shareable IPC (hint: use IpcMode:shareable for the donor container)")
    assert other.live is not None
    return os.dup(other.live.pidfd)


def _runs(container: Container) -> bool:
    live = container.live
    return container.is_running and live is not None and not live.has_ended
