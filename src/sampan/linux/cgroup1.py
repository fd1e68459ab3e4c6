"""The device whitelist of cgroup v1."""

from sampan.linux.kernelfile import write

Rule = tuple[str, int, int, str]
"""(type a|b|c, major, minor, access), -1 is any."""


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
