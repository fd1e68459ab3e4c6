"""Sizes and durations: any text gives a number or a ValueError, any number a short text."""

from hypothesis import given
from hypothesis import strategies as st

from sampan.units import bytes_size, human_duration, human_size, natural_key, parse_duration, parse_size

TEXTS = st.text(max_size=20) | st.text(alphabet="0123456789.-+bkmgtpi eEx_nusµh", max_size=12)


@given(TEXTS)
def test_parsers_raise_only_value_errors(text: str) -> None:
    for parser in (parse_size, parse_duration):
        try:
            assert -(1 << 63) <= parser(text) < 1 << 63
        except ValueError as error:
            assert str(error)  # noqa: PT017


@given(st.integers(0, 1 << 53))
def test_bytes_read_back(size: int) -> None:
    assert parse_size(str(size)) == size
    assert parse_size(f"{size}b") == size


@given(st.integers(0, 10**24))
def test_sizes_are_short(size: int) -> None:
    assert len(human_size(size)) <= 9
    assert len(human_size(size, 3)) <= 9
    assert len(bytes_size(size)) <= 11


@given(st.integers(-(1 << 62), 1 << 62))
def test_durations_are_words(nanoseconds: int) -> None:
    assert human_duration(nanoseconds).split()[-1].rstrip("s") in ("second", "minute", "hour", "day", "week", "month", "year")


@given(st.lists(st.text(alphabet="ab019", max_size=6)))
def test_natural_order_is_an_order(names: list[str]) -> None:
    assert sorted(sorted(names, key=natural_key), key=natural_key) == sorted(names, key=natural_key)
