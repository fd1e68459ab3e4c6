"""Names and options of local volumes, and what mount(2) is to be told of them. Pure; messages are docker's.

Source: moby volume/local/local_unix.go, moby/sys mount/flags_unix.go.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from sampan.errors import InvalidArgument
from sampan.units import parse_size

DRIVER = "local"
ANONYMOUS_LABEL = "com.docker.volume.anonymous"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_NAME_MAX = 255
_KNOWN = ("type", "o", "device", "size")
_REQUIRED = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
OPTIONS_MAX = 4095
"""Bytes of `o`: the kernel takes one page."""
_RDONLY, _REMOUNT, _BIND, _REC = 0x1, 0x20, 0x1000, 0x4000
_SET = {
    "ro": _RDONLY, "nosuid": 0x2, "nodev": 0x4, "noexec": 0x8, "sync": 0x10, "remount": _REMOUNT, "mand": 0x40, "dirsync": 0x80,
    "noatime": 0x400, "nodiratime": 0x800, "bind": _BIND, "rbind": _BIND | _REC, "relatime": 1 << 21, "strictatime": 1 << 24,
}  # fmt: skip
_CLEARED = {
    "rw": _RDONLY, "suid": 0x2, "dev": 0x4, "exec": 0x8, "async": 0x10, "nomand": 0x40, "atime": 0x400, "diratime": 0x800,
    "norelatime": 1 << 21, "nostrictatime": 1 << 24, "defaults": 0,
}  # fmt: skip
_PROPAGATION = {
    "unbindable": 1 << 17, "private": 1 << 18, "slave": 1 << 19, "shared": 1 << 20,
    "runbindable": 1 << 17 | _REC, "rprivate": 1 << 18 | _REC, "rslave": 1 << 19 | _REC, "rshared": 1 << 20 | _REC,
}  # fmt: skip


class MountCall(NamedTuple):
    """The arguments of one mount(2) whose target is the volume's directory."""

    source: str
    kind: str
    flags: int
    data: str


class MountOptions(NamedTuple):
    """`o` of a volume, taken apart."""

    flags: int
    propagation: int
    """A further call's flags; 0: none."""
    data: str


def check_name(name: str) -> None:
    """Raise InvalidArgument for what is no name of a local volume."""
    if len(name) == 1:
        raise InvalidArgument(f"create {name}: volume name is too short, names should be at least two alphanumeric characters")
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )
    if len(name) > _NAME_MAX:
        raise InvalidArgument(f"create {name}: a volume name has at most {_NAME_MAX} characters: file name too long")


def check_options(name: str, options: Mapping[str, str]) -> None:
    """Raise InvalidArgument for options that the local driver does not take."""
    for key in sorted(options):
        if key not in _KNOWN:
            raise InvalidArgument(f'create {name}: invalid option: "{key}"')
    if "size" in options:
        try:
            size = parse_size(options["size"])
        except ValueError as error:
            raise InvalidArgument(f"create {name}: {error}") from None
        if size > 0:
            # docker knows quotas of XFS only; a tmpfs has `size=` in its `o`
            raise InvalidArgument(f"create {name}: quota size requested but no quota support")
    for key, required in _REQUIRED.items():
        for other in required if key in options else ():
            if other not in options:
                raise InvalidArgument(f'create {name}: missing required option: "{other}"')
    if any("\0" in value for value in options.values()) or len(options.get("o", "").encode()) > OPTIONS_MAX:
        raise InvalidArgument(f'create {name}: invalid option: "o"')


def needs_mount(options: Mapping[str, str] | None) -> bool:
    """Whether something is mounted on the volume's directory while it is used."""
    return bool(options and (options.get("device") or options.get("type")))


def is_tmpfs(options: Mapping[str, str] | None) -> bool:
    """Whether its content goes when nobody uses it any more."""
    return bool(options) and (options or {}).get("type") == "tmpfs"


def parse_mount_options(text: str) -> MountOptions:
    """Flags of mount(2) among the words, the rest as data for the file system."""
    flags, propagation, data = 0, 0, []
    for word in text.split(","):
        if word in _SET:
            flags |= _SET[word]
        elif word in _CLEARED:
            flags &= ~_CLEARED[word]
        elif word in _PROPAGATION:
            propagation |= _PROPAGATION[word]
        elif word:
            data.append(word)
    return MountOptions(flags, propagation, ",".join(data))


def mount_calls(options: Mapping[str, str], resolved: str = "") -> list[MountCall]:
    """The calls that mount a volume, in order. resolved: the address for `addr=`, where that has a name.

    A bind mount takes its other flags only when it is remounted (mount(2)).
    """
    device, kind = options.get("device", ""), options.get("type", "")
    text = options.get("o", "")
    if resolved:
        text = ",".join(f"addr={resolved}" if word.startswith("addr=") else word for word in text.split(","))
    found = parse_mount_options(text)
    calls = [MountCall(device, kind, found.flags, found.data)]
    if found.propagation:
        calls.append(MountCall("", "", found.propagation, ""))
    if found.flags & _BIND and found.flags & ~(_BIND | _REC):
        calls.append(MountCall("", "", found.flags & ~_REC | _REMOUNT, found.data))
    return calls


def address_of(text: str) -> str:
    """The value of `addr=` in `o`, of network file systems."""
    return next((word.removeprefix("addr=") for word in text.split(",") if word.startswith("addr=")), "")


def without_password(text: str) -> str:
    """`o` as it may be shown in a message."""
    return re.sub(r"(^|,)password=[^,]*", r"\1password=********", text)
