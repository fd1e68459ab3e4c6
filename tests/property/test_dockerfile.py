"""Dockerfiles of any kind: what holds for all of them, and that time and memory are bounded."""

import string
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.build import globs
from sampan.build.arguments import Arguments
from sampan.build.errors import DockerfileError
from sampan.build.expand import DEPTH_MAX, EXPANSION_MAX, expand, expand_words
from sampan.build.graph import declare_globals, plan
from sampan.build.instructions import Env
from sampan.build.lex import Lexer
from sampan.build.parse import parse
from sampan.build.resolve import resolved
from sampan.build.words import split_flags, split_words
from sampan.dockerignore import Matcher
from sampan.errors import InvalidArgument

WORDS = st.text("ab$\\`'\"{}:-+?#%/* =<\t\n", max_size=30)
FILES = st.lists(
    st.sampled_from(("FROM scratch", "RUN a \\", "COPY <<E /x", "E", "ENV a=b", "# c", "", "ONBUILD RUN x", "ARG x=$a", "LABEL a='b", "\\"))
    | st.text(string.printable, max_size=20),
    max_size=12,
).map(lambda lines: "\n".join(["FROM scratch", *lines]).encode())


@given(FILES | st.binary(max_size=200))
def test_a_file_is_parsed_or_refused(data: bytes) -> None:
    try:
        dockerfile = parse(data)
    except InvalidArgument:
        return
    assert dockerfile.stages
    ends = [stage.lines for stage in dockerfile.stages] + [each.lines for stage in dockerfile.stages for each in stage.instructions]
    assert all(1 <= lines.first <= lines.last <= data.count(b"\n") + 1 for lines in ends)


@given(FILES)
def test_line_ends_and_a_mark_at_the_begin_change_nothing(data: bytes) -> None:
    def texts(data: bytes) -> list[str] | str:
        try:
            return [statement.text.strip() for statement in Lexer(data)]
        except DockerfileError as error:
            return error.message

    if b"\r" not in data:
        assert texts(data) == texts(data.replace(b"\n", b"\r\n"))
    assert texts(data) == texts(b"\xef\xbb\xbf" + data)


@given(WORDS, st.sampled_from(("\\", "`")))
def test_splitting_loses_nothing_but_spaces_and_a_last_escape(text: str, escape: str) -> None:
    words = split_words(text, escape)
    squeezed = "".join(text.split())
    joined = "".join("".join(words).split())
    assert joined in (squeezed, squeezed[:-1])
    flags, rest = split_flags(text, escape)
    assert all(flag.startswith("--") for flag in flags)
    assert text.endswith(rest)


@given(WORDS, st.dictionaries(st.sampled_from("ab"), st.text("ab*?\n ", max_size=10)))
def test_a_word_is_expanded_or_refused(word: str, environment: dict[str, str]) -> None:
    for expander in (expand, expand_words):
        try:
            expander(word, environment)
        except InvalidArgument as error:
            assert error.message.startswith("failed to process ")  # noqa: PT017


@given(st.text(string.ascii_letters + "äß→._-", max_size=20))
def test_plain_words_stay(word: str) -> None:
    assert expand(word, {}) == word
    assert expand(f"'{word}'", {}) == word
    assert expand('"$v"', {"v": word}) == word
    assert expand_words("$v", {"v": f" {word} {word} "}) == ([word, word] if word else [])


def regular(pattern: globs.Pattern, *, longest: bool) -> str:
    """The pattern as a regular expression, as docker makes one."""
    import re

    star = ".*" if longest else ".*?"
    return star.join("".join("." if char is None else re.escape(char) for char in piece) for piece in pattern.pieces)


@given(st.text("ab*?\\", max_size=6), st.text("ab*?\n", max_size=10), st.booleans())
def test_patterns_match_what_regular_expressions_do(text: str, value: str, longest: bool) -> None:
    import re

    try:
        pattern = globs.compiled(text)
    except globs.BadPattern:
        return
    match = re.compile(regular(pattern, longest=longest)).match(value)
    assert globs.without_prefix(value, pattern, longest=longest) == (value[match.end() :] if match else value)
    greedy = regular(pattern, longest=True)
    assert globs.replaced(value, pattern, "X", every=False) == re.sub(greedy, "X", value, count=1)


def bounded(work: Callable[[], object], seconds: float) -> None:
    """Work ends, well or with a clear error, in so much of this process's time; generous: the machine may be slow."""
    begun = time.process_time()
    try:
        work()
    except InvalidArgument as error:
        told = error.message
    else:
        told = "all is well"
    assert told
    assert time.process_time() - begun < seconds


LARGE = {
    "ten thousand instructions": b"FROM scratch\n" + b"ENV name=value other='two words' $x\n".replace(b" $x", b"") * 10_000,
    "ten megabytes of lines": b"FROM scratch\n" + (b"LABEL a=" + b"x" * 1000 + b"\n") * 10_000,
    "comments": b"# comment\n" * 900_000 + b"FROM scratch\n",
    "one line of ten megabytes": b"FROM " + b"x" * (10 << 20),
    "one large instruction": b"FROM scratch\nENV a=b" + b" \\\n c=ddddddddddddd" * 100_000,
    "one instruction of quotes": b"FROM scratch\nLABEL a=" + b"\\\n\"'\"'$b\\\\" * 100_000,
    "a million empty continuation lines": b"FROM scratch\nRUN a \\\n" + b"\n" * 300_000,
    "a large heredoc": b"FROM scratch\nRUN <<E\n" + b"the line\n" * 900_000 + b"E\n",
    "ten thousand heredocs": b"FROM scratch\nCOPY " + b"<<E " * 10_000 + b"/x/\n" + b"E\n" * 10_000,
    "heredocs that never end": b"FROM scratch\n" + b"RUN <<E\n" * 100_000,
    "a deep ONBUILD": b"FROM scratch\n" + b"ONBUILD " * 8_000 + b"RUN x\n",
    "a deep JSON": b"FROM scratch\nCMD " + b"[" * 60_000 + b"\n",
    "twenty thousand stages": b"FROM scratch AS a\n" * 20_000,
    "zeros": bytes(10 << 20),
    "newlines": b"\n" * (10 << 20),
    "a million newlines": b"\n" * 1_000_000,
}


@pytest.mark.parametrize("name", LARGE)
def test_large_files_take_bounded_time(name: str) -> None:
    bounded(lambda: parse(LARGE[name]), seconds=10)


def test_files_beyond_measure_are_refused() -> None:
    for data in (bytes((16 << 20) + 1), b"\n" * 1_000_001):
        with pytest.raises(InvalidArgument, match="the Dockerfile is too large"):
            parse(data)


def test_variables_do_not_grow_for_ever() -> None:
    dockerfile = parse(b"FROM scratch\nENV a=0123456789\n" + b"ENV a=$a$a\n" * 1000)
    environment: dict[str, str] = {}

    def work() -> None:
        for instruction in dockerfile.stages[0].instructions:
            assert isinstance(instruction, Env)
            environment.update((pair.name, pair.value) for pair in resolved(instruction, environment).pairs)

    with pytest.raises(InvalidArgument, match=f"more than {EXPANSION_MAX} characters"):
        work()
    assert len(environment["a"]) <= EXPANSION_MAX


@pytest.mark.parametrize("line", [b"ENV" + b" a=$v" * 10_000, b"EXPOSE" + b" $v" * 10_000, b"LABEL" + b" l=${v##*x}" * 5_000])
def test_words_of_an_instruction_have_one_budget(line: bytes) -> None:
    instruction = parse(b"FROM scratch\n" + line).stages[0].instructions[0]
    with pytest.raises(InvalidArgument, match="more than"):
        resolved(instruction, {"v": "v" * 100_000})


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("${a:-" * 5000 + "}" * 5000, ""),
        ("${x:-" * DEPTH_MAX + "deep" + "}" * DEPTH_MAX, ""),
        ('"' + "${x:-" * 5000, ""),
        ("${a" * 50_000, ""),
        ("$a" * 100_000, "v" * 1000),
        ("${a//?/" + "y" * 1000 + "}", "v" * 100_000),
        ("${a%%*x*x*x*x*x*x*x*y}" * 10, "x" * 100_000),
        ("${a//*x*x*x*x/y}" * 10, "x" * 100_000),
        ("${a##*}" * 200_000, "x" * 1000),
        ("'" * 199_999, ""),
        ("\\" * 200_001, ""),
        ("$" * 200_000, ""),
        ("<<" * 100_000, ""),
    ],
    ids=lambda text: text[:12],
)
def test_words_take_bounded_time(word: str, value: str) -> None:
    bounded(lambda: expand(word, {"a": value}), seconds=10)


def test_depth_has_an_end_that_is_told() -> None:
    assert expand("${x:-" * DEPTH_MAX + "deep" + "}" * DEPTH_MAX, {}) == "deep"
    with pytest.raises(InvalidArgument, match=f"more than {DEPTH_MAX} substitutions within one another"):
        expand("${x:-" * (DEPTH_MAX + 1) + "}" * (DEPTH_MAX + 1), {})


def test_global_arguments_do_not_grow_for_ever() -> None:
    dockerfile = parse(b"ARG a=0123456789\n" + b"ARG a=$a$a\n" * 1000 + b"FROM scratch\n")
    problem = declare_globals(dockerfile, Arguments({}, {}))
    assert problem is not None
    assert "more than" in problem[1]


def test_a_plan_of_many_stages_takes_bounded_time() -> None:
    data = b"".join(b"FROM scratch AS s%d\n" % number for number in range(5000))
    data += b"FROM scratch\n" + b"".join(b"COPY --from=s%d a b\nCOPY --from=%d a b\n" % (number, number) for number in range(5000))
    dockerfile = parse(data)
    bounded(lambda: plan(dockerfile, Arguments({}, {})), seconds=10)


def test_many_patterns_take_bounded_time() -> None:
    matcher = Matcher(["**/*a*a*a*a*b", "*" * 100 + "b", "!" + "**/" * 100 + "x", "?" * 2000] * 5)
    bounded(lambda: [matcher.excludes("a" * 2000 + f"/{number}") for number in range(5)], seconds=10)
