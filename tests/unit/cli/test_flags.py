"""The parser reads command lines as pflag does."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.cli.flags import Flag, UsageError, parse, parse_bool, parse_int, quote

FLAGS = (
    Flag("all", "a", "bool", False, ""),
    Flag("interactive", "i", "bool", False, ""),
    Flag("tty", "t", "bool", False, ""),
    Flag("publish", "p", "list", (), ""),
    Flag("name", "n", "string", "", ""),
    Flag("time", "T", "int", 10, ""),
    Flag("memory", "m", "bytes", 0, ""),
)


@pytest.mark.parametrize(
    ("words", "values", "rest"),
    [
        ("-it x", {"interactive": True, "tty": True}, ["x"]),
        ("-itp 80:80 x", {"publish": ["80:80"]}, ["x"]),
        ("-p80 -p=81 --publish 82 --publish=83", {"publish": ["80", "81", "82", "83"]}, []),
        ("--all=false --tty=T", {"all": False, "tty": True}, []),
        ("x -a y", {"all": True}, ["x", "y"]),
        ("-a -- -t -i", {"all": True, "tty": False}, ["-t", "-i"]),
        ("- -", {}, ["-", "-"]),
        ("-n=", {"name": "="}, []),
        ("--name= x", {"name": ""}, ["x"]),
        ("-T 0x10", {"time": 16}, []),
        ("-m 1k", {"memory": 1024}, []),
    ],
)
def test_forms(words: str, values: dict[str, object], rest: list[str]) -> None:
    parsed = parse(FLAGS, words.split(" "))
    assert parsed.args == rest
    assert {name: parsed.values[name] for name in values} == values


def test_options_end_at_the_first_argument_when_told_so() -> None:
    parsed = parse(FLAGS, ["-a", "image", "-t", "--", "-i"], interspersed=False)
    assert (parsed.args, parsed.bool("all"), parsed.bool("tty")) == (["image", "-t", "--", "-i"], True, False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--foo", "unknown flag: --foo"),
        ("--foo=1", "unknown flag: --foo"),
        ("-aZx", "unknown shorthand flag: 'Z' in -Zx"),
        ("--name", "flag needs an argument: --name"),
        ("-an", "flag needs an argument: 'n' in -n"),
        ("---x", "bad flag syntax: ---x"),
        ("--=x", "bad flag syntax: --=x"),
        ("-T abc", 'invalid argument "abc" for "-T, --time" flag: strconv.ParseInt: parsing "abc": invalid syntax'),
        ("-T 9223372036854775808", None),
        ("--all=maybe", 'invalid argument "maybe" for "-a, --all" flag: strconv.ParseBool: parsing "maybe": invalid syntax'),
        ("--help=x", 'invalid argument "x" for "-h, --help" flag: strconv.ParseBool: parsing "x": invalid syntax'),
        ("-m abc", 'invalid argument "abc" for "-m, --memory" flag: invalid size: \'abc\''),
    ],
)
def test_refusals(words: str, message: str | None) -> None:
    with pytest.raises(UsageError) as refusal:
        parse(FLAGS, words.split(" "))
    assert message is None or str(refusal.value) == message


def test_help_is_seen_anywhere_but_after_the_end_of_options() -> None:
    assert parse(FLAGS, ["x", "--help"]).help == "help"
    assert parse(FLAGS, ["-ah"]).help == "h"
    assert parse(FLAGS, ["--", "--help"]).help == ""


@given(st.lists(st.text()))
def test_any_words_parse_or_are_refused(words: list[str]) -> None:
    try:
        parsed = parse(FLAGS, words)
    except UsageError:
        return
    assert isinstance(parsed.args, list)


@given(st.text())
def test_everything_after_the_end_of_options_is_an_argument(word: str) -> None:
    assert parse(FLAGS, ["--", word, word]).args == [word, word]


@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_integers_come_back(value: int) -> None:
    assert parse_int(str(value)) == value
    assert parse_int(hex(value)) == value


@pytest.mark.parametrize("text", ["", "-", "+", "1.5", " 1", "1 ", "0x", "1__0x", "١"])
def test_what_is_no_integer(text: str) -> None:
    with pytest.raises(ValueError, match="invalid syntax"):
        parse_int(text)


def test_octal_and_range() -> None:
    assert parse_int("010") == 8
    with pytest.raises(ValueError, match="value out of range"):
        parse_int("65536", 16, unsigned=True)


def test_booleans() -> None:
    assert [parse_bool(text) for text in ("1", "t", "TRUE", "0", "F", "False")] == [True, True, True, False, False, False]


def test_quoting() -> None:
    assert quote('a"b\\\n\x01é') == '"a\\"b\\\\\\n\\x01é"'
