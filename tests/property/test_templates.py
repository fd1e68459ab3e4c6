"""Templates, fmt and JSON never fail but by TemplateError, whatever they are given."""

import json
import string

from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.cli.format import gofmt, gojson
from sampan.cli.format.execute import Template, TemplateError
from sampan.cli.format.lex import Lexer
from sampan.cli.format.table import ellipsis, tabulate, width
from sampan.quoting import go_quote

DATA = {"Name": "/x", "Labels": {"a": "b"}, "List": ["p", 1, None, {"k": 1.5}], "Nil": None, "N": 3, "F": 1.5, "T": True}
PIECES = st.sampled_from(
    [
        "{{",
        "}}",
        "{{-",
        "-}}",
        " ",
        ".",
        ".Name",
        ".Labels.a",
        ".List",
        ".Nil.x",
        "$",
        "$x",
        ":=",
        "=",
        "|",
        "(",
        ")",
        ",",
        '"s"',
        "`r`",
        "'c'",
        "1",
        "-2",
        "1.5",
        "0x1F",
        "1i",
        "true",
        "nil",
        "if",
        "else",
        "end",
        "range",
        "with",
        "define",
        "template",
        "block",
        "break",
        "continue",
        "printf",
        '"%d %s %v %[2]*.3f"',
        "index",
        "slice",
        "len",
        "eq",
        "lt",
        "and",
        "or",
        "not",
        "json",
        "join",
        "split",
        "pad",
        "truncate",
        "title",
        "html",
        "js",
        "urlquery",
        "call",
        "println",
        "/*",
        "*/",
        "text",
        "\n",
        "é",
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def run(text: str) -> None:
    """Parse and execute; only a TemplateError may come out."""
    for missing in (False, True):
        try:
            Template(text).execute(DATA, missing_error=missing)
        except TemplateError as error:
            assert str(error).startswith("template: ")  # noqa: PT017


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    run(text)
    run("{{" + text + "}}")


@settings(max_examples=400)
@given(st.lists(PIECES, max_size=14))
def test_any_tokens(pieces: list[str]) -> None:
    run("".join(pieces))
    run("{{" + " ".join(pieces) + "}}")


@given(st.text(max_size=60))
def test_the_lexer_ends(text: str) -> None:
    lexer = Lexer(text)
    for _ in range(4 * len(text) + 8):
        if lexer.next().kind in ("eof", "error"):
            return
    raise AssertionError("no end")


@given(st.text(alphabet=string.printable + "é%[]*.", max_size=30), st.lists(VALUES, max_size=4))
def test_sprintf(layout: str, values: list[object]) -> None:
    gofmt.sprintf(layout, values)
    gofmt.sprint(values)
    gofmt.sprintln(values)


@given(VALUES.filter(lambda value: "inf" not in repr(value) and "nan" not in repr(value)))
def test_json_reads_back(value: object) -> None:
    for html in (False, True):
        assert same(json.loads(gojson.dumps(value, html=html)), value)


def same(read: object, value: object) -> bool:
    """Equal, but a float without a fraction is written as an integer."""
    if isinstance(value, float):
        return isinstance(read, (int, float)) and float(read) == value
    if isinstance(value, list) and isinstance(read, list):
        return len(read) == len(value) and all(map(same, read, value))
    if isinstance(value, dict) and isinstance(read, dict):
        return read.keys() == value.keys() and all(same(read[key], value[key]) for key in value)
    return read == value


@given(VALUES.filter(lambda value: "inf" not in repr(value) and "nan" not in repr(value)))
def test_indent_and_compact_keep_the_document(value: object) -> None:
    text = json.dumps(value)
    assert json.loads(gojson.indent(text)) == value
    assert gojson.compact(gojson.indent(text)) == gojson.compact(text)


@given(st.text())
def test_quote_is_one_printable_line(text: str) -> None:
    quoted = go_quote(text)
    assert quoted.isprintable() or not text.isascii()
    assert "\n" not in quoted


@given(st.lists(st.lists(st.text(alphabet="ab é漢", max_size=8), min_size=3, max_size=3), min_size=1, max_size=5))
def test_columns_line_up(rows: list[list[str]]) -> None:
    text = tabulate("\n".join("\t".join(row) for row in rows))
    for column in (0, 1):
        starts = {sum(max(10, max(width(row[at]) for row in rows) + 3) for at in range(column + 1)) for _ in rows}
        assert len(starts) == 1
    for row, line in zip(rows, text.split("\n"), strict=True):
        assert line.endswith(row[2])
        assert width(line) - width(row[2]) == next(iter(starts))


@given(st.text(), st.integers(-2, 60))
def test_ellipsis(text: str, limit: int) -> None:
    assert len(ellipsis(text, limit)) <= max(limit, 0, len(text))
