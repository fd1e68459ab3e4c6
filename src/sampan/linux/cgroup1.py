"""The device whitelist of cgroup v1."""

import os

Rule = tuple[str, int, int, str]
"""(type a|b|c, major, minor, access), -1 is any."""


def write(file: str, value: str) -> None:
    """One write(2) to a cgroup file. Raises OSError."""
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def rule_text(rule: Rule) -> str:
    """A rule as devices.allow takes it."""
    kind, major, minor, access = rule
    if kind == "a":
        return "a"
    return f"{kind} {'*' if major < 0 else major}:{'*' if minor < 0 else minor} {access}"


def allow_devices(directory: str, rules: list[Rule]) -> None:
    """Deny everything, then allow the rules. Raises OSError."""
    write(f"{directory}/devices.deny", "a")
    for rule in rules:
        write(f"{directory}/devices.allow", rule_text(rule))
