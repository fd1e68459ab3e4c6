"""Devices by name (Container Device Interface): `--device vendor.com/class=name`, looked up in the specifications of a host's vendors.

Read anew at each start that asks for one. Later directories win over earlier ones; a device that two files of one directory have is none.
"""

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from sampan.engine.launch_failures import StartFailure
from sampan.runtime import plan
from sampan.spec.cdi import BindMount, ContainerEdits, Device, DeviceNode, DeviceSpec, Hook
from sampan.spec.docker_api.container import DeviceRequest

MAX_BYTES = 4 << 20
"""Of one specification."""
HOOK_SECONDS, HOOK_SECONDS_MAX = 60, 3600
"""How long a hook has that says nothing of it, and at most."""
PROBLEMS_MAX = 4096
"""Characters of what is wrong with specifications, where a device is not found: it goes into the container's state."""
_VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")
_KIND = re.compile(r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?/[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
_TYPES: Mapping[str, int] = {"b": stat.S_IFBLK, "c": stat.S_IFCHR, "u": stat.S_IFCHR}
_PROPAGATION = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
_ATTRIBUTES = ("nosuid", "nodev", "noexec", "noatime", "nodiratime", "strictatime")
_DEFAULTS = ("bind", "rbind", "rw", "defaults", "suid", "dev", "exec", "relatime")


class Edits(NamedTuple):
    """What a container has of the devices that it asks for."""

    env: tuple[str, ...] = ()
    devices: tuple[plan.Device, ...] = ()
    mounts: tuple[plan.Mount, ...] = ()
    groups: tuple[int, ...] = ()
    hooks: tuple[plan.Hook, ...] = ()


class Found(NamedTuple):
    """What the directories have."""

    devices: Mapping[str, tuple[DeviceSpec, Device]]
    """By qualified name."""
    problems: Sequence[str]
    """Files that cannot be used, and why."""


def edits_of(requests: Sequence[DeviceRequest], directories: Sequence[str]) -> Edits:
    """What device requests come to. Reads files. Raises StartFailure in docker's words."""
    names: list[str] = []
    for request in requests:
        if request.driver != "cdi" or not directories:
            capabilities = " ".join(f"[{' '.join(group)}]" for group in request.capabilities or ())
            raise StartFailure(f'could not select device driver "{request.driver}" with capabilities: [{capabilities}]', 128)
        if request.count:
            raise StartFailure("unexpected count in CDI device request", 128)
        if request.options:
            raise StartFailure("unexpected options in CDI device request", 128)
        names += request.device_ids or ()
    if not names:
        return Edits()
    found = look(directories)
    missing = [name for name in names if name not in found.devices]
    if missing:
        reasons = "".join(f"; {problem}" for problem in found.problems)
        raise StartFailure(f"CDI device injection failed: unresolvable CDI devices {', '.join(missing)}{reasons[:PROBLEMS_MAX]}", 128)
    try:
        return _together(_edits(names, found))
    except ValueError as error:
        raise StartFailure(f"CDI device injection failed: failed to inject devices: {error}", 128) from None


def write_bundle(directory: str, root: str, hostname: str) -> None:
    """What hooks look for in a container's config.json: where its root is while they run."""
    document = {"ociVersion": "1.2.1", "root": {"path": root}, "hostname": hostname}
    with open(f"{directory}/config.json", "wb") as file:
        file.write(msgspec.json.encode(document))


def look(directories: Sequence[str]) -> Found:
    """Every device of the specifications in these directories. Reads files."""
    devices: dict[str, tuple[DeviceSpec, Device]] = {}
    problems: list[str] = []
    for directory in directories:
        here: dict[str, tuple[DeviceSpec, Device]] = {}
        twice: set[str] = set()
        for path in _files(directory):
            try:
                spec = read(path)
            except ValueError as error:
                problems.append(f"failed to load CDI Spec {path}: {error}")
                continue
            for device in spec.devices:
                name = f"{spec.kind}={device.name}"
                if name in here:
                    twice.add(name)
                    problems.append(f'conflicting device "{name}" ({path})')
                here[name] = (spec, device)
        devices |= here
        for name in twice:
            del devices[name]
    return Found(devices, problems)


def _files(directory: str) -> list[str]:
    try:
        return [f"{directory}/{name}" for name in sorted(os.listdir(directory)) if name.endswith((".json", ".yaml"))]
    except OSError:
        return []


def read(path: str) -> DeviceSpec:
    """One specification. Raises ValueError: it is none, or has what Sampan lacks."""
    try:
        with open(path, "rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ValueError((error.strerror or str(error)).lower()) from None
    if len(text) > MAX_BYTES:
        raise ValueError(f"longer than {MAX_BYTES} bytes")
    if path.endswith(".yaml") and not text.lstrip().startswith(b"{"):
        raise ValueError("YAML is not read by Sampan: write it as JSON (nvidia-ctk cdi generate --format=json)")
    try:
        spec = msgspec.json.decode(text, type=DeviceSpec)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("too deep") from None
    _check(spec)
    return spec


def _check(spec: DeviceSpec) -> None:
    if spec.cdi_version.removeprefix("v") not in _VERSIONS:
        raise ValueError(f'invalid version "{spec.cdi_version}"')
    if _KIND.fullmatch(spec.kind) is None:
        raise ValueError(f'invalid kind "{spec.kind}"')
    names: set[str] = set()
    for device in spec.devices:
        if _NAME.fullmatch(device.name) is None:
            raise ValueError(f'invalid device name "{device.name}"')
        if device.name in names:
            raise ValueError(f'invalid spec, multiple device "{device.name}"')
        names.add(device.name)
    if not names:
        raise ValueError("invalid spec, no devices")
    for edits in (spec.container_edits, *(device.container_edits for device in spec.devices)):
        _check_edits(edits)


def _check_edits(edits: ContainerEdits) -> None:
    for entry in edits.env:
        if entry.find("=") <= 0:
            raise ValueError(f'invalid environment variable "{entry}"')
    for node in edits.device_nodes:
        if not node.path.startswith("/") or node.type not in ("", "b", "c", "u", "p") or set(node.permissions) - set("rwm"):
            raise ValueError(f'device "{node.path}": invalid path, type or permissions')
    for mount in edits.mounts:
        if not (mount.host_path.startswith("/") and mount.container_path.startswith("/")):
            raise ValueError(f'invalid mount "{mount.host_path}" to "{mount.container_path}"')
    for hook in edits.hooks:
        if (
            not hook.path.startswith("/")
            or any(entry.find("=") <= 0 for entry in hook.env)
            or not 0 <= (hook.timeout or 0) <= HOOK_SECONDS_MAX
        ):
            raise ValueError(f'hook "{hook.path}": invalid path, environment or timeout')
    for gid in edits.additional_gids:
        if not 0 <= gid < 2**32:
            raise ValueError(f"invalid group {gid}")


def _edits(names: Sequence[str], found: Found) -> Iterator[ContainerEdits]:
    """Those of the devices, each file's own before its first one's."""
    seen: list[DeviceSpec] = []
    for name in names:
        spec, device = found.devices[name]
        if not any(spec is known for known in seen):
            seen.append(spec)
            yield spec.container_edits
        yield device.container_edits


def _together(every: Iterator[ContainerEdits]) -> Edits:
    """Raises ValueError: what Sampan lacks, or a device that is not there."""
    env: dict[str, str] = {}
    devices: dict[str, plan.Device] = {}
    mounts: dict[str, plan.Mount] = {}
    groups: dict[int, None] = {}
    hooks: list[plan.Hook] = []
    for edits in every:
        hooks += [_hook(hook) for hook in edits.hooks]
        if edits.net_devices:
            raise ValueError("netDevices: not implemented by Sampan yet")
        if edits.intel_rdt is not None:
            raise ValueError("intelRdt: not implemented by Sampan yet")
        env |= {entry.partition("=")[0]: entry for entry in edits.env}
        devices |= {node.path: _device(node) for node in edits.device_nodes}
        mounts |= {mount.container_path: _mount(mount) for mount in edits.mounts}
        groups |= dict.fromkeys(gid for gid in edits.additional_gids if gid)
    return Edits(tuple(env.values()), tuple(devices.values()), tuple(mounts.values()), tuple(groups), tuple(hooks))


def _hook(hook: Hook) -> plan.Hook:
    if hook.hook_name != "createContainer":
        raise ValueError(f"{hook.hook_name} hook {hook.path}: not implemented by Sampan yet (createContainer is)")
    return plan.Hook(hook.path, tuple(hook.args or [hook.path]), tuple(hook.env), hook.timeout or HOOK_SECONDS)


def _device(node: DeviceNode) -> plan.Device:
    """A node as it is on the host: what a specification says of it must be so there."""
    host_path = node.host_path or node.path
    try:
        info = os.lstat(host_path)
    except OSError as error:
        raise ValueError(f'failed to stat CDI host device "{host_path}": {(error.strerror or "").lower()}') from None
    if stat.S_IFMT(info.st_mode) not in (stat.S_IFBLK, stat.S_IFCHR) or (node.type and _TYPES.get(node.type) != stat.S_IFMT(info.st_mode)):
        raise ValueError(f'CDI device ("{node.path}", "{host_path}"): the host has no such device of this type')
    said = (
        ("major", node.major or None, os.major(info.st_rdev)),
        ("minor", node.minor or None, os.minor(info.st_rdev)),
        ("fileMode", node.file_mode, stat.S_IMODE(info.st_mode)),
        ("uid", node.uid, info.st_uid),
        ("gid", node.gid, info.st_gid),
    )
    for field, wanted, has in said:
        if wanted is not None and wanted != has:
            raise ValueError(
                f'CDI device ("{node.path}", "{host_path}"): another {field} than the host\'s is not implemented by Sampan yet'
            )
    return plan.Device(host_path=host_path, container_path=node.path, permissions=node.permissions or "rwm")


def _mount(mount: BindMount) -> plan.Mount:
    if mount.type not in ("", "bind", "none"):
        raise ValueError(f"mount {mount.container_path}: type {mount.type} is not implemented by Sampan yet")
    unknown = set(mount.options) - {"ro", *_DEFAULTS, *_PROPAGATION, *_ATTRIBUTES}
    if unknown:
        raise ValueError(f"mount {mount.container_path}: option {', '.join(sorted(unknown))} is not implemented by Sampan yet")
    return plan.Mount(
        destination=mount.container_path,
        source=mount.host_path,
        readonly="ro" in mount.options,
        propagation=next((word for word in mount.options if word in _PROPAGATION), "rprivate"),
        recursive="rbind" in mount.options,
        attributes=tuple(word for word in mount.options if word in _ATTRIBUTES),
    )
