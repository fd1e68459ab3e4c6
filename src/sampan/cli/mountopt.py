"""`--mount type=bind,src=/a,dst=/b,readonly`: parsed into the API's Mount object, with docker's messages."""

from __future__ import annotations

import os
import sys

from sampan.cli.opts import split_csv, to_bool
from sampan.units import parse_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def parse_mount(text: str) -> dict[str, Any]:
    """One --mount as the API's Mount. ValueError in docker's words."""
    mount: dict[str, Any] = {"Type": "volume"}
    for field in split_csv(text):
        key, equals, value = field.partition("=")
        _set(mount, field, key.lower(), value, bare=not equals)
    _check(mount)
    return {key: value for key, value in mount.items() if value not in ("", False)}


def _volume(mount: dict[str, Any]) -> dict[str, Any]:
    options: dict[str, Any] = mount.setdefault("VolumeOptions", {"DriverConfig": {}})
    return options


def _set(mount: dict[str, Any], field: str, key: str, value: str, *, bare: bool) -> None:
    if bare:
        if key not in ("readonly", "ro", "volume-nocopy", "bind-nonrecursive"):
            raise ValueError(f"invalid field '{field}' must be a key=value pair")
        value = "true"
    if key == "type":
        mount["Type"] = value.lower()
    elif key in ("source", "src"):
        mount["Source"] = os.path.abspath(value) if value.startswith(".") else value
    elif key in ("target", "dst", "destination"):
        mount["Target"] = value
    elif key in ("readonly", "ro"):
        mount["ReadOnly"] = to_bool(value, key)
    elif key == "consistency":
        mount["Consistency"] = value.lower()
    elif key.startswith("bind-"):
        _set_bind(mount.setdefault("BindOptions", {}), field, key, value, bare=bare)
    elif key.startswith("volume-"):
        _set_volume(mount, field, key, value)
    elif key == "image-subpath":
        mount.setdefault("ImageOptions", {})["Subpath"] = value
    elif key == "tmpfs-size":
        try:
            mount.setdefault("TmpfsOptions", {})["SizeBytes"] = parse_size(value)
        except ValueError:
            raise ValueError(f"invalid value for {key}: {value}") from None
    elif key == "tmpfs-mode":
        if not value or any(digit not in "01234567" for digit in value) or int(value, 8) >= 1 << 32:
            raise ValueError(f"invalid value for {key}: {value}")
        mount.setdefault("TmpfsOptions", {})["Mode"] = int(value, 8)
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _set_bind(options: dict[str, Any], field: str, key: str, value: str, *, bare: bool) -> None:
    if key == "bind-propagation":
        options["Propagation"] = value.lower()
    elif key == "bind-nonrecursive":
        options["NonRecursive"] = to_bool(value, key)
        if not bare:
            sys.stderr.write("WARNING: bind-nonrecursive is deprecated, use bind-recursive=disabled instead\n")
    elif key == "bind-recursive":
        names = {"enabled": "", "disabled": "NonRecursive", "writable": "ReadOnlyNonRecursive", "readonly": "ReadOnlyForceRecursive"}
        if value not in names:
            raise ValueError(f'invalid value for {key}: {value} (must be "enabled", "disabled", "writable", or "readonly")')
        if names[value]:
            options[names[value]] = True
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _set_volume(mount: dict[str, Any], field: str, key: str, value: str) -> None:
    name, _, setting = value.partition("=")
    if key == "volume-subpath":
        _volume(mount)["Subpath"] = value
    elif key == "volume-nocopy":
        _volume(mount)["NoCopy"] = to_bool(value, key)
    elif key == "volume-label":
        _volume(mount)
        if name:
            _volume(mount).setdefault("Labels", {})[name] = setting
    elif key == "volume-driver":
        _volume(mount)["DriverConfig"]["Name"] = value
    elif key == "volume-opt":
        _volume(mount)
        if name:
            _volume(mount)["DriverConfig"].setdefault("Options", {})[name] = setting
    else:
        raise ValueError(f"unexpected key '{key}' in '{field}'")


def _check(mount: dict[str, Any]) -> None:
    kind = mount["Type"]
    if not kind:
        raise ValueError("type is required")
    if not mount.get("Target"):
        raise ValueError("target is required")
    for options, owner in (("VolumeOptions", "volume"), ("ImageOptions", "image"), ("BindOptions", "bind"), ("TmpfsOptions", "tmpfs")):
        if options in mount and kind != owner:
            raise ValueError(f"cannot mix '{owner}-*' options with mount type '{kind}'")
    bind = mount.get("BindOptions", {})
    if bind.get("ReadOnlyNonRecursive") and not mount.get("ReadOnly"):
        raise ValueError("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
    if bind.get("ReadOnlyForceRecursive"):
        if not mount.get("ReadOnly"):
            raise ValueError("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
        if bind.get("Propagation") != "rprivate":
            raise ValueError("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
    for group, options_group in list(mount.items()):
        if isinstance(options_group, dict):
            mount[group] = {key: value for key, value in options_group.items() if value not in ("", False, 0)}
