"""sampan __complete: what a shell asks for candidates. The arguments are the words typed so far, the last one being completed."""

from __future__ import annotations

import os

from sampan.cli.flags import Command, Flag, Parsed
from sampan.cli.http import CliError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sampan.cli.main import Context

SPEC = Command("", "Candidates for a shell's completion", raw=True)

_NO_SPACE, _NO_FILES = 2, 4
_SIGNALS = ("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "WINCH")
_CAPABILITIES = (
    "ALL",
    "AUDIT_CONTROL",
    "AUDIT_READ",
    "AUDIT_WRITE",
    "BLOCK_SUSPEND",
    "BPF",
    "CHECKPOINT_RESTORE",
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "IPC_OWNER",
    "KILL",
    "LEASE",
    "LINUX_IMMUTABLE",
    "MAC_ADMIN",
    "MAC_OVERRIDE",
    "MKNOD",
    "NET_ADMIN",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_RAW",
    "PERFMON",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYSLOG",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_CHROOT",
    "SYS_MODULE",
    "SYS_NICE",
    "SYS_PACCT",
    "SYS_PTRACE",
    "SYS_RAWIO",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "WAKE_ALARM",
)
_STATES = {"running": ["running"], "paused": ["paused"], "stopped": ["created", "exited", "dead"]}


def run(ctx: Context, args: Parsed) -> int:
    """Print the candidates, then what the shell should do with them."""
    words = args.args or [""]
    try:
        found, directive = _candidates(ctx, words[:-1], words[-1])
    except CliError:
        found, directive = [], _NO_FILES
    for line in found:
        if line.startswith(words[-1]):
            ctx.print(line)
    ctx.print(f":{directive}")
    return 0


def _candidates(ctx: Context, before: Sequence[str], word: str) -> tuple[list[str], int]:
    from sampan.cli.main import ALIASES, COMMANDS, GLOBAL_FLAGS, GROUPS, load

    at, pending = _skip(GLOBAL_FLAGS, before, 0)
    if pending is not None:
        return _values(ctx, pending.complete, word)
    if at:
        from sampan.cli.flags import UsageError, parse
        from sampan.cli.main import Context

        try:
            ctx = Context(parse(GLOBAL_FLAGS, before[:at], interspersed=False))
        except UsageError:
            return [], _NO_FILES
    rest = before[at:]
    if not rest:
        return (_flags(GLOBAL_FLAGS, word) if word.startswith("-") else sorted([*_names(""), *_plugins(ctx)])), _NO_FILES
    path = rest[0]
    used = 1
    if path in GROUPS:
        if len(rest) == 1:
            return ([] if word.startswith("-") else _names(path)), _NO_FILES
        path, used = f"{path} {rest[1]}", 2
    if ALIASES.get(path, path) not in COMMANDS:
        return _of_plugin(ctx, path, [*rest[used:], word]) or ([], _NO_FILES)
    spec, _ = load(path)
    return _arguments(ctx, spec, rest[used:], word)


def _plugins(ctx: Context) -> list[str]:
    from sampan.cli.cliplugins import listed

    return [f"{plugin.name}\t{plugin.texts.get('ShortDescription', '')}" for plugin in listed(ctx.options) if not plugin.problem]


def _of_plugin(ctx: Context, name: str, words: Sequence[str]) -> tuple[list[str], int] | None:
    from sampan.cli import cliplugins

    plugin = cliplugins.find(ctx.options, name)
    return cliplugins.complete(ctx.options, plugin, words) if plugin is not None else None


def _arguments(ctx: Context, spec: Command, words: Sequence[str], word: str) -> tuple[list[str], int]:
    """Candidates behind a command's name: its options, an option's values, its arguments."""
    at, given = 0, 0
    while at < len(words):
        if words[at] == "--":
            return _values(ctx, spec.complete, word)
        if words[at].startswith("-") and len(words[at]) > 1:
            at, pending = _skip(spec.flags, words, at)
            if pending is not None:
                return _values(ctx, pending.complete, word)
            continue
        given += 1
        at += 1
        if not spec.interspersed:
            break
    if given and not spec.interspersed:
        return [], 0  # the container's own command line
    if word.startswith("--") and "=" in word:
        name, _, value = word[2:].partition("=")
        flag = next((one for one in spec.flags if one.name == name), None)
        found, directive = _values(ctx, flag.complete if flag else "", value)
        return [f"--{name}={one}" for one in found], directive
    if word.startswith("-"):
        return _flags(spec.flags, word), _NO_FILES
    if spec.max_args is not None and given >= spec.max_args:
        return [], _NO_FILES
    found, directive = _values(ctx, spec.complete, word)
    return [one for one in found if one.split("\t")[0] not in words], directive


def _skip(flags: Sequence[Flag], words: Sequence[str], at: int) -> tuple[int, Flag | None]:
    """Where the options that begin at `at` end; the option, if its value is the word being completed."""
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        text = words[at]
        at += 1
        if text.startswith("--"):
            flag = next((one for one in flags if one.name == text[2:]), None)
        else:
            flag = next((one for one in flags if one.short and one.short == text[-1]), None)
        if flag is not None and flag.kind != "bool":
            if at == len(words):
                return at, flag
            at += 1
    return at, None


def _flags(flags: Sequence[Flag], word: str) -> list[str]:
    found = [f"--{one.name}\t{one.help.splitlines()[0]}" for one in flags if not one.hidden]
    if not word.startswith("--"):
        found += [f"-{one.short}\t{one.help.splitlines()[0]}" for one in flags if one.short and not one.hidden]
    return [*found, "--help\tPrint usage"]


def _names(group: str) -> list[str]:
    """Commands of the program, or of a group, with their descriptions."""
    from sampan.cli.main import COMMANDS, GROUPS, HIDDEN, load

    prefix = f"{group} " if group else ""
    found = [] if group else [f"{name}\t{text}" for name, text in GROUPS.items()]
    for path in COMMANDS:
        name = path.removeprefix(prefix)
        if not path.startswith(prefix) or " " in name or path in HIDDEN:
            continue
        try:
            found.append(f"{name}\t{load(path)[0].short}")
        except ImportError:
            continue
    return sorted(found)


def _values(ctx: Context, what: str, word: str) -> tuple[list[str], int]:
    """Values of a kind named in an option table: objects of the daemon, files, fixed words."""
    kind, _, detail = what.partition(":")
    if what == "" or what == "files":
        return [], 0
    if kind == "containers":
        return _containers(ctx, detail), _NO_FILES
    if what == "images":
        images = ctx.client.request("GET", "/images/json").json() or []
        return sorted(tag for image in images for tag in image.get("RepoTags") or () if tag != "<none>:<none>"), _NO_FILES
    if what == "networks":
        return [one.get("Name") or "" for one in ctx.client.request("GET", "/networks").json() or ()], _NO_FILES
    if what == "volumes":
        return [one.get("Name") or "" for one in ctx.client.request("GET", "/volumes").json().get("Volumes") or ()], _NO_FILES
    if what == "contexts":
        from sampan.cli.contextstore import ContextStore

        return sorted(one["Name"] for one in ContextStore(ctx.options).all()), _NO_FILES
    if what == "environment":
        return sorted(os.environ), _NO_FILES
    if what == "signals":
        return [f"SIG{name}" for name in _SIGNALS] if word.upper().startswith("S") else list(_SIGNALS), _NO_FILES
    if what == "capabilities":
        return list(_CAPABILITIES), _NO_FILES
    words = detail.split(",") if kind == "words" else what.split()
    found: list[str] = []
    for one in words:
        if one == "container:":
            found += ["container:" + name for name in _containers(ctx, "all")]
        else:
            found.append(one)
    return found, _NO_FILES | (_NO_SPACE if any(one.endswith("=") for one in found) else 0)


def _containers(ctx: Context, state: str) -> list[str]:
    from sampan.cli.filters import encode

    wanted = _STATES.get(state)
    query = {"all": True if state != "running" else None, "filters": encode({"status": wanted} if wanted else None)}
    summaries = ctx.client.request("GET", "/containers/json", query).json() or []
    return [name[1:] for summary in summaries for name in summary.get("Names") or () if "/" not in name[1:]]
