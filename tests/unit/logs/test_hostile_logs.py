"""Logs that a hostile container made: reading or writing them bounds memory, and leaves turns to the others."""

import asyncio
import contextlib
import json
import os
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import InvalidArgument
from sampan.logs import options
from sampan.logs.lines import LINE_LOOKBACK, PIECE, LineFilter, pieces
from sampan.logs.reader import LogQuery, open_log, read_log
from sampan.runtime.supervisor.keeper_json import JsonFileWriter
from sampan.runtime.supervisor.keeper_log import SegmentWriter


@contextlib.contextmanager
def memory(limit: int) -> Iterator[None]:
    """Fail if more than limit bytes of Python's were needed at once."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def written(root: Path, driver: str, piece: bytes, count: int) -> dict[str, Any]:
    log = {"driver": driver, "dir": str(root), "path": str(root / "json.log")}
    writer = JsonFileWriter(str(log["path"]), 0, 1) if driver == "json-file" else SegmentWriter(str(root), 8 << 20, 0)
    for _ in range(count):
        writer.append(1, piece, 1)
    writer.close()
    return log


def read(log: dict[str, Any], tail: int) -> tuple[int, float]:
    """How many bytes come, and the longest that others had to wait meanwhile, in seconds of CPU time."""

    async def run() -> tuple[int, float]:
        slowest = 0.0

        async def others() -> None:
            nonlocal slowest
            while True:
                begun = time.thread_time()
                await asyncio.sleep(0)
                slowest = max(slowest, time.thread_time() - begun)

        task = asyncio.create_task(others())
        await asyncio.sleep(0)
        size = sum([len(chunk) async for chunk in read_log(open_log(log), LogQuery(multiplexed=False, tail=tail))])
        task.cancel()
        return size, slowest

    return asyncio.run(run())


@pytest.mark.parametrize("driver", ["local", "json-file"])
def test_the_tail_of_a_line_without_end_is_looked_for_so_far_back(tmp_path: Path, driver: str) -> None:
    log = written(tmp_path, driver, b"x" * 262_144, 200)
    with memory(16 << 20):
        size, _ = read(log, 1)
    assert LINE_LOOKBACK <= size < LINE_LOOKBACK + (2 << 20)


@pytest.mark.parametrize("driver", ["local", "json-file"])
@pytest.mark.slow
def test_a_long_way_back_leaves_turns_to_the_others(tmp_path: Path, driver: str) -> None:
    """Frames of a byte; the lines wanted are more than there are."""
    log = written(tmp_path, driver, b"\n", 60_000)
    assert read(log, 1_000_000)[0] == 60_000
    with memory(32 << 20):
        assert read(log, 50_000)[0] == 50_000
    assert read(log, 1_000_000)[1] < 0.25


def test_a_torn_segment_is_read_with_turns_for_the_others(tmp_path: Path) -> None:
    log = written(tmp_path, "local", b"\n", 300_000)
    with open(tmp_path / "00000001.seg", "ab") as file:
        file.write(b"torn")
    size, slowest = read(log, 5)
    assert size == 5
    assert slowest < 0.25


def test_details_of_many_lines_come_in_pieces() -> None:
    """1 MiB of newlines by 64 KiB of details are 64 GiB."""
    lines = LineFilter(skip={}, prefix=b"k" * 65_536)
    with memory(16 << 20):
        for _, piece in zip(range(20), pieces(lines.feed([(1, 0, b"\n" * (1 << 20))])), strict=False):
            assert sum(len(data) for _, _, data in piece) <= 2 * PIECE
    few = LineFilter(skip={}, prefix=b"k" * (PIECE // 2))
    assert b"".join(data for _, _, data in few.feed([(1, 0, b"a\n\nbc\n\n\nd\ne")])) + b"".join(
        data for _, _, data in few.finish()
    ) == b"".join(b"k" * (PIECE // 2) + line for line in [b"a\n", b"\n", b"bc\n", b"\n", b"\n", b"d\n", b"e"])


def test_attributes_are_bounded() -> None:
    def attributes(size: int) -> dict[str, str]:
        info = options.LogInfo(
            container_id="c", name="n", image_id="i", image_name="i", command="", labels={"a": "x" * size}, env=("E=" + "y" * size,)
        )
        return options.attributes({"labels": "a", "env": "E"}, info)

    assert attributes(32_000) == {"a": "x" * 32_000, "E": "y" * 32_000}
    with pytest.raises(InvalidArgument, match=r"^failed to create task for container: failed to initialize logging driver: .* 80015 bytes"):
        attributes(40_000)


def test_what_one_read_becomes_in_json_file_is_bounded(tmp_path: Path) -> None:
    writer = JsonFileWriter(str(tmp_path / "log"), 0, 1, json.dumps({"a": "x" * 65_000}))
    with memory(24 << 20):
        writer.append(1, b"\n" * writer.read_size, 1)
    writer.close()
    assert JsonFileWriter(str(tmp_path / "plain"), 0, 1).read_size > 16_384


def test_a_rotation_costs_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """max-file may be any number, and max-size a byte; what is kept stays in order."""
    renamed = 0
    rename = os.rename

    def counted(old: str, new: str) -> None:
        nonlocal renamed
        renamed += 1
        rename(old, new)

    monkeypatch.setattr(os, "rename", counted)
    path = tmp_path / "log"
    for begin in (0, 500):  # the second writer finds what the first one left
        writer = JsonFileWriter(str(path), 1, 10**9)
        for number in range(begin, begin + 500):
            writer.append(1, b"%d\n" % number, 1)
        writer.close()
    assert renamed < 2000
    older = len(list(tmp_path.iterdir())) - 1
    assert older > 5
    names = [f"{path}.{number}" for number in range(older, 0, -1)] + [str(path)]
    entries = [json.loads(line)["log"] for name in names for line in Path(name).read_text().splitlines()]
    assert entries == [f"{number}\n" for number in range(1000)]
