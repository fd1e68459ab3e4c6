"""Filters of lists: names by regular expression, references by Go's path.Match."""

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from sampan.engine.image_filters import pattern_matches
from sampan.engine.listing import select
from sampan.errors import InvalidArgument
from sampan.filters import boolean, moment_ns
from sampan.reference import parse


@pytest.mark.parametrize(
    ("pattern", "name", "found"),
    [
        ("busybox", "busybox:1", True),
        ("busy*:1", "busybox:1", True),
        ("*", "busybox:1", True),
        ("*", "team/busybox:1", False),
        ("*/b*x:?", "team/busybox:1", True),
        ("t*m/*b*:1", "team/busybox:1", True),
        ("*box*box", "boxbox", True),
        ("*box*box", "box", False),
        ("**x", "busybox", True),
        ("[a-c]usy*", "busybox", True),
        ("[^a-c]usy*", "busybox", False),
        ("b\\usybox", "busybox", True),
    ],
)
def test_references_match_as_in_go(pattern: str, name: str, found: bool) -> None:
    assert pattern_matches(pattern, parse(name)) is found


def test_a_bracket_without_end_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="syntax error in pattern"):
        pattern_matches("[a", parse("a"))


@pytest.mark.timeout(30)
def test_many_stars_take_no_time() -> None:
    assert not pattern_matches("*a" * 60 + "*b", parse("a" * 120))


def named(*patterns: str) -> list[str]:
    containers: list[Any] = [
        SimpleNamespace(name=name, state=None, mounts=[], config=SimpleNamespace(labels=None))
        for name in ("web-1", "web-22", "db", "a" * 100)
    ]
    return [item.name for item in select(containers, {"name": patterns}, None, None, "")]  # type: ignore[arg-type]


def test_names_by_regular_expression() -> None:
    assert named("^web-[0-9]$", "^/db$") == ["web-1", "db"]
    assert named("eb-") == ["web-1", "web-22"]
    assert named("(") == []


@pytest.mark.timeout(30)
def test_a_name_pattern_without_end_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="takes too long"):
        named("(a|a)*$b")


@pytest.mark.parametrize(
    ("values", "wanted"), [(["1"], True), (["true"], True), (["0", "false"], False), (["1", "true"], True), (["T", "true"], True)]
)
def test_booleans(values: list[str], wanted: bool) -> None:
    assert boolean({"dangling": values}, "dangling", default=None) is wanted


@pytest.mark.parametrize(
    ("values", "shown"), [(["t"], "dangling=[t]"), (["True"], "dangling=[True]"), (["1", "false"], "dangling=[1 false]"), ([], "dangling")]
)
def test_what_is_no_boolean(values: list[str], shown: str) -> None:
    """Words of dockerd 28.5."""
    with pytest.raises(InvalidArgument) as refused:
        boolean({"dangling": values}, "dangling", default=None)
    assert refused.value.message == f"invalid filter '{shown}'"
    assert boolean({}, "dangling", default=True)


@pytest.fixture
def tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process is nine hours before UTC."""
    with monkeypatch.context() as there:
        there.setenv("TZ", "XXX-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("tokyo")
@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02T09:00:00", 86400),
        ("1970-01-02T09:00", 86400),
        ("1970-01-02T09", 86400),
        ("1970-01-02", 54000),
        ("1970-01-02T09:00:00Z", 118800),
        ("1970-01-02T09:00:00+02:00", 111600),
        ("1970-01-02T09:00:00.5", 86400.5),
        ("86400", 86400),
        ("10s", 90),
    ],
)
def test_times_are_those_of_the_host_unless_they_say_otherwise(text: str, seconds: float) -> None:
    """moby api/types/time.GetTimestamp; `prune --filter until=` removes what is older, so nothing that is younger must be."""
    assert moment_ns(text, 100 * 10**9) == seconds * 10**9
