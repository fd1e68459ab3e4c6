"""`os[/arch[/variant]]` of a create request against an image's own platform (containerd platforms.Parse)."""

import os
import re

from sampan.errors import InvalidArgument
from sampan.spec.oci_layout import Platform

_SYSTEMS = frozenset(("darwin", "freebsd", "linux", "windows"))
_ARCHITECTURES = frozenset(("386", "amd64", "arm", "arm64", "loong64", "mips64le", "ppc64le", "riscv64", "s390x"))
_OTHER_NAMES = {
    "x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386", "macos": "darwin",
}  # fmt: skip
_PART = re.compile(r"[A-Za-z0-9_.()-]+")


def parse(text: str) -> tuple[str, str]:
    """(os, architecture) of a specifier; what it leaves out is this host's. Raises InvalidArgument in docker's words."""
    parts = [_OTHER_NAMES.get(part.lower(), part.lower()) for part in text.split("/")]
    if not 1 <= len(parts) <= 3 or not all(map(_PART.fullmatch, parts)):
        raise InvalidArgument(f'"{text}": cannot parse platform specifier: invalid argument')
    machine = os.uname().machine
    if len(parts) == 1:
        if parts[0] in _ARCHITECTURES:
            return "linux", parts[0]
        if parts[0] not in _SYSTEMS:
            raise InvalidArgument(f'"{text}": unknown operating system or architecture: invalid argument')
        return parts[0], _OTHER_NAMES.get(machine, machine)
    return parts[0], parts[1]


def wanted(text: str) -> Platform:
    """What `os[/arch[/variant]]` asks a registry for. Raises InvalidArgument in docker's words."""
    system, architecture = parse(text)
    parts = text.split("/")
    return Platform(architecture, system, parts[2] if len(parts) == 3 else "")


def matches(text: str, system: str, architecture: str) -> bool:
    """Whether an image of system/architecture is what the specifier asks for. Raises InvalidArgument. A variant is not compared:
    docker runs an image without one under any."""
    return parse(text) == (system, architecture)
