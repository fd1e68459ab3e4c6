"""json-file's rotated files, compressed or not: readers see each line once, whatever is compressed, rotated or damaged meanwhile."""

import asyncio
import contextlib
import errno
import gzip
import json
import os
import stat
import subprocess
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.errors import InvalidArgument, NotImplementedYet
from sampan.logs import jsonfile, options, rotated
from sampan.logs.jsonfile import DAMAGED, OVERTAKEN, JsonFileSource
from sampan.logs.reader import LogQuery, read_log
from sampan.runtime.supervisor.keeper_json import JsonFileWriter, swap
from tests.support import logs

NEVER = threading.Event()


def texts(source: JsonFileSource) -> str:
    """All that can be read now."""
    found = ""
    while frames := source.read():
        found += "".join(frame[2].decode() for frame in frames)
    return found


def read(path: str, tail: int = -1) -> str:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in read_log(JsonFileSource(path), LogQuery(multiplexed=False, tail=tail))])

    return asyncio.run(collect()).decode()


@pytest.fixture
def descriptors() -> Iterator[None]:
    """All are given back."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    assert set(os.listdir("/proc/self/fd")) == before


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(0, 60),
    compressed=st.sets(st.integers(1, 30)),
    tail=st.integers(-1, 62),
    block=st.sampled_from([1 << 16, 100, 30]),
)
def test_any_of_them_may_be_compressed(count: int, compressed: set[int], tail: int, block: int) -> None:
    lines = [f"line {number}\n" for number in range(count)]
    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonfile, "FIRST_BLOCK", block)
        patch.setattr(jsonfile, "BLOCK", 4 * block)
        path = f"{directory}/x-json.log"
        writer = JsonFileWriter(path, 200, 1000)
        for now, line in enumerate(lines, 1):
            writer.append(1, line.encode(), now)
        writer.close()
        for number in compressed:
            logs.compress(path, number)
        assert read(path, tail) == "".join(lines if tail < 0 else lines[len(lines) - min(tail, len(lines)) :])
        assert not [name for name in os.listdir(directory) if "copy" in name]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 12)),
        st.tuples(st.just("compress"), st.integers(1, 8)),
        st.just(("read", 0)),
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(steps=STEPS, kept=st.sampled_from([2, 3, 6, 1000]))
def test_a_follower_sees_each_line_once(steps: list[tuple[str, int]], kept: int) -> None:
    """Its file may have become a copy, been renamed, or be gone; then it is told that lines may be missing."""
    with tempfile.TemporaryDirectory() as directory:
        path = f"{directory}/x-json.log"
        writer = JsonFileWriter(path, 100, kept)
        source = JsonFileSource(path)
        written = 0
        found = ""
        for step, number in steps:
            if step == "write":
                for _ in range(number):
                    writer.append(1, b"line %d\n" % written, 1)
                    written += 1
            elif step == "compress":
                logs.compress(path, number)
            else:
                found += texts(source)
        found += texts(source)
        source.close()
        writer.close()
    got = [int(line.split()[1]) for line in found.splitlines() if line.startswith("line")]
    assert got == sorted(set(got))
    assert got[-1:] == [written - 1][: len(got)]
    if OVERTAKEN.decode() not in found:
        assert got == list(range(written))
    assert DAMAGED.decode() not in found
    if kept == 1000:
        assert OVERTAKEN.decode() not in found


def test_a_file_that_has_become_a_copy_is_known_again(tmp_path: Path, descriptors: None) -> None:
    path = str(tmp_path / "log")
    writer = JsonFileWriter(path, 100, 5)
    writer.append(1, b"first\n", 1)
    source = JsonFileSource(path)
    assert texts(source) == "first\n"
    for number in range(3):
        writer.append(1, b"%d" % number * 40 + b"\n", 1)
        logs.compress(path, 1)
    assert [file.name for file in logs.files(path)] == ["log.3.gz", "log.2.gz", "log.1.gz", "log"][-len(logs.files(path)) :]
    assert texts(source) == "".join(f"{number}" * 40 + "\n" for number in range(3))
    source.close()
    writer.close()


@pytest.mark.parametrize("before", range(1, 5))
def test_what_is_rotated_while_it_is_looked_at_comes_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: int) -> None:
    """Two rotations pass at once, and a third one has renamed the current file, but not made the next yet, when the look ends."""
    path = str(tmp_path / "log")
    for number, text in enumerate(("third", "second", "first")):
        (tmp_path / (f"log.{number}" if number else "log")).write_text(f'{{"log":"{text}\\n"}}\n')
    real = rotated.opened
    asked: list[int] = []

    def rename() -> None:
        for file in logs.files(path):
            file.rename(f"{path}.{int(file.suffix[1:]) + 1 if file.suffix else 1}")

    def opened(path: str, number: int) -> rotated.LogFile | None:
        asked.append(number)
        if len(asked) == before + 1:
            for text in ("fourth", "fifth"):
                rename()
                Path(path).write_text(f'{{"log":"{text}\\n"}}\n')
        if asked.count(0) == 2 and number == 0:
            rename()
        found = real(path, number)
        if asked.count(0) == 3 and number == 0 and not os.path.exists(path):
            Path(path).write_text('{"log":"sixth\\n"}\n')
            found = real(path, number)
        return found

    monkeypatch.setattr(jsonfile, "opened", opened)
    source = JsonFileSource(path)
    assert texts(source).split() == ["first", "second", "third", "fourth", "fifth", "sixth"]
    source.close()


def test_a_log_that_is_rotated_all_the_time_is_not_looked_at_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "log")
    writer = JsonFileWriter(path, 64, 2)
    real, ends_at, written = rotated.opened, time.monotonic() + 20 * jsonfile.LOOK_SECONDS, 0

    def write() -> None:
        nonlocal written
        writer.append(1, b"line %d\n" % written, 1)
        written += 1

    def opened(path: str, number: int) -> rotated.LogFile | None:
        found = real(path, number)
        if number == 0 and time.monotonic() < ends_at:
            write()
        return found

    monkeypatch.setattr(jsonfile, "opened", opened)
    write()
    source = JsonFileSource(path)
    assert time.monotonic() < ends_at
    monkeypatch.undo()
    got = texts(source).replace(OVERTAKEN.decode(), "").splitlines()
    source.close()
    writer.close()
    assert written > 3
    assert len(got) == len(set(got))
    assert got[-1] == f"line {written - 1}"


@pytest.mark.parametrize("copied", [False, True])
def test_a_look_that_fails_gives_back_what_it_has_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool, descriptors: None
) -> None:
    path = str(tmp_path / "log")
    for number in range(4):
        (tmp_path / (f"log.{number}" if number else "log")).write_text(f"{number}" * 60)
    assert logs.compress(path, 2)
    real = os.pread if copied else os.open

    def fails(*given: object) -> object:
        if copied or given[0] == f"{path}.3":
            raise OSError(errno.EIO if copied else errno.EMFILE, "no")
        return real(*given)  # type: ignore[operator]

    with monkeypatch.context() as patch:
        patch.setattr(rotated.os, "pread" if copied else "open", fails)
        with pytest.raises(OSError, match="no"):
            JsonFileSource(path)


def test_an_inode_that_is_used_again_is_no_other_file(tmp_path: Path) -> None:
    """ext4 and tmpfs give a new file the number of the one that has just gone; their sizes are often equal, too."""
    path = str(tmp_path / "log")
    Path(path).write_text("")
    (tmp_path / "log.1").write_text("same size\n")
    assert logs.compress(path, 1)
    held = rotated.opened(path, 1)
    assert held is not None
    (tmp_path / "other").write_text("diff size\n")
    os.utime(tmp_path / "other", ns=(1, 1))
    with open(tmp_path / "other", "rb") as file:
        other = rotated.PlainFile(os.dup(file.fileno()), rotated.Origin(held.origin.inode, held.origin.size, 1))
    assert not rotated.same(held, other)
    other.close()
    held.close()


def test_a_copy_is_a_gzip_file_with_the_originals_rights(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    data = b"".join(b"%d " % number * 7 + b"\n" for number in range(100_000))
    (tmp_path / "log.1").write_bytes(data)
    os.chmod(tmp_path / "log.1", 0o640)
    os.utime(tmp_path / "log.1", ns=(1_500_000_000_123456789, 1_500_000_000_123456789))
    assert logs.compress(path, 1)
    copy = tmp_path / "log.1.gz"
    assert os.listdir(tmp_path) == ["log.1.gz"]
    subprocess.run(["gzip", "-t", str(copy)], check=True)
    assert gzip.decompress(copy.read_bytes()) == data
    found = copy.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_mtime_ns) == (0o640, 1_500_000_000_123456789)
    assert found.st_size < len(data) // 3


def test_what_grows_or_is_not_wanted_any_more_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(os.urandom(1 << 20))
    source = os.open(tmp_path / "log", os.O_RDWR | os.O_APPEND)
    target = os.open(tmp_path / "copy", os.O_RDWR | os.O_CREAT)
    stop = threading.Event()

    class Grows(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            os.write(source, b"more")
            return False

    assert rotated.compress(source, target, Grows()) is None
    stop.set()
    assert rotated.compress(source, target, stop) is None
    os.close(source)
    os.close(target)


def damaged_log(tmp_path: Path, change: object) -> str:
    path = str(tmp_path / "log")
    writer = JsonFileWriter(path, 2000, 9)
    for number in range(60):
        writer.append(1, b"line %d\n" % number, 1)
    writer.close()
    copies = [number for number in range(1, 9) if logs.compress(path, number)]
    assert len(copies) > 1
    file = tmp_path / "log.2.gz"
    file.write_bytes(change(file.read_bytes()))  # type: ignore[operator]
    return path


DAMAGES = {
    "torn": lambda data: data[: len(data) * 2 // 3],
    "empty": lambda data: b"",
    "head only": lambda data: data[:20],
    "no gzip": lambda data: b"\0" * 100,
    "bits": lambda data: data[:-60] + bytes(byte ^ 255 for byte in data[-60:]),
    "nothing comes of it": lambda data: data[:52] + b"\0\0\0\xff\xff" * 1_000_000,
    "another subfield": lambda data: data[:12] + b"xx" + data[14:],
    "fields beyond the end": lambda data: data[:10] + b"\xff\xff" + data[12:],
}


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES.keys())
def test_of_a_damaged_copy_comes_what_can_be_read(tmp_path: Path, change: object, descriptors: None) -> None:
    path = damaged_log(tmp_path, change)
    for tail in (-1, 5, 55, 1000):
        found = read(path, tail).splitlines()
        assert found[-5:] == [f"line {number}" for number in range(55, 60)]
        numbers = [int(line.split()[1]) for line in found if line.startswith("line")]
        assert numbers == sorted(set(numbers))
        told = DAMAGED.decode().strip() in found
        whole = numbers == list(range(60))
        assert told or whole or tail in (5, 55)
        assert not (told and whole)


def test_a_bomb_is_read_in_pieces(tmp_path: Path) -> None:
    """128 MiB that no line ends, behind a header that promises 1 KiB."""
    path = str(tmp_path / "log")
    writer = JsonFileWriter(path, 0, 9)
    writer.append(1, b"the end\n", 1)
    writer.close()
    with gzip.open(tmp_path / "log.1.gz", "wb") as file:
        for _ in range(8):
            file.write(b"x" * (1 << 24))
    packed = (tmp_path / "log.1.gz").read_bytes()
    (tmp_path / "log.1.gz").write_bytes(packed[:-4] + (1024).to_bytes(4, "little"))
    tracemalloc.start()
    assert read(path, 5).splitlines() == [DAMAGED.decode().strip(), "the end"]
    assert read(path).splitlines()[-1] == "the end"
    assert tracemalloc.get_traced_memory()[1] < 48 << 20
    tracemalloc.stop()


def test_without_room_to_unpack_the_tail_ends_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, descriptors: None) -> None:
    path = damaged_log(tmp_path, lambda data: data)

    def full(_directory: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(jsonfile, "nameless_file", full)
    assert read(path, 2) == "line 58\nline 59\n"
    found = read(path, 55).splitlines()
    assert found[0] == DAMAGED.decode().strip()
    assert found[-1] == "line 59"


def test_only_what_the_tail_needs_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = damaged_log(tmp_path, lambda data: data)
    unpacked = 0
    real = jsonfile.nameless_file

    def counted(directory: str) -> int:
        nonlocal unpacked
        unpacked += 1
        return real(directory)

    monkeypatch.setattr(jsonfile, "nameless_file", counted)
    here = len((tmp_path / "log").read_text().splitlines())
    assert len(read(path, here - 1).splitlines()) == here - 1
    assert unpacked == 0
    assert len(read(path, here).splitlines()) == here  # the first may be the end of a line that began before
    assert unpacked == 1


def test_of_what_is_unpacked_only_where_the_tail_begins_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = damaged_log(tmp_path, lambda data: data)
    real = jsonfile.nameless_file

    def held() -> int:
        return sum(link.startswith(f"{tmp_path}/") and "deleted" in link for link in links())

    def links() -> Iterator[str]:
        for fd in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/self/fd/{fd}")

    def checked(directory: str) -> int:
        assert held() == 0
        return real(directory)

    async def tail(count: int) -> int:
        with contextlib.closing(JsonFileSource(path)) as source:
            await source.seek_tail(count)
            return held()

    monkeypatch.setattr(jsonfile, "nameless_file", checked)
    assert asyncio.run(tail(55)) == 1
    assert asyncio.run(tail(1000)) == 0
    assert held() == 0


def test_readers_of_more_than_one_loop_unpack_one_file_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = damaged_log(tmp_path, lambda data: data)
    real = rotated.CompressedFile.unpack_into
    turn, unpacked = threading.Lock(), []

    def alone(file: rotated.CompressedFile, target: int, stop: threading.Event) -> bool:
        assert turn.acquire(blocking=False)
        unpacked.append(target)
        done = real(file, target, stop)
        turn.release()
        return done

    monkeypatch.setattr(rotated.CompressedFile, "unpack_into", alone)
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(read(path, 1000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == ["".join(f"line {number}\n" for number in range(60))] * 4
    assert len(unpacked) == 4 * len(list(tmp_path.glob("*.gz")))


def test_max_file_counts_both_kinds(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    for begin in (0, 50):
        writer = JsonFileWriter(path, 200, 4)
        for number in range(begin, begin + 50):
            writer.append(1, b"line %d\n" % number, 1)
            if number % 3:
                logs.compress(path, 1 + number % 2)
        writer.close()
    assert len(os.listdir(tmp_path)) == len(logs.files(path)) == 4
    lines = [json.loads(line)["log"] for file in logs.files(path) for line in logs.text(file).splitlines()]
    assert lines == [f"line {number}\n" for number in range(100 - len(lines), 100)]
    assert any(file.suffix == ".gz" for file in logs.files(path))


def test_a_copy_that_nobody_needs_goes(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    for name in ("log", "log.1", "log.1.gz", "log.2.gz", "copy"):
        (tmp_path / name).write_text(name)
    found = (tmp_path / "log.1").stat()
    right = [found.st_ino, found.st_size, found.st_mtime_ns]
    for wrong in ([found.st_ino, found.st_size, 1], [found.st_ino, 1, found.st_mtime_ns], [1, found.st_size, found.st_mtime_ns]):
        assert not swap(path, 1, wrong, f"{tmp_path}/copy")
        assert not (tmp_path / "copy").exists()
        (tmp_path / "copy").write_text("copy")
    assert swap(path, 1, right, f"{tmp_path}/copy")
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1.gz", "log.2.gz"]
    assert (tmp_path / "log.1.gz").read_text() == "copy"
    assert not swap(path, 1, right, f"{tmp_path}/copy")


def test_a_swap_looks_for_the_file_from_where_it_was(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    for number in range(1, 5):
        (tmp_path / f"log.{number}").write_text("x")
    (tmp_path / "log.1.gz").touch()
    found = (tmp_path / "log.3").stat()
    original = [found.st_ino, found.st_size, found.st_mtime_ns]
    (tmp_path / "copy").touch()
    assert not swap(path, 4, original, f"{tmp_path}/copy")
    (tmp_path / "copy").touch()
    assert swap(path, 2, original, f"{tmp_path}/copy")
    assert sorted(os.listdir(tmp_path)) == ["log.1", "log.1.gz", "log.2", "log.3.gz", "log.4"]


def test_of_a_file_and_its_copy_the_file_counts_and_the_copy_goes(tmp_path: Path) -> None:
    """A keeper was killed between putting the copy there and taking the file away."""
    path = str(tmp_path / "log")
    writer = JsonFileWriter(path, 100, 5)
    for number in range(4):
        writer.append(1, b"%d" % number * 80 + b"\n", 1)
    writer.close()
    for number in (1, 2):
        (tmp_path / f"log.{number}.gz").write_bytes(gzip.compress((tmp_path / f"log.{number}").read_bytes()))
    assert [line[0] for line in read(path).splitlines()] == ["0", "1", "2", "3"]
    assert [line[0] for line in read(path, 3).splitlines()] == ["1", "2", "3"]
    writer = JsonFileWriter(path, 100, 5)
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2", "log.3"]
    writer.close()
    (tmp_path / "log.2.gz").write_bytes(b"")
    assert logs.compress(path, 2)
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1", "log.2.gz", "log.3"]
    assert [line[0] for line in read(path).splitlines()] == ["0", "1", "2", "3"]


def test_a_swap_whose_copy_is_gone_takes_nothing_away(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_text("log.1")
    found = (tmp_path / "log.1").stat()
    with contextlib.suppress(FileNotFoundError):
        swap(f"{tmp_path}/log", 1, [found.st_ino, found.st_size, found.st_mtime_ns], f"{tmp_path}/copy")
    assert os.listdir(tmp_path) == ["log.1"]


def test_it_is_told_of_what_is_there_and_of_what_comes(tmp_path: Path) -> None:
    path = str(tmp_path / "log")
    writer = JsonFileWriter(path, 100, 3)
    assert not writer.rotated
    writer.append(1, b"x" * 100 + b"\n", 1)
    assert not writer.rotated
    writer.append(1, b"y\n", 1)
    assert writer.rotated
    writer.close()
    assert JsonFileWriter(path, 100, 3).rotated


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"compress": "true"}, "compress cannot be true when max-file is less than 2 or max-size is not set"),
        ({"compress": "true", "max-size": "1k"}, "compress cannot be true when max-file is less than 2 or max-size is not set"),
        ({"compress": "1", "max-file": "3"}, "compress cannot be true when max-file is less than 2 or max-size is not set"),
        ({"compress": "yes"}, 'strconv.ParseBool: parsing "yes": invalid syntax'),
    ],
)
@pytest.mark.parametrize("driver", ["", "json-file"])
def test_compress_has_dockers_rules(driver: str, config: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        options.validate(driver, config)
    assert caught.value.message == f"failed to create task for container: failed to initialize logging driver: {message}"


@pytest.mark.parametrize("driver", ["", "json-file"])
def test_who_asks_for_compress_gets_the_file_that_has_it(driver: str) -> None:
    config = {"compress": "true", "max-size": "20k", "max-file": "4"}
    options.validate(driver, config)
    made = options.log_settings(driver, config, "id", "/c/id")
    assert made["driver"] == "json-file"
    assert made["compress"]
    assert made["path"] == options.log_path(driver, config, "id", "/c/id") == "/c/id/id-json.log"
    config["compress"] = "false"
    options.validate(driver, config)
    made = options.log_settings(driver, config, "id", "/c/id")
    assert not made["compress"]
    assert made["driver"] == (driver or "local")


def test_local_is_not_compressed() -> None:
    with pytest.raises(NotImplementedYet, match="compress"):
        options.validate("local", {"compress": "true"})
    options.validate("local", {"compress": "false"})
