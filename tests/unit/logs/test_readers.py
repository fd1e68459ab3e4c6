"""Log readers against a simple model: any interleaving of writes, any tail, since and until, on every driver that can be read."""

import asyncio
import contextlib
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sampan.errors import InvalidArgument, NotImplementedYet
from sampan.logs import jsonfile, options, segments
from sampan.logs.frames import Frame, encode
from sampan.logs.jsonfile import JsonFileSource
from sampan.logs.lines import LINE_LIMIT, LineFilter
from sampan.logs.reader import LogQuery, open_log, read_log
from sampan.logs.segments import SegmentSource
from sampan.runtime import logframe
from sampan.runtime.supervisor.keeper_json import JsonFileWriter
from sampan.runtime.supervisor.keeper_log import SegmentWriter

PIECES = st.sampled_from([b"a", b"bc", b"\n", b"xyz\n", b"\n\n"])
WRITES = st.lists(st.tuples(st.sampled_from([1, 2]), st.lists(PIECES, min_size=1, max_size=5).map(b"".join)), max_size=30)
BLOCKS = st.sampled_from([1 << 16, 100, 30])


def model(frames: list[Frame], tail: int, since: int, until: int) -> list[tuple[int, int, bytes]]:
    """Lines in the order of their last bytes (an unfinished one stands where it last grew), each with the time of its beginning."""
    lines: list[tuple[int, int, int, bytes]] = []
    begun: dict[int, tuple[int, int, bytes]] = {}
    place = 0
    for stream, now, data in frames:
        for piece in data.splitlines(keepends=True):
            place += 1
            _, start, text = begun.pop(stream, (0, now, b""))
            if piece.endswith(b"\n"):
                lines.append((place, stream, start, text + piece))
            else:
                begun[stream] = (place, start, text + piece)
    lines += [(last, stream, start, text) for stream, (last, start, text) in begun.items()]
    ordered = [line[1:] for line in sorted(lines)]
    chosen = ordered if tail < 0 else ordered[len(ordered) - min(tail, len(ordered)) :]
    return [line for line in chosen if line[1] >= since and (not until or line[1] <= until)]


@contextlib.contextmanager
def blocks(size: int) -> Iterator[None]:
    """Have the readers look back in blocks of size bytes, growing fourfold."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (jsonfile, segments):
            patch.setattr(module, "FIRST_BLOCK", size)
        patch.setattr(jsonfile, "BLOCK", 4 * size)
        yield


def read(settings_: dict[str, object], **query: int) -> bytes:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in read_log(open_log(settings_), LogQuery(multiplexed=True, **query))])  # type: ignore[arg-type]

    return asyncio.run(collect())


def demultiplex(data: bytes) -> dict[int, bytes]:
    out: dict[int, bytes] = {1: b"", 2: b""}
    while data:
        length = int.from_bytes(data[4:8], "big")
        out[data[0]] += data[8 : 8 + length]
        data = data[8 + length :]
    return out


@settings(max_examples=150, deadline=None)
@given(
    writes=WRITES,
    tail=st.integers(-1, 12),
    since=st.integers(0, 33),
    until=st.integers(0, 33),
    size=st.sampled_from([0, 60, 200]),
    block=BLOCKS,
)
@example(writes=[(1, b"a"), (1, b"a"), (1, b"a"), (1, b"a")], tail=1, since=0, until=1, size=60, block=1 << 16)
def test_segments_equal_the_model(writes: list[tuple[int, bytes]], tail: int, since: int, until: int, size: int, block: int) -> None:
    frames = [(stream, now, data) for now, (stream, data) in enumerate(writes, 1)]
    with tempfile.TemporaryDirectory() as directory:
        writer = SegmentWriter(directory, size, 0)
        for stream, now, data in frames:
            writer.append(stream, data, now)
        writer.close()
        with blocks(block):
            got = demultiplex(read({"driver": "local", "dir": directory}, tail=tail, since=since, until=until))
    expected: dict[int, bytes] = {1: b"", 2: b""}
    for stream, _, line in model(frames, tail, since, until):
        expected[stream] += line
    assert got == expected


@settings(max_examples=100, deadline=None)
@given(writes=WRITES, tail=st.integers(-1, 12), since=st.integers(0, 33), size=st.sampled_from([0, 300]), block=BLOCKS)
def test_json_file_equals_the_model(writes: list[tuple[int, bytes]], tail: int, since: int, size: int, block: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/x-json.log"
        writer = JsonFileWriter(path, size, 1000)
        for now, (stream, data) in enumerate(writes, 1):
            writer.append(stream, data, now)
        writer.close()
        count = len(list(Path(directory).iterdir()))
        # What is in the files, oldest first: docker's line is complete when it is written, so its time is the end's.
        entries: list[Frame] = []
        for name in [f"{path}.{number}" for number in range(count - 1, 0, -1)] + [path]:
            for line in Path(name).read_text().splitlines():
                item = json.loads(line)
                now = int(item["time"][19:].strip(".Z").ljust(9, "0"))
                entries.append((1 if item["stream"] == "stdout" else 2, now, item["log"].encode()))
        # The last unfinished lines are written at close, with the time of day.
        entries = [(stream, now if now <= len(writes) else 10**15, data) for stream, now, data in entries]
        with blocks(block):
            got = demultiplex(read({"driver": "json-file", "path": path}, tail=tail, since=since))
    everything: dict[int, bytes] = {1: b"", 2: b""}
    for stream, data in writes:
        everything[stream] += data
    if tail < 0 and not since:
        assert got == everything
    expected: dict[int, bytes] = {1: b"", 2: b""}
    for stream, now, line in model(entries, tail, 0, 0):
        if now >= since:
            expected[stream] += line
    assert got == expected


@given(cut=st.integers(1, 60))
@settings(deadline=None)
def test_a_torn_frame_is_completed_with_what_it_has(cut: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        writer = SegmentWriter(directory, 0, 0)
        writer.append(1, b"first\n", 1)
        keep = writer.offset
        writer.append(1, b"x" * 40, 2)
        writer.close()
        path = f"{directory}/{logframe.segment_name(1)}"
        with open(path, "r+b") as file:
            file.truncate(keep + cut)
        again = SegmentWriter(directory, 0, 0)
        again.append(1, b"end\n", 3)
        again.close()
        with contextlib.closing(SegmentSource(directory)) as source:
            data = b"".join(frame[2] for frame in source.read())
    assert data == b"first\n" + b"x" * max(0, min(40, cut - logframe.HEADER.size)) + b"end\n"


def test_neighbours_of_one_stream_share_a_header() -> None:
    frames = [(1, 0, b"a\n"), (1, 0, b"b\n"), (2, 0, b"c\n"), (3, 0, b"n\n")]
    assert encode(frames, stdout=True, stderr=True, multiplexed=True) == b"\1\0\0\0\0\0\0\4a\nb\n\2\0\0\0\0\0\0\4c\nn\n"
    assert encode(frames, stdout=False, stderr=True, multiplexed=True) == b"\2\0\0\0\0\0\0\4c\nn\n"


def test_a_header_for_each_line_unless_there_are_many() -> None:
    frames: list[Frame] = [(1, 0, b"a\nb"), (1, 0, b"c\n\nd"), (2, 0, b"x" * 20_000 + b"\n"), (1, 0, b"end\r\n")]
    found = encode(frames, stdout=True, stderr=True, multiplexed=True, by_line=True)
    assert found == b"".join(
        bytes((stream, 0, 0, 0)) + len(line).to_bytes(4, "big") + line
        for stream, line in [(1, b"a\n"), (1, b"bc\n"), (1, b"\n"), (1, b"d"), (2, b"x" * 16384), (2, b"x" * 3616 + b"\n"), (1, b"end\r\n")]
    )
    assert encode(frames, stdout=True, stderr=True, multiplexed=False, by_line=True) == b"".join(data for _, _, data in frames)
    many: list[Frame] = [(1, 0, b"line\n" * 20_000)]
    assert encode(many, stdout=True, stderr=True, multiplexed=True, by_line=True) == b"\1\0\0\0\0\1\x86\xa0" + many[0][2]


def test_time_stamps_and_details_stand_before_each_line(tmp_path: Path) -> None:
    writer = SegmentWriter(str(tmp_path), 0, 0)
    writer.append(1, b"a\nb", 1_000_000_001)
    writer.append(1, b"c\n", 2_000_000_000)

    async def collect() -> bytes:
        query = LogQuery(timestamps=True, details={"b": "x y", "a": "1"}, multiplexed=False)
        return b"".join([chunk async for chunk in read_log(open_log({"driver": "local", "dir": str(tmp_path)}), query)])

    assert asyncio.run(collect()) == b"1970-01-01T00:00:01.000000001Z a=1,b=x+y a\n1970-01-01T00:00:01.000000001Z a=1,b=x+y bc\n"


def test_a_reader_that_rotation_overtook_is_told(tmp_path: Path) -> None:
    writer = SegmentWriter(str(tmp_path), 100, 2)
    source = SegmentSource(str(tmp_path))
    writer.append(1, b"x" * 100, 1)
    assert source.read()
    for number in range(5):
        writer.append(1, b"%d" % number * 100, 1)
    text = b"".join(frame[2] for _ in range(5) for frame in source.read())
    assert b"rotated away" in text
    assert text.endswith(b"4" * 100)


def texts(source: JsonFileSource) -> str:
    """All that can be read now."""
    found = ""
    while frames := source.read():
        found += "".join(frame[2].decode() for frame in frames)
    return found


@pytest.mark.parametrize(("rotations", "kept", "missing"), [(1, 5, False), (3, 5, False), (9, 3, True)])
def test_a_follower_of_a_json_file_behind_rotations(tmp_path: Path, rotations: int, kept: int, missing: bool) -> None:
    """What came between two looks at it is there, in order, or it is said that something may be missing."""
    path = tmp_path / "log"
    writer = JsonFileWriter(str(path), 100, kept)
    writer.append(1, b"first\n", 1)
    source = JsonFileSource(str(path))
    assert texts(source) == "first\n"
    lines = [f"{number}" * 30 + "\n" for number in range(2 * rotations)]
    for line in lines:
        writer.append(1, line.encode(), 1)
    found = texts(source)
    assert ("rotated faster" in found) == missing
    whole = [line for line in found.splitlines(keepends=True) if "sampan" not in line]
    assert whole == (lines if not missing else [lines[0], *lines[-len(whole) + 1 :]])
    source.close()
    writer.close()


def test_json_file_splits_long_lines_as_docker_does(tmp_path: Path) -> None:
    path = tmp_path / "log"
    writer = JsonFileWriter(str(path), 0, 1)
    writer.append(1, b"y" * 40000 + b"\n<&>\n", 1_500_000_000)
    writer.close()
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert [len(entry["log"]) for entry in entries] == [16384, 16384, 7233, 4]
    assert path.read_text().splitlines()[-1] == '{"log":"\\u003c\\u0026\\u003e\\n","stream":"stdout","time":"1970-01-01T00:00:01.5Z"}'


@pytest.mark.parametrize(
    ("driver", "config", "message"),
    [
        ("foo", {}, 'error looking up logging plugin foo: plugin "foo" not found'),
        ("json-file", {"foo": "1"}, "unknown log opt 'foo' for json-file log driver"),
        ("local", {"foo": "1"}, "unknown log opt 'foo' for log driver local"),
        ("local", {"mode": "x"}, "logger: logging mode not supported: x"),
        ("local", {"max-buffer-size": "1m"}, "logger: max-buffer-size option is only supported with 'mode=non-blocking'"),
    ],
)
def test_bad_options_are_told_in_dockers_words(driver: str, config: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        options.validate(driver, config)
    assert caught.value.message == message


def test_other_drivers_are_named_as_missing() -> None:
    with pytest.raises(NotImplementedYet, match="gelf"):
        options.validate("gelf", {})
    with pytest.raises(NotImplementedYet, match="does not support reading"):
        open_log({"driver": "none"})


def test_settings_have_dockers_defaults() -> None:
    made = options.log_settings("local", {}, "id", "/c/id")
    assert (made["max_size"], made["max_file"], made["dir"], made["path"]) == (20 << 20, 5, "/c/id/log", "")
    made = options.log_settings("json-file", {"max-size": "10m", "max-file": "3"}, "id", "/c/id")
    assert (made["max_size"], made["max_file"], made["path"]) == (10 << 20, 3, "/c/id/id-json.log")


@pytest.mark.parametrize("wanted", [True, False])
def test_a_line_that_does_not_end_is_passed_on_without_being_kept(wanted: bool) -> None:
    lines = LineFilter(skip={1: 0 if wanted else 1}, prefix=b"k=v ")
    piece = b"x" * (LINE_LIMIT // 4)
    out = [frame for now in range(12) for frame in lines.feed([(1, now, piece), (2, now, b"short\n")])]
    out += [*lines.feed([(1, 12, b"end\nnext\n")]), *lines.finish()]
    long = b"".join(data for stream, _, data in out if stream == 1)
    assert long == (b"k=v " + piece * 12 + b"end\n" if wanted else b"") + b"k=v next\n"
    assert [data for stream, _, data in out if stream == 2] == [b"k=v short\n"] * 12
    assert max(len(data) for _, _, data in out) <= LINE_LIMIT + 2 * len(piece)
