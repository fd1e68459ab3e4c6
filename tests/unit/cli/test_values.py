"""Values in docker's notations: sizes, durations, points in time, detach keys, streams; by examples and by properties."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.cli import fastjson
from sampan.cli.opts import parse_cpus, parse_duration, parse_size, split_csv
from sampan.cli.stream import Demux, EscapeFilter, parse_detach_keys
from sampan.cli.timestamps import to_unix


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1", 1),
        ("32b", 32),
        ("1k", 1024),
        ("1KiB", 1024),
        ("1.5g", 1610612736),
        ("64 mb", 67108864),
        ("2t", 2 << 40),
        (".5k", 512),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "k", "-1", "1x", "1kbb", "1kib ", "a1", "1 2"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="invalid"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [("0", 0), ("5s", 5 * 10**9), ("1m30s", 90 * 10**9), ("1.5h", 5400 * 10**9), ("-1ms", -(10**6)), ("3µs", 3000)]
)
def test_durations(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize("text", ["", "5", "s", "1x", "-", ".", "1..s", "1s2"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match=r"^time: "):
        parse_duration(text)


def test_cpus() -> None:
    assert [parse_cpus(text) for text in ("1", "0.5", "3/4", "1e-9")] == [10**9, 500000000, 750000000, 1]


def test_csv() -> None:
    assert split_csv('"device=0,1",driver=nvidia') == ["device=0,1", "driver=nvidia"]


def test_points_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    import time

    time.tzset()
    assert to_unix("42m", now=10000.0) == str(10000 - 42 * 60)
    assert to_unix("1136073845.5") == "1136073845.5"
    assert to_unix("2006-01-02T15:04:05.25Z") == "1136214245.250000000"
    assert to_unix("2006-01-02T15:04:05+01:00") == "1136210645.000000000"
    assert to_unix("2006-01-02") == "1136160000.000000000"
    with pytest.raises(ValueError, match="failed to parse value"):
        to_unix("yesterday")


def test_detach_keys() -> None:
    assert parse_detach_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse_detach_keys("a,ctrl-@,ctrl-[,DEL") == b"a\x00\x1b\x7f"
    for keys in ("ctrl-P", "foo", "", "a,,b"):
        with pytest.raises(ValueError, match="Unknown character"):
            parse_detach_keys(keys)


@given(st.binary(), st.data())
def test_a_detach_filter_does_not_mind_where_input_is_cut(data: bytes, draw: st.DataObject) -> None:
    """All of it at once, or in pieces: the same goes through, and a sequence is found or not."""
    data = data.replace(b"\x10\x11", b"")
    whole, _ = EscapeFilter(b"\x10\x11").feed(data + b"\x10\x11 rest")
    pieces = EscapeFilter(b"\x10\x11")
    out, left = b"", data + b"\x10\x11 rest"
    while left:
        size = draw.draw(st.integers(1, len(left)))
        text, detached = pieces.feed(left[:size])
        out, left = out + text, left[size:]
        if detached:
            break
    assert out == whole == data


@given(st.lists(st.tuples(st.sampled_from((1, 2)), st.binary(max_size=300)), max_size=20), st.lists(st.integers(1, 50), min_size=1))
def test_a_multiplexed_stream_comes_apart(frames: list[tuple[int, bytes]], sizes: list[int]) -> None:
    wire = b"".join(bytes([kind, 0, 0, 0]) + len(data).to_bytes(4, "big") + data for kind, data in frames)
    out, err = os.memfd_create("out"), os.memfd_create("err")
    try:
        demux = Demux(out, err)
        at = turn = 0
        while at < len(wire):
            size = sizes[turn % len(sizes)]
            demux.feed(wire[at : at + size])
            at, turn = at + size, turn + 1
        for fd, kind in ((out, 1), (err, 2)):
            assert os.pread(fd, 1 << 20, 0) == b"".join(data for stream, data in frames if stream == kind)
    finally:
        os.close(out)
        os.close(err)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), 1 << 63) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=20,
)


@given(_JSON)
def test_json_there_and_back(value: object) -> None:
    assert fastjson.loads(fastjson.dumps(value)) == value
    assert fastjson.loads(fastjson.dumps(value).encode() + b"\r\n") == value


@pytest.mark.parametrize("text", ["", "{", "[1,]", "{}x", "nul", '"a'])
def test_what_is_no_json(text: str) -> None:
    with pytest.raises(ValueError, match=r"JSON|Expecting|Unterminated|property"):
        fastjson.loads(text)
