"""Specifications of the Container Device Interface (tags.cncf.io/container-device-interface, 1.1.0). An unknown field is an error."""

from typing import Any

import msgspec


class _Body(msgspec.Struct, frozen=True, kw_only=True, rename="camel", forbid_unknown_fields=True):
    pass


class DeviceNode(_Body, frozen=True, kw_only=True):
    """A device; host_path "" is path. type, numbers, mode and owner are the host's where they are left out."""

    path: str
    host_path: str = ""
    type: str = ""
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = ""
    uid: int | None = None
    gid: int | None = None


class BindMount(_Body, frozen=True, kw_only=True):
    """Files of the host; options as in mount(8)."""

    host_path: str
    container_path: str
    options: list[str] = []
    type: str = ""


class Hook(_Body, frozen=True, kw_only=True):
    """A program that runtimes run at some point of a container's life."""

    hook_name: str
    path: str
    args: list[str] = []
    env: list[str] = []
    timeout: int | None = None


class ContainerEdits(_Body, frozen=True, kw_only=True):
    """What is to be otherwise in a container that has a device."""

    env: list[str] = []
    device_nodes: list[DeviceNode] = []
    net_devices: list[dict[str, Any]] = []
    hooks: list[Hook] = []
    mounts: list[BindMount] = []
    intel_rdt: dict[str, Any] | None = None
    additional_gids: list[int] = []


class Device(_Body, frozen=True, kw_only=True):
    """One device that can be asked for by its name."""

    name: str
    annotations: dict[str, str] = {}
    container_edits: ContainerEdits = ContainerEdits()


class DeviceSpec(_Body, frozen=True, kw_only=True):
    """A file: devices of one kind, `vendor.com/class`, and what all of them need."""

    cdi_version: str
    kind: str
    annotations: dict[str, str] = {}
    devices: list[Device]
    container_edits: ContainerEdits = ContainerEdits()
