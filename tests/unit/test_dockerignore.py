"""Patterns of .dockerignore and COPY."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.dockerignore import BadPattern, Glob, Matcher, _Automaton, _tokens, match, read


@pytest.mark.parametrize(
    ("pattern", "path", "excluded"),
    [
        ("**", "file", True),
        ("**", "dir/file", True),
        ("**/", "dir/file", True),
        ("**/**", "dir/file", True),
        ("dir/**", "dir/file", True),
        ("dir/**", "dir/sub/file", True),
        ("dir/**", "dir", False),
        ("dir", "dir/sub/file", True),
        ("dir/", "dir/file", True),
        ("**/dir", "dir", True),
        ("**/dir", "a/b/dir/file", True),
        ("**/dir", "a/xdir", False),
        ("**dir", "a/xdir", True),
        ("**/dir2/*", "dir/dir2/file", True),
        ("**/dir2/*", "dir/dir2/sub/file", True),
        ("**/*.txt", "x.txt", True),
        ("**/*.txt", "a/b/x.txt", True),
        ("**/*.txt", "x.txt/y", True),
        ("**/file.txt", "dir/afile.txt", False),
        ("a**/*.txt", "abc/x.txt", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a**b", "axxb", False),
        ("a**b", "ax/b", True),
        ("a*b", "axxb", True),
        ("a*b", "a/b", False),
        ("?", "a", True),
        ("?", "é", True),
        ("?", "/", False),
        ("a[b-d]e", "ace", True),
        ("a[^b-d]e", "ace", False),
        ("a[^x]e", "a/e", True),
        ("[!a]", "!", True),
        ("[!a]", "b", False),
        ("a\\*b", "a*b", True),
        ("a\\*b", "axb", False),
        ("a.b", "aXb", False),
        ("(x|y)+$", "(x|y)+$", True),
        ("*a*a*a*b", "a" * 200, False),
        ("*a*a*a*b", "a" * 200 + "b", True),
        ("**/a/**/a/**/b", "a/" * 100 + "c", False),
        ("./x/../y", "y", True),
        ("/y", "y", False),
    ],
)
def test_one_pattern(pattern: str, path: str, excluded: bool) -> None:
    assert Matcher([pattern]).excludes(path) == excluded


@pytest.mark.parametrize(
    ("patterns", "path", "excluded"),
    [
        (["**", "!keep"], "keep/x", False),
        (["**", "!keep", "keep/x"], "keep/x", True),
        (["**", "!*.md"], "README.md", False),
        (["*.md", "!README*.md", "README-secret.md"], "README-secret.md", True),
        (["*.md", "README-secret.md", "!README*.md"], "README-secret.md", False),
        (["!x", "x"], "x", True),
        (["a/b", "!a"], "a/b", False),
        (["", "  "], "x", False),
        ([], "x", False),
    ],
)
def test_the_last_pattern_decides(patterns: list[str], path: str, excluded: bool) -> None:
    assert Matcher(patterns).excludes(path) == excluded


def test_a_walk_needs_to_ask_of_each_name_once() -> None:
    matcher = Matcher(["a/**", "!a/b/c", "x"])
    excluded, of_a = matcher.step("a", None)
    assert not excluded
    excluded, of_b = matcher.step("a/b", of_a)
    assert excluded
    assert matcher.may_include_below("a/b")
    assert not matcher.may_include_below("a/d")
    assert not matcher.step("a/b/c", of_b)[0]
    assert not matcher.step("a/b/c/d", matcher.step("a/b/c", of_b)[1])[0]
    assert matcher.step("a/b/e", of_b)[0]


def test_a_file_is_read_as_docker_reads_it() -> None:
    data = b"\xef\xbb\xbf# comment\n  # pattern  \n\n/rooted/\n! /kept/./x\n!\r\n**/../a//b\n .hidden \r\n/\n"
    assert read(data) == ["# pattern", "rooted", "!kept/x", "!", "a/b", ".hidden", "/"]


@pytest.mark.parametrize("pattern", ["[", "[a", "[a-", "[]a]", "[a-]", "[-a]", "a\\", "[\\", "!", "[^]"])
def test_bad_patterns_are_told(pattern: str) -> None:
    with pytest.raises(BadPattern):
        Matcher([pattern])


def test_a_line_has_a_limit() -> None:
    assert len(read(b"x" * 65535)) == 1
    with pytest.raises(BadPattern, match="token too long"):
        read(b"x" * 65536)


def test_match_is_of_one_directory() -> None:
    assert match("*.c", "x.c")
    assert not match("**/x.c", "a/b/x.c")
    assert match("**/x.c", "a/x.c")


@given(st.text("ab/*?[]^-\\.", max_size=12), st.text("ab/.", max_size=12))
def test_both_ways_to_match_agree(pattern: str, path: str) -> None:
    try:
        glob = Glob(pattern)
        tokens = _tokens(pattern, deep=True)
    except BadPattern:
        return
    # `x**`, `**x` and exact ones are compared as texts, where an automaton says the same but for what slash a ** ends with
    if glob._expression is not None:
        assert glob.matches(path) == _Automaton(tokens).matches(path)


@given(st.text("ab/*?[]^-\\.", max_size=12), st.text("ab/.", max_size=12))
def test_a_walk_and_a_question_agree(pattern: str, path: str) -> None:
    try:
        matcher = Matcher([pattern, "!a/b", "b*"])
    except BadPattern:
        return
    parts = path.split("/")
    verdicts = None
    for end in range(1, len(parts) + 1):
        excluded, verdicts = matcher.step("/".join(parts[:end]), verdicts)
    assert excluded == matcher.excludes(path)
