"""Help texts, made from the option tables: layout and line breaks as cobra and pflag make them for docker."""

from __future__ import annotations

import os

from sampan.cli.http import CliError
from sampan.cli.main import ALIASES, COMMANDS, COMMON, GLOBAL_FLAGS, GROUPS, HIDDEN, PROGRAM, load, usage_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.cli.flags import Command, Flag, Parsed

_TYPES = {
    "bool": "",
    "swap-bytes": "bytes",
    "weight-device": "list",
    "bps-device": "list",
    "iops-device": "list",
    "sysctl": "map",
    "uint64": "uint",
}


def text(words: list[str], options: Parsed | None = None) -> str:
    """The help of a command or group, or of the program for [], with the plugins that its global options lead to."""
    path = " ".join(words)
    if not words:
        return _program(options)
    if path in GROUPS:
        return _group(path)
    spec, _ = load(path)
    return _command(path, spec)


def topic(words: Sequence[str]) -> list[str]:
    """The command or group that `help WORDS` asks about. Raises CliError."""
    known = [word for word in words if not word.startswith("-")]
    path = " ".join(known)
    if not known or path in COMMANDS or path in ALIASES or path in GROUPS:
        return known
    asked = known[-1] if known[0] in COMMANDS or known[0] in GROUPS else " ".join(words)
    raise CliError(f"unknown help topic: {asked}")


def count_problem(command: str, line: str, spec: Command) -> str:
    """What a command with too few or too many arguments is told."""
    low, high = spec.min_args, spec.max_args
    see = "Run"
    if high == 0:
        text = "accepts no arguments"
    elif high is None:
        text, see = f"requires at least {low} argument{'s' if low != 1 else ''}", "See"
    elif low == high:
        text = f"requires {low} argument{'s' if low != 1 else ''}"
    elif low == 0:
        text = f"requires at most {high} argument{'s' if high != 1 else ''}"
    else:
        text = f"requires at least {low} and at most {high} argument{'s' if high != 1 else ''}"
    return f"{PROGRAM}: '{command}' {text}\n\nUsage:  {line}\n\n{see} '{command} --help' for more information"


def _command(path: str, spec: Command) -> str:
    lines = [f"Usage:  {usage_line(path, spec)}", "", spec.long or spec.short, ""]
    if len(spec.aliases) > 1:
        lines += ["Aliases:", "  " + ", ".join(f"{PROGRAM} {alias}" for alias in spec.aliases), ""]
    flags = [flag for flag in spec.flags if not flag.hidden]
    if flags:
        lines += ["Options:", *flag_lines(flags), ""]
    return "\n".join(lines[:-1]) + "\n"


def _group(name: str) -> str:
    commands = [path.split()[1] for path in COMMANDS if path.startswith(name + " ") and path not in HIDDEN]
    lines = [f"Usage:  {PROGRAM} {name} COMMAND", "", GROUPS[name], "", "Commands:"]
    lines += _listing([(word, f"{name} {word}") for word in sorted(commands)])
    return "\n".join([*lines, "", f"Run '{PROGRAM} {name} COMMAND --help' for more information on a command.", ""])


def _program(options: Parsed | None) -> str:
    from sampan.cli import cliplugins

    plugins = cliplugins.listed(options) if options is not None else []
    managing = {**GROUPS, **{f"{one.name}*": one.texts.get("ShortDescription", "") for one in plugins if not one.problem}}
    width = max(11, *map(len, managing))
    others = sorted(path for path in COMMANDS if " " not in path and path not in COMMON and path not in HIDDEN)
    lines = [f"Usage:  {PROGRAM} [OPTIONS] COMMAND", "", "A self-sufficient runtime for containers", "", "Common Commands:"]
    lines += _listing([(path, path) for path in COMMON])
    lines += ["", "Management Commands:", *(f"  {name:<{width}} {short}" for name, short in sorted(managing.items()))]
    if not os.environ.get("DOCKER_HIDE_LEGACY_COMMANDS"):
        lines += ["", "Commands:", *_listing([(path, path) for path in others])]
    if invalid := [f"  {one.name:<11} {one.problem}" for one in plugins if one.problem]:
        lines += ["", "Invalid Plugins:", *invalid]
    lines += ["", "Global Options:", *flag_lines(GLOBAL_FLAGS)]
    return "\n".join([*lines, "", f"Run '{PROGRAM} COMMAND --help' for more information on a command.", ""])


def _listing(commands: list[tuple[str, str]]) -> list[str]:
    width = max(11, *(len(word) for word, _ in commands))
    lines: list[str] = []
    for word, path in commands:
        try:
            spec, _ = load(path)
        except CliError:
            continue  # a command of the table that this installation does not have
        lines.append(f"  {word:<{width}} {spec.short}")
    return lines


def flag_lines(flags: list[Flag] | tuple[Flag, ...], columns: int = 0) -> list[str]:
    """The options of a table, one block each, wrapped to the terminal's width (80 without one)."""
    if not columns:
        try:
            columns = os.get_terminal_size(0).columns
        except OSError:
            columns = 80
    heads: list[str] = []
    for flag in flags:
        kind = kind_shown(flag)
        heads.append((f"  -{flag.short}, " if flag.short else "      ") + f"--{flag.name}" + (f" {kind}" if kind else ""))
    indent = max(len(head) for head in heads) + 3
    lines: list[str] = []
    for flag, head in sorted(zip(flags, heads, strict=True), key=lambda pair: pair[0].name):
        body = _wrap(indent, columns - 1, flag.help + value_shown(flag)).replace("\n", "\n" + " " * indent)
        lines += (head.ljust(indent) + body).split("\n")
    return lines


def kind_shown(flag: Flag) -> str:
    """What an option's value is called; "" for one that needs none."""
    return _TYPES.get(flag.kind, flag.kind.partition(":")[0])


def value_shown(flag: Flag) -> str:
    """An option's default, behind its description."""
    if flag.shown is not None:
        return f" (default {flag.shown})" if flag.shown else ""
    value = flag.default
    if value in (False, 0, "", (), None) or value == {}:
        return ""
    if isinstance(value, bool):
        return " (default true)"
    return f' (default "{value}")' if flag.kind == "string" else f" (default {value})"


def _wrap(indent: int, width: int, text: str) -> str:
    """pflag's wrap: lines of at most width - indent characters, the last one up to five longer."""
    room = width - indent
    if room < 24:
        return text
    room -= 5
    first, rest = _wrap_once(room, 5, text)
    out = first
    while rest:
        first, rest = _wrap_once(room, 5, rest)
        out += "\n" + first
    return out


def _wrap_once(room: int, slop: int, text: str) -> tuple[str, str]:
    if room + slop > len(text):
        return text, ""
    at = max(text.rfind(mark, 0, room) for mark in " \t\n")
    if at <= 0:
        return text, ""
    newline = text.rfind("\n", 0, room)
    if 0 < newline < at:
        return text[:newline], text[newline + 1 :]
    return text[:at], text[at + 1 :]
