"""Command lines as docker's own parser (spf13/pflag) reads them, from option tables that are pure data.

A command's options are a tuple of `Flag`s. The same table drives parsing, help (help.py) and shell completion. Kinds of value that need
more than a few lines to check live in opts.py, which is imported only when such an option is used: start-up time is a feature.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    _Str = str  # inside Parsed, str, bool, int and list are its methods
    _Int = int
    _Bool = bool
    _Strings = list[str]

_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")


class UsageError(Exception):
    """A command line that cannot be parsed. main.py adds the usage line and exits with 125."""


class Flag:
    """One option.

    kind: `bool string int uint16 uint64 list map bytes duration` or a name in opts.PARSERS; `list:CHECK` is a list whose items go through
    opts.CHECKS[CHECK]. `api` is the first API version that knows the option (an older daemon is refused, not silently sent less),
    or `windows`.
    `shown` replaces the default's text in the help; `complete` names what the shell completes the value with.
    """

    __slots__ = ("api", "complete", "default", "deprecated", "help", "hidden", "kind", "name", "short", "shown")

    def __init__(
        self,
        name: str,
        short: str,
        kind: str,
        default: Any,
        help: str,
        *,
        api: str = "",
        shown: str | None = None,
        hidden: bool = False,
        deprecated: str = "",
        complete: str = "",
    ) -> None:
        self.name = name
        self.short = short
        self.kind = kind
        self.default = default
        self.help = help
        self.api = api
        self.shown = shown
        self.hidden = hidden
        self.deprecated = deprecated
        self.complete = complete

    @property
    def label(self) -> str:
        """How messages name the option: `-m, --memory` or `--rm`."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


class Command:
    """What a command module says about itself: arguments (as in the usage line), one-line description, options, counts.

    `aliases` are the full forms that the help lists (`container rm`, `rm`); `complete` names what completes the arguments.
    `long` replaces `short` at the top of the command's own help. `interspersed=False`: options end at the first argument (run, exec).
    """

    __slots__ = ("aliases", "complete", "flags", "interspersed", "long", "max_args", "min_args", "raw", "short", "use")

    def __init__(
        self,
        use: str,
        short: str,
        flags: Sequence[Flag] = (),
        *,
        min_args: int = 0,
        max_args: int | None = None,
        aliases: Sequence[str] = (),
        interspersed: bool = True,
        long: str = "",
        complete: str = "",
        raw: bool = False,
    ) -> None:
        self.use = use
        self.short = short
        self.flags = flags
        self.min_args = min_args
        self.max_args = max_args
        self.aliases = aliases
        self.interspersed = interspersed
        self.long = long
        self.complete = complete
        self.raw = raw  # everything after the command's name is an argument


class Parsed:
    """A parsed command line: `args` (positionals), `path` (the command as typed: `container rm`) and typed access to the options."""

    __slots__ = ("args", "help", "path", "set", "values")

    def __init__(self, values: dict[_Str, Any]) -> None:
        self.values = values
        self.set: set[_Str] = set()
        self.args: _Strings = []
        self.help = ""
        self.path = ""

    def changed(self, name: _Str) -> _Bool:
        """Whether the user gave the option."""
        return name in self.set

    def bool(self, name: _Str) -> _Bool:
        """The value of a bool option."""
        value: _Bool = self.values[name]
        return value

    def str(self, name: _Str) -> _Str:
        """The value of a string option."""
        value: _Str = self.values[name]
        return value

    def int(self, name: _Str) -> _Int:
        """The value of an int, bytes (in bytes), duration (in nanoseconds) or decimal (in 1e-9) option."""
        value: _Int = self.values[name]
        return value

    def list(self, name: _Str) -> _Strings:
        """The values of a repeatable option, in the order given."""
        value: _Strings = self.values[name] or []
        return value

    def get(self, name: _Str) -> Any:
        """The value of an option of any other kind."""
        return self.values[name]


def quote(text: str) -> str:
    """Text as Go's %q prints it."""
    out = ['"']
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char.isprintable():
            out.append(char)
        else:
            named = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(char)
            out.append(named or (f"\\x{ord(char):02x}" if char < "\x80" else f"\\u{ord(char):04x}"))
    out.append('"')
    return "".join(out)


def parse_bool(text: str) -> bool:
    """A boolean in the spellings of Go's strconv.ParseBool; ValueError else, in Go's words."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f"strconv.ParseBool: parsing {quote(text)}: invalid syntax")


def parse_int(text: str, bits: int = 64, *, unsigned: bool = False) -> int:
    """An integer as Go's strconv.ParseInt/ParseUint with base 0 reads it; ValueError else, in Go's words."""
    name = "ParseUint" if unsigned else "ParseInt"
    digits = text[1:] if not unsigned and text[:1] in ("+", "-") else text
    try:
        if not digits[:1].isdigit() or not digits.isascii() or not digits.replace("_", "").isalnum():
            raise ValueError
        # Go reads 010 as octal; Python refuses it
        value = int(digits, 8) if len(digits) > 1 and digits[0] == "0" and digits.replace("_", "").isdigit() else int(digits, 0)
    except ValueError:
        raise ValueError(f"strconv.{name}: parsing {quote(text)}: invalid syntax") from None
    value = -value if text[:1] == "-" else value
    if not (0 <= value < 1 << bits if unsigned else -(1 << bits - 1) <= value < 1 << bits - 1):
        raise ValueError(f"strconv.{name}: parsing {quote(text)}: value out of range")
    return value


def _convert(flag: Flag, text: str, old: Any) -> Any:
    kind = flag.kind
    if kind == "bool":
        return parse_bool(text)
    if kind == "string":
        return text
    if kind == "list":
        return [*(old or ()), text]
    if kind == "int":
        return parse_int(text)
    if kind == "uint16":
        return parse_int(text, 16, unsigned=True)
    if kind == "uint64":
        return parse_int(text, 64, unsigned=True)
    from sampan.cli import opts

    if kind.startswith("list:"):
        return [*(old or ()), opts.CHECKS[kind[5:]](text)]
    return opts.PARSERS[kind](text, old)


def _converted(flag: Flag, text: str, old: Any) -> Any:
    """Raises UsageError."""
    try:
        return _convert(flag, text, old)
    except ValueError as error:
        raise UsageError(f"invalid argument {quote(text)} for {quote(flag.label)} flag: {error}") from None


_HELP = Flag("help", "h", "bool", False, "")


def parse(flags: Sequence[Flag], argv: Sequence[str], *, interspersed: bool = True, warn: Callable[[str], object] | None = None) -> Parsed:
    """Parse `argv` (without the command's name) by the table.

    `-h`/`--help` stop the parse with `help` set to `h`/`help`, once everything before and after them has proved well formed.
    Raises UsageError in pflag's words.
    """
    long = {flag.name: flag for flag in flags}
    short = {flag.short: flag for flag in flags if flag.short}
    parsed = Parsed({flag.name: flag.default for flag in flags})
    rest = list(argv)
    rest.reverse()

    def assign(flag: Flag, text: str) -> None:
        parsed.values[flag.name] = _converted(flag, text, parsed.values[flag.name] if flag.name in parsed.set else None)
        parsed.set.add(flag.name)
        if flag.deprecated and warn is not None:
            warn(f"Flag --{flag.name} has been deprecated, {flag.deprecated}")

    while rest:
        arg = rest.pop()
        if len(arg) < 2 or arg[0] != "-":
            parsed.args.append(arg)
            if not interspersed:
                break
        elif arg == "--":
            break
        elif arg[1] == "-":
            _long(arg, long, rest, parsed, assign)
        else:
            _shorts(arg, short, rest, parsed, assign)
    rest.reverse()
    parsed.args.extend(rest)
    return parsed


def _long(arg: str, table: dict[str, Flag], rest: list[str], parsed: Parsed, assign: Callable[[Flag, str], None]) -> None:
    name, equals, value = arg[2:].partition("=")
    if not name or name[0] == "-":
        raise UsageError(f"bad flag syntax: {arg}")
    flag = table.get(name)
    if name == "help":
        if not equals or _converted(_HELP, value, None):
            parsed.help = parsed.help or "help"
    elif flag is None:
        raise UsageError(f"unknown flag: --{name}")
    elif equals:
        assign(flag, value)
    elif flag.kind == "bool":
        assign(flag, "true")
    elif rest:
        assign(flag, rest.pop())
    else:
        raise UsageError(f"flag needs an argument: --{name}")


def _shorts(arg: str, table: dict[str, Flag], rest: list[str], parsed: Parsed, assign: Callable[[Flag, str], None]) -> None:
    letters = arg[1:]
    while letters:
        flag = table.get(letters[0])
        if flag is None:
            if letters[0] != "h":
                raise UsageError(f"unknown shorthand flag: '{letters[0]}' in -{letters}")
            parsed.help = "h"
            letters = letters[1:]
        elif len(letters) > 2 and letters[1] == "=":
            assign(flag, letters[2:])
            return
        elif flag.kind == "bool":
            assign(flag, "true")
            letters = letters[1:]
        elif len(letters) > 1:
            assign(flag, letters[1:])
            return
        elif rest:
            assign(flag, rest.pop())
            return
        else:
            raise UsageError(f"flag needs an argument: '{letters[0]}' in -{letters}")
