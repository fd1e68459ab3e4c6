"""What every log driver does with a container's output. The keeper is the real one, the writers are processes of their own.

A subclass in tests/integration/keeper says which driver: LogDriverContract is for all, ReadableContract for what `docker logs` can read.
"""

import asyncio
import calendar
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from sampan.errors import NotImplementedYet
from sampan.logs.attach import attached_output
from sampan.logs.reader import LogQuery, open_log, read_log
from sampan.logs.segments import SegmentSource
from sampan.logs.wakeup import Wakeup

TURNS = "import os\nfor n in range(200):\n os.write(1 + n % 2, b'%d\\n' % n)\n"
"""Lines 0, 2, 4 ... on stdout and 1, 3, 5 ... on stderr."""


def read(log: dict[str, Any], **query: Any) -> bytes:
    """What `docker logs` gives."""

    async def collect() -> bytes:
        return b"".join([chunk async for chunk in read_log(open_log(log), LogQuery(**{"multiplexed": False, **query}))])

    return asyncio.run(collect())


def streams(log: dict[str, Any], **query: Any) -> tuple[bytes, bytes]:
    """stdout and stderr of what `docker logs` gives."""
    frames, found = read(log, multiplexed=True, **query), {1: b"", 2: b""}
    while frames:
        length = int.from_bytes(frames[4:8], "big")
        found[frames[0]] += frames[8 : 8 + length]
        frames = frames[8 + length :]
    return found[1], found[2]


def numbers(text: bytes) -> list[int]:
    """The numbers that lines end in."""
    return [int(line.split()[-1]) for line in text.splitlines()]


class LogDriverContract:
    """For every driver."""

    driver: ClassVar[str]

    def settings(self, rig: Any, name: str = "a", **more: Any) -> dict[str, Any]:
        """Settings of a log, as sampand gives them to the keeper: unlimited unless said."""
        made: dict[str, Any] = rig.log(name, driver=self.driver, **{"max_size": 0, "max_file": 5, **more})
        return made

    def written(self, rig: Any, script: str, log: dict[str, Any]) -> None:
        """Run a writer to its end; the keeper has all of its output."""
        process = rig.write("a", script, log)
        assert process.wait(60) == 0
        rig.keeper.drained("a")

    def test_the_writer_is_never_held_up_by_a_full_disk(self, rig: Any, small_disk: Path) -> None:
        self.written(rig, "import os\nfor _ in range(64): os.write(1, b'x' * 65535 + b'\\n')", self.settings(rig, f"{small_disk.name}/log"))

    def test_a_killed_keeper_does_not_end_the_writer(self, rig: Any) -> None:
        log = self.settings(rig)
        process = rig.write("a", "import os\nfor n in range(300_000): os.write(1, b'%09d\\n' % n)", log)
        for _ in range(3):
            time.sleep(0.1)
            rig.kill_keeper()
            rig.start_keeper()
        assert process.wait(100) == 0
        rig.keeper.drained("a")

    def test_attach_gets_every_byte(self, rig: Any) -> None:
        log = self.settings(rig)
        data = bytes(range(256)) * 40_000

        async def collect() -> bytes:
            wakeup = Wakeup()
            rig.write("a", "import os, time\ntime.sleep(0.3)\nfor _ in range(40): os.write(1, bytes(range(256)) * 1000)", log)
            reply = rig.keeper.request({"op": "follow", "key": "a", "reader": "r", "attach": True}, {"eventfd": wakeup.fd})
            watch = asyncio.create_task(asyncio.to_thread(rig.keeper.event, "drained", "a"))
            watch.add_done_callback(lambda task: wakeup.end(tuple(task.result()["pos"])))
            got = b"".join(
                [
                    chunk
                    async for chunk in attached_output(
                        SegmentSource(log["dir"], tuple(reply["pos"])), wakeup, lambda _: None, multiplexed=False
                    )
                ]
            )
            await watch
            wakeup.close()
            return got

        assert asyncio.run(asyncio.wait_for(collect(), 100)) == data


class UnreadableContract(LogDriverContract):
    """For `none`."""

    def test_reading_is_refused_in_dockers_words(self, rig: Any) -> None:
        log = self.settings(rig)
        self.written(rig, TURNS, log)
        with pytest.raises(NotImplementedYet) as caught:
            read(log)
        assert caught.value.message == "configured logging driver does not support reading"

    def test_nothing_is_left_on_disk(self, rig: Any) -> None:
        log = self.settings(rig)
        self.written(rig, TURNS, log)
        rig.keeper.request({"op": "forget", "key": "a"})
        deadline = time.monotonic() + 30
        while left := [path for path in (*Path(log["dir"]).iterdir(), Path(log["path"])) if path.exists()]:
            assert time.monotonic() < deadline, left
            time.sleep(0.02)


class ReadableContract(LogDriverContract):
    """For drivers that `docker logs` can read."""

    exact: ClassVar[bool]
    """Whether bytes that are no UTF-8 come back as they were; json-file writes U+FFFD for them, as docker does."""

    def test_order_and_streams(self, rig: Any) -> None:
        log = self.settings(rig)
        self.written(rig, TURNS, log)
        assert sorted(numbers(read(log))) == list(range(200))
        out, err = streams(log)
        assert (numbers(out), numbers(err)) == (list(range(0, 200, 2)), list(range(1, 200, 2)))
        assert streams(log, stderr=False) == (out, b"")
        assert streams(log, stdout=False) == (b"", err)

    @pytest.mark.parametrize("tail", [0, 1, 5, 100, 1000])
    def test_tail(self, rig: Any, tail: int) -> None:
        log = self.settings(rig)
        self.written(rig, "for n in range(100): print(n)", log)
        assert numbers(read(log, tail=tail)) == list(range(100))[100 - min(tail, 100) :]

    def test_since_and_until(self, rig: Any) -> None:
        log = self.settings(rig)
        self.written(rig, "import os, time\nfor n in range(6):\n os.write(1, b'%d\\n' % n)\n time.sleep(0.25)", log)
        stamps = [line.split()[0].decode() for line in read(log, timestamps=True).splitlines()]
        assert stamps == sorted(stamps)
        assert all(len(stamp) == len("2026-11-25T00:00:00.123456789Z") for stamp in stamps)
        times = [_nanoseconds(stamp) for stamp in stamps]
        assert numbers(read(log, since=times[3])) == [3, 4, 5]
        assert numbers(read(log, until=times[3])) == [0, 1, 2, 3]
        assert numbers(read(log, since=times[1] + 1, until=times[4] - 1)) == [2, 3]
        assert numbers(read(log, since=times[1], tail=2)) == [4, 5]
        assert read(log, since=times[5] + 1) == b""

    def test_follow_ends_with_the_container(self, rig: Any) -> None:
        log = self.settings(rig)

        async def follow() -> bytes:
            wakeup = Wakeup()
            rig.write("a", "import os, time\nfor n in range(20):\n os.write(1, b'%d\\n' % n)\n time.sleep(0.02)", log)
            rig.keeper.request({"op": "follow", "key": "a", "reader": "r", "attach": False}, {"eventfd": wakeup.fd})
            watch = asyncio.create_task(asyncio.to_thread(rig.keeper.event, "drained", "a"))
            watch.add_done_callback(lambda task: wakeup.end(tuple(task.result()["pos"])))
            got = b"".join([chunk async for chunk in read_log(open_log(log), LogQuery(multiplexed=False), wakeup)])
            await watch
            wakeup.close()
            return got

        assert numbers(asyncio.run(asyncio.wait_for(follow(), 60))) == list(range(20))

    def test_rotation_keeps_the_youngest(self, rig: Any) -> None:
        log = self.settings(rig, max_size=20_000, max_file=3)
        self.written(rig, "import os\nfor n in range(100_000): os.write(1, b'line %d\\n' % n)", log)
        kept = numbers(read(log))
        assert kept == list(range(100_000))[-len(kept) :]
        assert 100 < len(kept) < 100_000  # a pipe holds 20,000 of them, which may be read at once
        files = [path for path in Path(rig.root).rglob("*") if path.is_file() and (path.suffix == ".seg" or ".json" in path.name)]
        own = [path for path in files if self.belongs(path)]
        assert 1 < len(own) <= 3
        assert numbers(read(log, tail=3)) == [99_997, 99_998, 99_999]

    def belongs(self, path: Path) -> bool:
        """Whether a file is the driver's store, not the buffer of attach."""
        raise NotImplementedError

    def test_a_full_disk_loses_with_a_note_and_recovers(self, rig: Any, small_disk: Path) -> None:
        log = self.settings(rig, f"{small_disk.name}/log", path=str(small_disk / "log.json"))
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"b" * (1 << 20))
        script = (
            "import os, time\nfor n in range(2000): os.write(1, b'%08d' % n + b'x' * 2000 + b'\\n')\n"
            f"os.unlink({str(ballast)!r})\nfor _ in range(50):\n os.write(1, b'after\\n'); time.sleep(0.01)"
        )
        self.written(rig, script, log)
        lines = read(log).splitlines()
        assert lines[-1] == b"after"
        stored = [int(line[:8]) for line in lines if line.endswith(b"x") and len(line) == 2008]
        assert 0 < len(stored) < 2000
        assert stored[0] == 0
        assert stored == sorted(set(stored))
        assert any(b"dropped" in line for line in lines), lines[-60:]

    @pytest.mark.parametrize("size", [16_383, 16_384, 16_385, 100_000, 3_000_000])
    def test_long_lines_come_back_whole(self, rig: Any, size: int) -> None:
        log = self.settings(rig)
        self.written(rig, f"import os\nos.write(1, b'a\\n')\nos.write(1, b'y' * {size} + b'\\n')\nos.write(1, b'b\\n')", log)
        assert read(log) == b"a\n" + b"y" * size + b"\nb\n"
        assert read(log, tail=1) == b"b\n"

    def test_binary_data(self, rig: Any) -> None:
        log = self.settings(rig)
        data = bytes(range(256)) * 20 + b"\n\0\r\n\x1b[1m\n"
        self.written(rig, "import os\nos.write(1, bytes(range(256)) * 20 + b'\\n\\0\\r\\n\\x1b[1m\\n')", log)
        assert read(log) == (data if self.exact else data.decode("utf-8", "surrogateescape").translate(_REPLACED).encode())

    def test_an_unfinished_last_line(self, rig: Any) -> None:
        log = self.settings(rig)
        self.written(rig, "import os\nos.write(1, b'whole\\nhalf')\nos.write(2, b'other half')", log)
        assert streams(log) == (b"whole\nhalf", b"other half")
        assert read(log, tail=2) in (b"halfother half", b"other halfhalf"), read(log, tail=2)

    def test_no_output_at_all(self, rig: Any) -> None:
        log = self.settings(rig)
        self.written(rig, "pass", log)
        assert read(log) == b""
        assert read(log, tail=5) == b""

    def test_a_writer_killed_in_the_middle(self, rig: Any) -> None:
        log = self.settings(rig)
        process = rig.write("a", "import os\nn = 0\nwhile True:\n os.write(1, b'%09d\\n' % n); n += 1", log)
        time.sleep(0.3)
        process.kill()
        process.wait(10)
        rig.keeper.drained("a")
        got = numbers(read(log))
        assert len(got) > 10
        assert got == list(range(len(got)))

    def test_a_keeper_killed_in_the_middle_leaves_a_readable_log(self, rig: Any) -> None:
        log = self.settings(rig)
        process = rig.write("a", "import os\nfor n in range(300_000): os.write(1, b'%09d\\n' % n)", log)
        for _ in range(3):
            time.sleep(0.1)
            rig.kill_keeper()
            rig.start_keeper()
        assert process.wait(100) == 0
        rig.keeper.drained("a")
        assert numbers(read(log)) == list(range(300_000))

    def test_an_unfinished_line_outlives_the_keeper(self, rig: Any) -> None:
        log = self.settings(rig)
        go = Path(log["dir"]).parent / "go"
        process = rig.write(
            "a",
            "import os, time\nos.write(1, b'whole\\nabc')\nos.write(2, b'x\\ny')\n"
            f"while not os.path.exists({str(go)!r}): time.sleep(0.01)\nos.write(1, b'def\\n')",
            log,
        )
        deadline = time.monotonic() + 30
        while [text.partition(b"\n")[0] for text in streams(log)] != [b"whole", b"x"]:
            assert time.monotonic() < deadline, streams(log)
            time.sleep(0.01)
        for _ in range(2):
            rig.kill_keeper()
            rig.start_keeper()
        go.touch()
        assert process.wait(30) == 0
        rig.keeper.drained("a")
        assert streams(log) == (b"whole\nabcdef\n", b"x\ny")


_REPLACED = dict.fromkeys(range(0xDC80, 0xDD00), "\ufffd")


def _nanoseconds(stamp: str) -> int:
    seconds, _, rest = stamp.partition(".")

    return calendar.timegm(time.strptime(seconds, "%Y-%m-%dT%H:%M:%S")) * 1_000_000_000 + int(rest.rstrip("Z"))
