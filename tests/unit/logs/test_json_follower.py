"""A json-file whose keeper is killed at any write: the next one loses and repeats nothing, with rotation and unfinished lines too."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.logs.frames import Frame
from sampan.logs.jsonfile import JsonFileSource
from sampan.runtime.logframe import STDERR, STDOUT
from sampan.runtime.supervisor import keeper_json
from sampan.runtime.supervisor.keeper_json import JsonFileWriter, JsonFollower
from sampan.runtime.supervisor.keeper_log import SegmentWriter
from tests.support import logs

PIECES = st.sampled_from([b"a", b"bc", b"\n", b"xyz\n", b"\n\n", b"q" * 20])
OUTPUT = st.lists(st.tuples(st.sampled_from([STDOUT, STDERR]), st.lists(PIECES, min_size=1, max_size=4).map(b"".join)), max_size=20)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@contextmanager
def killed_after(calls: int) -> Iterator[None]:
    """The next calls that change a file work, then none any more. Raises Killed out of the last."""
    left = calls
    names = ("write", "pwrite", "ftruncate", "rename", "unlink")
    real = {name: getattr(os, name) for name in names}

    def counting(name: str) -> Any:
        def call(*args: Any) -> Any:
            nonlocal left
            if left <= 0:
                raise Killed
            left -= 1
            return real[name](*args)

        return call

    try:
        for name in names:
            setattr(os, name, counting(name))
        yield
    except Killed:
        pass
    finally:
        for name in names:
            setattr(os, name, real[name])


def entries(path: Path) -> dict[str, str]:
    """What the json-files say of each stream, the oldest first."""
    found = {"stdout": "", "stderr": ""}
    for file in logs.files(str(path)):
        for line in logs.text(file).splitlines():
            entry = json.loads(line)
            found[entry["stream"]] += entry["log"]
    return found


def beginning(path: Path, log: Path, size: int) -> Callable[[], tuple[SegmentWriter, JsonFollower]]:
    """What a new keeper begins with, the descriptors of the one that was killed being closed."""
    before = set(os.listdir("/proc/self/fd"))

    def begin() -> tuple[SegmentWriter, JsonFollower]:
        for fd in set(os.listdir("/proc/self/fd")) - before:
            with suppress(OSError):
                os.close(int(fd))
        segments = SegmentWriter(str(log), 1 << 20, 3, ephemeral=True)
        return segments, JsonFollower(JsonFileWriter(str(path), size, 1000), segments, alone=True)

    return begin


@settings(max_examples=300)
@given(output=OUTPUT, kills=st.lists(st.integers(0, 12), max_size=6), size=st.sampled_from([0, 150, 2000]))
def test_killed_at_any_write(output: list[tuple[int, bytes]], kills: list[int], size: int) -> None:
    with tempfile.TemporaryDirectory() as directory, mock.patch.object(keeper_json, "JSON_LINE", 16):
        path = Path(directory, "x-json.log")
        log = Path(directory, "log")

        begin = beginning(path, log, size)

        segments, follower = begin()
        for number, (stream, data) in enumerate(output):
            # splice(2) has put it into the segment before anything is killed
            segments.append(stream, data, number + 1)
            if kills and number % 2:
                with killed_after(kills.pop()):
                    follower.catch_up()
                    segments, follower = begin()  # killed while it goes on
                segments, follower = begin()
            follower.catch_up()
        follower.close()
        segments.close()
        expected = {
            name: b"".join(data for one, data in output if one == stream).decode() for name, stream in (("stdout", 1), ("stderr", 2))
        }
        assert entries(path) == expected
        assert not (log / "rendered").exists()


def test_killed_before_the_first_entry(tmp_path: Path) -> None:
    segments = SegmentWriter(f"{tmp_path}/log", 1 << 20, 3, ephemeral=True)
    JsonFollower(JsonFileWriter(f"{tmp_path}/x.json", 0, 1), segments, alone=True)
    segments.append(STDOUT, b"first\n", 1)  # splice(2) has, and then it is killed
    segments = SegmentWriter(f"{tmp_path}/log", 1 << 20, 3, ephemeral=True)
    JsonFollower(JsonFileWriter(f"{tmp_path}/x.json", 0, 1), segments, alone=True).close()
    assert entries(tmp_path / "x.json") == {"stdout": "first\n", "stderr": ""}


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(["write", "compress", "begin"]), st.integers(0, 14), st.booleans()), max_size=40))
def test_killed_while_files_are_compressed(steps: list[tuple[str, int, bool]]) -> None:
    """At any step of a rotation or a swap, again and again: every line is there once, however the files are called."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "x-json.log")
        log = Path(directory, "log")
        begin = beginning(path, log, 150)

        segments, follower = begin()
        written = 0
        for step, number, killed in steps:
            if step == "write":
                segments.append(STDOUT, b"line %d\n" % written, written + 1)
                written += 1
            with killed_after(number if killed else 1000):
                if step == "compress":
                    logs.compress(str(path), 1 + number % 4)
                else:
                    follower.catch_up()
            if killed or step == "begin":
                segments, follower = begin()
        follower.close()
        segments.close()
        lines = "".join(f"line {number}\n" for number in range(written))
        assert entries(path) == {"stdout": lines, "stderr": ""}
        source = JsonFileSource(str(path))
        assert b"".join(frame[2] for frame in iter_frames(source)).decode() == lines
        source.close()


def iter_frames(source: JsonFileSource) -> Iterator[Frame]:
    """All there are now."""
    while frames := source.read():
        yield from frames
