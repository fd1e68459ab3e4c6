"""`os[/arch[/variant]]`, as containerd/platforms reads it (Parse, Format). Pure; the command line loads it, too."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from sampan.errors import InvalidArgument
from sampan.quoting import go_quote

_SYSTEMS = "aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos"
_ARCHITECTURES = (
    "386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc riscv riscv64 "
    "s390 s390x sparc sparc64 wasm"
)
_OTHER_NAMES = {"i386": "386", "i686": "386", "x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64"}
_ARMS = {"armhf": "v7", "armel": "v6"}
_OS = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)\))?$"
_COMPONENT = r"^[A-Za-z0-9_.-]+$"


class Specifier(NamedTuple):
    """What somebody asks for."""

    os: str
    architecture: str
    variant: str = ""
    """Empty: any"""
    os_version: str = ""

    def __str__(self) -> str:
        """`linux/arm64/v8` (Format)."""
        return text_of(self.os, self.architecture, self.variant)


def text_of(system: str, architecture: str, variant: str = "") -> str:
    """`linux/arm/v7`"""
    return "/".join(part for part in (system, architecture, variant) if part)


def parse(text: str) -> Specifier:
    """Read a specifier; what it leaves out is this machine's. Raises InvalidArgument in containerd's words."""
    parts = text.split("/", 3)
    head = re.fullmatch(_OS.strip("^$"), parts[0], re.ASCII)
    if head is None:
        raise _invalid(parts[0], f"an invalid OS component of {go_quote(text)}: OSAndVersion specifier", _OS)
    for part in parts[1:]:
        if re.fullmatch(_COMPONENT.strip("^$"), part, re.ASCII) is None:
            raise _invalid(part, f"an invalid component of {go_quote(text)}: platform specifier", _COMPONENT)
    if len(parts) > 3:
        raise InvalidArgument(f"{go_quote(text)}: cannot parse platform specifier: invalid argument")
    system = head[1].lower()
    system, version = "darwin" if system == "macos" else system, head[2] or ""
    if len(parts) == 1:
        if system in _SYSTEMS.split():
            return Specifier(system, machine()[0], "", version)
        architecture, variant = _normal(parts[0], "")
        if architecture not in _ARCHITECTURES.split():
            raise InvalidArgument(f"{go_quote(text)}: unknown operating system or architecture: invalid argument")
        return Specifier("linux", architecture, "" if variant == "v7" else variant)
    architecture, variant = _normal(parts[1], parts[2] if len(parts) > 2 else "")
    if len(parts) == 2 and variant == "v7":
        variant = ""
    if len(parts) == 3 and (architecture, variant) == ("arm64", ""):
        variant = "v8"
    return Specifier(system, architecture, variant, version)


def machine() -> tuple[str, str]:
    """This machine's (architecture, variant) in OCI's words."""
    name = os.uname().machine
    return {"aarch64": ("arm64", "v8"), "armv7l": ("arm", "v7"), "armv6l": ("arm", "v6")}.get(name, (_OTHER_NAMES.get(name, name), ""))


def _normal(architecture: str, variant: str) -> tuple[str, str]:
    """normalizeArch."""
    architecture, variant = architecture.lower(), variant.lower()
    if architecture in _ARMS:
        return "arm", _ARMS[architecture]
    if architecture == "arm":
        return "arm", f"v{variant or 7}" if variant in ("", "5", "6", "7", "8") else variant
    if architecture == "i386":
        return "386", ""
    architecture = _OTHER_NAMES.get(architecture, architecture)
    implied = {"amd64": ("v1",), "arm64": ("8", "v8")}.get(architecture, ())
    return architecture, "" if variant in implied else variant


def _invalid(part: str, what: str, pattern: str) -> InvalidArgument:
    return InvalidArgument(f"{go_quote(part)} is {what} component must match {go_quote(pattern)}: invalid argument")
