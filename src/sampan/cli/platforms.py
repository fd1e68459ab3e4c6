"""--platform on the wire, read as containerd/platforms reads it."""

from __future__ import annotations

from sampan.cli import fastjson
from sampan.cli.flags import quote
from sampan.cli.http import CliError

_SYSTEMS = "aix android darwin dragonfly freebsd hurd illumos ios js linux nacl netbsd openbsd plan9 solaris windows zos"
_ARCHITECTURES = (
    "386 amd64 amd64p32 arm armbe arm64 arm64be ppc64 ppc64le loong64 mips mipsle mips64 mips64le mips64p32 mips64p32le ppc riscv riscv64 "
    "s390 s390x sparc sparc64 wasm"
)
_OTHER_NAMES = {"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "armhf": "arm", "armel": "arm", "i386": "386"}
_OS_PATTERN = r"^([A-Za-z0-9_-]+)(?:\(([A-Za-z0-9_.-]*)\))?$"


def _plain(text: str) -> bool:
    return text != "" and text.isascii() and text.replace("-", "").replace("_", "a").isalnum()


def _default_architecture() -> str:
    import os

    machine = os.uname().machine
    return _OTHER_NAMES.get(machine, machine)


def as_json(text: str, prefix: str = "") -> str:
    """`os[/arch[/variant]]` as the JSON object that the API takes. Raises CliError in containerd's words."""
    parts = text.split("/")
    system, _, version = parts[0].partition("(")
    good_version = not version or (version.endswith(")") and (version == ")" or _plain(version[:-1].replace(".", ""))))
    if not _plain(system) or not good_version:
        why = f"is an invalid OS component of {quote(text)}: OSAndVersion specifier component must match {quote(_OS_PATTERN)}"
        raise CliError(f"{prefix}{quote(parts[0])} {why}: invalid argument")
    for part in parts[1:]:
        if not _plain(part.replace(".", "a")):
            why = f'is an invalid component of {quote(text)}: platform specifier component must match "^[A-Za-z0-9_.-]+$"'
            raise CliError(f"{prefix}{quote(part)} {why}: invalid argument")
    if len(parts) > 3:
        raise CliError(f"{prefix}{quote(text)}: cannot parse platform specifier: invalid argument")
    system = {"macos": "darwin"}.get(system.lower(), system.lower())
    found = {"architecture": "", "os": system}
    if len(parts) == 1 and system not in _SYSTEMS.split():
        architecture = _OTHER_NAMES.get(system, system)
        if architecture not in _ARCHITECTURES.split():
            raise CliError(f"{prefix}{quote(text)}: unknown operating system or architecture: invalid argument")
        return fastjson.dumps({"architecture": architecture, "os": "linux"})
    found["architecture"] = _default_architecture() if len(parts) == 1 else _OTHER_NAMES.get(parts[1].lower(), parts[1].lower())
    if version and version != ")":
        found["os.version"] = version[:-1]
    if len(parts) == 3:
        variant = parts[2].lower()
        found["variant"] = f"v{variant}" if variant in ("5", "6", "7", "8") else variant
    return fastjson.dumps(found)
