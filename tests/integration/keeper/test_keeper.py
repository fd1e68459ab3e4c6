"""The keeper as a program: nothing lost or doubled when it is killed, full disks, back-pressure, drained logs."""

import asyncio
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from sampan.logs.attach import attached_output
from sampan.logs.reader import LogQuery, open_log, read_log
from sampan.logs.segments import SegmentSource
from sampan.logs.wakeup import Wakeup

pytestmark = pytest.mark.root

BULK = "import os\nfor n in range(0, {n}, 100):\n os.write(1, b''.join(b'%09d\\n' % i for i in range(n, n + 100)))\n"


def read_all(log: dict[str, Any], **query: Any) -> bytes:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in read_log(open_log(log), LogQuery(multiplexed=False, **query))])

    return asyncio.run(collect())


def numbers(count: int) -> bytes:
    return b"".join(b"%09d\n" % number for number in range(count))


@pytest.mark.parametrize("driver", ["local", "json-file"])
def test_output_is_logged_and_drained(rig: Any, driver: str) -> None:
    log = rig.log("a", driver=driver, max_size=0 if driver == "json-file" else 1 << 20, max_file=100)
    rig.write("a", "import os; os.write(2, b'err\\n'); os.write(1, b'out\\n' * 100000); os.write(1, b'no newline')", log)
    rig.keeper.drained("a")
    data = read_all(log)
    assert data.replace(b"err\n", b"", 1) == b"out\n" * 100000 + b"no newline"
    assert read_all(log, tail=2) == b"out\nno newline"


@pytest.mark.parametrize("count", [3_000_000, pytest.param(8_000_000, marks=pytest.mark.slow)])
def test_a_killed_keeper_loses_and_doubles_nothing(rig: Any, count: int) -> None:
    log = rig.log("k", max_size=0, max_file=0)
    process = rig.write("k", BULK.format(n=count), log)
    kills = 0
    while process.poll() is None:
        time.sleep(random.uniform(0.0, 0.05))
        rig.kill_keeper()
        kills += 1
        rig.start_keeper()
        if kills % 3 == 0:
            rig.kill_supervisor()
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and os.stat(f"{log['dir']}/00000001.seg").st_size < count * 10:
        time.sleep(0.05)
    data = read_all(log)
    assert kills > 3
    assert len(data) == count * 10
    assert data == numbers(count)


def test_supervisor_is_restarted_with_the_processes_it_held(rig: Any) -> None:
    log = rig.log("s")
    process = rig.write("s", "import time; time.sleep(2.5); print('end')", log)
    rig.kill_keeper()
    rig.start_keeper()
    rig.kill_supervisor()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        procs = rig.supervisor.request({"op": "list"})["procs"]
        if procs:
            break
        time.sleep(0.02)
    assert [proc["key"] for proc in procs] == ["s"]
    assert process.wait(10) == 0
    assert rig.keeper.event("drained", "s")
    assert read_all(log) == b"end\n"


def test_a_full_disk_drops_with_a_count_and_never_blocks(rig: Any, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)], check=True, timeout=10)
    try:
        log = rig.log("disk/log", max_size=0)
        ballast = disk / "ballast"
        script = f"import os; os.write(1, b'x' * (4 << 20)); os.unlink({str(ballast)!r}); os.write(1, b'again\\n')"
        ballast.write_bytes(b"b" * (1 << 20))
        rig.write("f", script, log)
        rig.keeper.drained("f")
        data = read_all(log)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True, timeout=10)
    stored = data.count(b"x")
    told = [int(line.split()[1]) for line in data.replace(b"[", b"\n[").splitlines() if b"dropped" in line]
    assert 0 < stored < 4 << 20
    assert sum(told) == (4 << 20) - stored
    assert data.endswith(b"again\n")


@pytest.mark.parametrize("driver", ["local", "json-file", "none"])
def test_attach_is_lossless_and_holds_the_writer_back(rig: Any, driver: str) -> None:
    size = 64 << 20 if driver == "local" else 30 << 20
    assert _through_attach(rig, driver, size, 0.002) == size


def test_attach_with_the_smallest_log_does_not_stall(rig: Any) -> None:
    assert _through_attach(rig, "local", 4 << 20, 0, max_size=100_000, max_file=1) == 4 << 20


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_gigabyte_through_attach_to_a_slow_reader(rig: Any) -> None:
    assert _through_attach(rig, "local", 1 << 30, 0.01) == 1 << 30


def _through_attach(rig: Any, driver: str, size: int, delay: float, **limits: int) -> int:
    """Bytes that came through in order; the writer is faster than the reader and far bigger than what is kept."""
    log = rig.log("t", driver=driver, **{"max_size": 1 << 20, "max_file": 3, **limits})
    script = f"import os, time; time.sleep(0.3)\nb = bytes(range(256)) * 256\nfor _ in range({size // 65536}): os.write(1, b)"

    async def read() -> int:
        wakeup = Wakeup()
        rig.write("t", script, log)
        reply = rig.keeper.request({"op": "follow", "key": "t", "reader": "r", "attach": True}, {"eventfd": wakeup.fd})

        async def watch_events() -> None:
            while True:
                received = rig.keeper.channel.recv()
                if received and received[0].get("event") == "drained":
                    wakeup.end(tuple(received[0]["pos"]))
                    return
                await asyncio.sleep(0.01)

        task = asyncio.create_task(watch_events())
        total = 0
        pattern = bytes(range(256)) * 5000

        told = [0]

        def progress(position: tuple[int, int]) -> None:
            if position[0] == told[0]:
                return  # an engine may report as rarely as this
            told[0] = position[0]
            rig.keeper.channel.send({"op": "progress", "reader": "r", "pos": list(position)})

        async for chunk in attached_output(SegmentSource(log["dir"], tuple(reply["pos"])), wakeup, progress, multiplexed=False):
            for start in range(0, len(chunk), 1 << 20):
                piece = chunk[start : start + (1 << 20)]
                assert piece == pattern[(total + start) % 256 :][: len(piece)]
            total += len(chunk)
            assert sum(file.endswith(".seg") for file in os.listdir(log["dir"])) <= 4
            await asyncio.sleep(delay)
        await task
        wakeup.close()
        return total

    return asyncio.run(asyncio.wait_for(read(), 250))


def test_memory_of_keeper_and_supervisor(rig: Any) -> None:
    """Some 12 MB each, half of it shared; the fork's cost grows with it."""
    for wire in (rig.keeper, rig.supervisor):
        status = Path(f"/proc/{wire.hello['pid']}/status").read_text()
        resident = int(status.partition("VmRSS:")[2].split()[0])
        assert resident < 14 * 1024, f"{resident} KiB"
