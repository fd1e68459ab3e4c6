"""sampand's flags, read as docker's pflag library reads them: --flag=value, --flag value, -D, -ldebug, -l=debug, -Dl debug."""

from collections.abc import Sequence
from typing import NoReturn

from sampan.daemon.convert import ValueProblem, from_texts, parse_bool
from sampan.daemon.options import BY_FLAG, BY_SHORT, COMMAND_LINE_ONLY, Option

LONG = BY_FLAG | {option.flag: option for option in COMMAND_LINE_ONLY}
SHORT = BY_SHORT | {option.short: option for option in COMMAND_LINE_ONLY if option.short}


class FlagError(Exception):
    """A command line that cannot be read; the text is pflag's, with docker's hint."""


def fail(message: str) -> NoReturn:
    raise FlagError(f"{message}\nSee 'sampand --help'.")


class Flags:
    """What the command line gave: the texts of each key in the order given, and the flags that are no configuration."""

    def __init__(self) -> None:
        self.values: dict[str, list[str]] = {}
        self.only: dict[str, str] = {}

    @property
    def config_file(self) -> str | None:
        """--config-file, or None where it was not given."""
        return self.only.get("config-file")

    def alone(self, name: str) -> bool:
        """Whether --help, --version or --validate is set."""
        return parse_bool(self.only.get(name, "false"))

    def add(self, option: Option, text: str, spelled: str) -> None:
        """Note one flag; its text is checked at once, as pflag does. Raises FlagError."""
        try:
            if option.key:
                repeated = option.kind not in ("bool", "int", "string", "ip", "bytes")
                self.values[option.key] = [*self.values.get(option.key, ()), text] if repeated else [text]
                from_texts(option, self.values[option.key])
            else:
                if option.kind == "bool":
                    parse_bool(text)
                self.only[option.flag] = text
        except ValueProblem as exc:
            fail(f'invalid argument "{text}" for "{spelled}" flag: {exc}')


def spelling(option: Option) -> str:
    """How pflag names a flag in a complaint about its value."""
    return f"-{option.short}, --{option.flag}" if option.short else f"--{option.flag}"


def parse(argv: Sequence[str]) -> Flags:
    """Read the arguments (without the program's name). Raises FlagError."""
    found = Flags()
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == "--":
            if rest:
                fail('"sampand" accepts no argument(s).')
        elif word.startswith("--"):
            parse_long(found, word[2:], rest)
        elif word.startswith("-") and word != "-":
            parse_shorts(found, word[1:], rest)
        else:
            fail('"sampand" accepts no argument(s).')
    return found


def parse_long(found: Flags, word: str, rest: list[str]) -> None:
    name, equals, text = word.partition("=")
    if not name or name.startswith("-"):
        fail(f"bad flag syntax: --{word}")
    option = LONG.get(name) or fail(f"unknown flag: --{name}")
    if not equals:
        if option.kind == "bool":
            text = "true"
        elif rest:
            text = rest.pop(0)
        else:
            fail(f"flag needs an argument: --{name}")
    found.add(option, text, spelling(option))


def parse_shorts(found: Flags, letters: str, rest: list[str]) -> None:
    everything = letters
    while letters:
        letter, letters = letters[0], letters[1:]
        option = SHORT.get(letter) or fail(f"unknown shorthand flag: '{letter}' in -{everything}")
        if letters.startswith("="):
            text, letters = letters[1:], ""
        elif option.kind == "bool":
            text = "true"
        elif letters:
            text, letters = letters, ""
        elif rest:
            text = rest.pop(0)
        else:
            fail(f"flag needs an argument: '{letter}' in -{everything}")
        found.add(option, text, spelling(option))
