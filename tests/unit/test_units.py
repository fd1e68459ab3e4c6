"""Sizes, durations and natural order, with docker's own texts (go-units and Go's time)."""

import pytest

from sampan.units import bytes_size, human_duration, human_size, natural_key, parse_duration, parse_size

SECOND = 10**9


@pytest.mark.parametrize(
    ("size", "precision", "text"),
    [
        (0, 4, "0B"),
        (999, 3, "999B"),
        (1000, 4, "1kB"),
        (1983056, 3, "1.98MB"),
        (999950, 3, "1e+03kB"),
        (12345678901, 4, "12.35GB"),
        (10**30, 4, "1e+06YB"),
    ],
)
def test_human_size(size: int, precision: int, text: str) -> None:
    assert text == human_size(size, precision)


def test_bytes_size() -> None:
    assert bytes_size(25276510208) == "23.54GiB"
    assert bytes_size(1023) == "1023B"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47.6 * 3600, "2 days"),
        (24 * 3600 * 13, "13 days"),
        (24 * 3600 * 20, "2 weeks"),
        (24 * 3600 * 90, "3 months"),
        (24 * 3600 * 365 * 3, "3 years"),
    ],
)
def test_human_duration(seconds: float, text: str) -> None:
    assert text == human_duration(int(seconds * SECOND))


@pytest.mark.parametrize(
    ("text", "size"), [("64m", 64 << 20), ("1.5GiB", 3 << 29), ("10 kb", 10240), ("7", 7), ("1T", 1 << 40), ("0x1p4", 16)]
)
def test_parse_size(text: str, size: int) -> None:
    assert size == parse_size(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid size: ''"),
        ("m", "invalid size: 'm'"),
        ("1x", "invalid suffix: 'x'"),
        ("1kbb", "invalid suffix: 'kbb'"),
        ("-1m", "invalid size: '-1m'"),
        ("1kkkk", "invalid suffix: 'kkkk'"),
        ("1..2m", 'strconv.ParseFloat: parsing "1..2": invalid syntax'),
    ],
)
def test_bad_sizes(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="invalid") as caught:
        parse_size(text)
    assert message == str(caught.value)


@pytest.mark.parametrize(
    ("text", "duration"),
    [("1m30s", 90 * SECOND), ("-1.5h", -5400 * SECOND), ("0", 0), ("100ms", SECOND // 10), ("1us", 1000), (".5s", SECOND // 2)],
)
def test_parse_duration(text: str, duration: int) -> None:
    assert duration == parse_duration(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'time: invalid duration ""'),
        ("1", 'time: missing unit in duration "1"'),
        ("1x", 'time: unknown unit "x" in duration "1x"'),
        (".s", 'time: invalid duration ".s"'),
    ],
)
def test_bad_durations(text: str, message: str) -> None:
    with pytest.raises(ValueError, match="time:") as caught:
        parse_duration(text)
    assert message == str(caught.value)


def test_natural_order() -> None:
    """As sortorder.NaturalLess has it."""
    for line in (
        ["b", "net1a", "net9", "net10"],
        ["1a", "-a"],
        ["a", "a2", "a02", "a-", "ab1"],
        ["80/tcp", "443/tcp", "443/udp"],
        ["9" * 5000, "1" * 5001],
    ):
        assert sorted(reversed(line), key=natural_key) == line
