"""Manual pages of all commands, made from the option tables: `python -m sampan.cli.manpages DIRECTORY` writes them (man(7), section 1)."""

from __future__ import annotations

import os
import sys

from sampan.cli.help import kind_shown, value_shown
from sampan.cli.main import COMMANDS, GLOBAL_FLAGS, GROUPS, HIDDEN, PROGRAM, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from sampan.cli.flags import Flag

_SPECIAL = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", '"': "\\(dq"}
_DAY = "2026-11-29"  # of the pages' layout; a build's own day would make two builds differ


def pages() -> dict[str, str]:
    """Every page's file name and text."""
    paths = [*GROUPS, *(path for path in COMMANDS if path not in HIDDEN)]
    return {f"{_name(path)}.1": page(path) for path in ["", *paths]}


def page(path: str) -> str:
    """The page of a command, of a group, or of the program ("")."""
    name = _name(path)
    lines = [f'.TH "{_plain(name.upper())}" 1 "{_DAY}" "Sampan" "Sampan Manual"', ".SH NAME"]
    if not path or path in GROUPS:
        flags: Iterable[Flag] = () if path else GLOBAL_FLAGS
        short = GROUPS.get(path, "a self-sufficient runtime for containers")
        use = f"{path} COMMAND" if path else "[OPTIONS] COMMAND"
        lines += [f"{_plain(name)} \\- {_plain(short)}", *_synopsis(use), *_commands(path), *_options(flags)]
    else:
        spec, _ = load(path)
        flags = [flag for flag in spec.flags if not flag.hidden]
        lines += [f"{_plain(name)} \\- {_plain(_first(spec.short))}", *_synopsis(f"{path} {spec.use}".rstrip())]
        lines += [".SH DESCRIPTION", *_text(spec.long or spec.short), *_options(flags)]
        if len(spec.aliases) > 1:
            lines += [".SH ALIASES", _plain(", ".join(f"{PROGRAM} {alias}" for alias in spec.aliases))]
    parent = path.rpartition(" ")[0]
    if path:
        lines += [".SH SEE ALSO", f".BR {_plain(_name(parent))} (1)"]
    return "\n".join(lines) + "\n"


def _name(path: str) -> str:
    return "-".join([PROGRAM, *path.split()])


def _first(text: str) -> str:
    return text.partition("\n")[0]


def _synopsis(use: str) -> list[str]:
    lines = [".SH SYNOPSIS"]
    for number, usage in enumerate(use.split("\n")):
        words = usage.strip().removeprefix(f"{PROGRAM} ")
        lines += [".br"] if number else []
        lines.append(f"\\fB{PROGRAM}\\fR {_plain(words)}")
    return lines


def _commands(group: str) -> list[str]:
    """The pages below one."""
    prefix = f"{group} " if group else ""
    names = {path: _first(load(path)[0].short) for path in COMMANDS if path.startswith(prefix) and path not in HIDDEN}
    below = {path: text for path, text in {**({} if group else GROUPS), **names}.items() if " " not in path.removeprefix(prefix)}
    lines = [".SH COMMANDS"]
    for path in sorted(below):
        lines += [".TP", f".BR {_plain(_name(path))} (1)", _plain(below[path])]
    return lines


def _options(flags: Iterable[Flag]) -> list[str]:
    lines: list[str] = []
    for flag in sorted(flags, key=lambda flag: flag.name):
        kind = kind_shown(flag)
        head = f"\\fB\\-{flag.short}\\fR, " if flag.short else ""
        head += f"\\fB{_plain('--' + flag.name)}\\fR" + (f" \\fI{_plain(kind)}\\fR" if kind else "")
        lines += [".TP", head, *_text(flag.help + value_shown(flag).replace(os.path.expanduser("~"), "~"))]
    return [".SH OPTIONS", *lines] if lines else []


def _text(text: str) -> list[str]:
    """Paragraphs and lines as they are in the help."""
    lines: list[str] = []
    for number, line in enumerate(text.strip().split("\n")):
        if not line.strip():
            lines.append(".sp")
            continue
        if number and lines[-1] != ".sp":
            lines.append(".br")
        lines.append(_plain(line.strip()))
    return lines


def _plain(text: str) -> str:
    """Text that roff prints as it is."""
    text = "".join(_SPECIAL.get(char, char) for char in text)
    return f"\\&{text}" if text.startswith(".") else text


def main(directory: str) -> None:
    """Write the pages."""
    os.makedirs(directory, exist_ok=True)
    for name, text in pages().items():
        with open(os.path.join(directory, name), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main(sys.argv[1])
