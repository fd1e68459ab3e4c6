"""References: docker's texts, and properties over generated names."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.reference import InvalidReference, Reference, parse

HEX = "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox", "busybox"),
        ("x/y:1", "docker.io/x/y:1", "x/y:1"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("localhost:5000/z", "localhost:5000/z", "localhost:5000/z"),
        ("docker.io/library/x:Y", "docker.io/library/x:Y", "x:Y"),
        ("index.docker.io/x", "docker.io/library/x", "x"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("Host/x", "Host/x", "Host/x"),
        ("[::1]:50/x", "[::1]:50/x", "[::1]:50/x"),
        (f"x:1@sha256:{HEX}", f"docker.io/library/x:1@sha256:{HEX}", f"x:1@sha256:{HEX}"),
        ("a__b.c--d", "docker.io/library/a__b.c--d", "a__b.c--d"),
    ],
)
def test_normal_forms(text: str, canonical: str, familiar: str) -> None:
    reference = parse(text)
    assert (reference.canonical, reference.familiar) == (canonical, familiar)
    assert parse(canonical) == reference


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid reference format"),
        ("a..b", "invalid reference format"),
        ("a:b:c", "invalid reference format"),
        ("x:", "invalid reference format"),
        ("-x", "invalid reference format"),
        ("x y", "invalid reference format"),
        ("Bad", "invalid reference format: repository name (library/Bad) must be lowercase"),
        ("foo/Bar:x", "invalid reference format: repository name (foo/Bar) must be lowercase"),
        ("x" * 256, "repository name must not be more than 255 characters"),
        (HEX, f"invalid repository name ({HEX}), cannot specify 64-byte hexadecimal strings"),
        ("x@sha256:abc", "invalid reference format"),
    ],
)
def test_refusals_in_dockers_words(text: str, message: str) -> None:
    with pytest.raises(InvalidReference) as caught:
        parse(text)
    assert caught.value.message == message


def test_the_default_tag() -> None:
    assert parse("x").with_default_tag().familiar == "x:latest"
    assert parse(f"x@sha256:{HEX}").with_default_tag().tag is None


component = st.from_regex(r"[a-z0-9]{1,6}((\.|_|__|-{1,3})[a-z0-9]{1,6}){0,2}", fullmatch=True)
domain = st.sampled_from(["docker.io", "localhost", "r.example:5000", "[::1]:80", "UPPER"])
tag = st.none() | st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
digest = st.none() | st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)


@given(domain, st.lists(component, min_size=1, max_size=3), tag, digest)
def test_both_forms_parse_to_the_same_reference(domain: str, path: list[str], tag: str | None, digest: str | None) -> None:
    if domain == "docker.io" and len(path) == 1:
        path = ["library", *path]
    reference = Reference(domain, "/".join(path), tag, digest)
    assert parse(reference.canonical) == reference
    if domain != "docker.io" or ("." not in path[0] and path[0] != "localhost"):  # docker's short form of these means a registry
        assert parse(reference.familiar) == reference


@given(st.text(max_size=40))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        reference = parse(text)
    except InvalidReference:
        return
    assert parse(reference.canonical) == reference
