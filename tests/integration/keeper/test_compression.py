"""json-file's rotated files are compressed while the keeper goes on rotating: whoever is killed, each line is there once."""

import asyncio
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sampan.logs.jsonfile import JsonFileSource
from sampan.logs.reader import LogQuery, open_log, read_log
from sampan.runtime.protocol import MAX_QUEUE, Channel
from tests.support import logs

pytestmark = [pytest.mark.root, pytest.mark.timeout(240)]

SAMPAND = """
import asyncio, sys
from types import SimpleNamespace
from sampan.engine.logcompression import LogCompression
from sampan.runtime.client import KeeperClient, Link

socket, path = sys.argv[1:]
container = SimpleNamespace(id="a", state=SimpleNamespace(status="running"))

async def main():
    link = Link(socket, lambda message, fds: compression.look(container) if message["event"] == "rotated" else None)
    compression = LogCompression(KeeperClient(link), SimpleNamespace(compressed_path=lambda container: path))
    compression.look(container)
    await link.open()
    await asyncio.Event().wait()

asyncio.run(main())
"""
"""What of sampand compresses."""
LINES = 20_000
WRITER = f"import os, time\nfor n in range({LINES}):\n os.write(1, b'line %d\\n' % n)\n if n % 100 == 0: time.sleep(0.01)"


class Compressing:
    """SAMPAND as a process that can be killed."""

    def __init__(self, rig: Any, path: str) -> None:
        self._command = [sys.executable, "-c", SAMPAND, f"{rig.exec_root}/keeper.sock", path]
        self.process = subprocess.Popen(self._command)

    def again(self) -> None:
        self.process.kill()
        self.process.wait(10)
        self.process = subprocess.Popen(self._command)

    def close(self) -> None:
        self.process.kill()
        self.process.wait(10)


def numbers(text: str) -> list[int]:
    return [int(line.split()[1]) for line in text.splitlines() if line.startswith("line ")]


def read(log: dict[str, Any], **query: Any) -> str:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in read_log(open_log(log), LogQuery(multiplexed=False, **query))])

    return asyncio.run(collect()).decode()


def wait_for_copies(path: str) -> None:
    """Until all rotated files are compressed, and nothing else is left beside them."""
    deadline = time.monotonic() + 60
    while not_yet := [file for file in Path(path).parent.glob(f"{Path(path).name}.*") if file.suffix != ".gz"]:
        assert time.monotonic() < deadline, not_yet
        time.sleep(0.02)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def told_to(peer: Channel) -> int:
    """How many events of rotations it can read now."""
    told = 0
    while received := peer.recv():
        told += received[0].get("event") == "rotated"
    return told


class Following(threading.Thread):
    """A reader that is there all the time, and looks now and then."""

    def __init__(self, path: str) -> None:
        super().__init__(daemon=True)
        self.path, self.text, self.over = path, "", threading.Event()
        self.start()

    def run(self) -> None:
        with contextlib.closing(JsonFileSource(self.path)) as source:
            while True:
                ended = self.over.is_set()
                while frames := source.read():
                    self.text += b"".join(data for _, _, data in frames).decode()
                    time.sleep(random.random() * 0.01)
                if ended:
                    return
                time.sleep(random.random() * 0.05)


@pytest.mark.parametrize("kept", [10_000, 4])
@pytest.mark.parametrize("killed", [(), ("sampand",), ("sampand", "keeper")])
def test_each_line_once(rig: Any, kept: int, killed: tuple[str, ...]) -> None:
    log = rig.log("a", driver="json-file", max_size=20_000, max_file=kept, compress=True)
    path = log["path"]
    process = rig.write("a", WRITER, log)
    compressing, following = Compressing(rig, path), Following(path)
    while process.poll() is None:
        time.sleep(0.2 + random.random() * 0.7)
        if "sampand" in killed:
            compressing.again()
        if "keeper" in killed and random.random() < 0.4:
            rig.kill_keeper()
            rig.start_keeper()
    rig.keeper.drained("a")
    rig.keeper.request({"op": "forget", "key": "a"})
    wait_for_copies(path)
    following.over.set()
    following.join(60)
    compressing.close()
    got, there = numbers(following.text), numbers(read(log))
    assert got == sorted(set(got))
    assert got[-1] == LINES - 1
    assert there == list(range(LINES - len(there), LINES))
    files = logs.files(path)
    if kept == 4:
        assert [file.name for file in files] == ["a.json.3.gz", "a.json.2.gz", "a.json.1.gz", "a.json"]
    else:
        assert len(there) == LINES
        assert "rotated faster" not in following.text
    if "rotated faster" not in following.text:
        assert got == list(range(LINES))
    assert numbers(read(log, tail=500)) == list(range(LINES - 500, LINES))
    subprocess.run(["gzip", "-t", *(str(file) for file in files[:-1])], check=True)
    assert len({(file.stat().st_mode, file.stat().st_uid) for file in files}) == 1


def test_what_another_run_still_writes_is_left(rig: Any) -> None:
    """The output of a run goes on after its end, in the file that the next run has rotated away."""
    log = rig.log("a", driver="json-file", max_size=1000, max_file=5, compress=True)
    go = rig.root / "go"
    first = rig.write(
        "a.1", f"import os, time\nos.write(1, b'one\\n')\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nos.write(1, b'two\\n')",
        log, container="a",
    )  # fmt: skip
    deadline = time.monotonic() + 20
    while "one" not in read(log):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert rig.write("a.2", "import os\nfor _ in range(11): os.write(1, b'x' * 99 + b'\\n')", log, container="a").wait(20) == 0
    rig.keeper.drained("a.2")
    compressing = Compressing(rig, log["path"])
    found = os.stat(f"{log['path']}.1")
    rig.keeper.seq += 1
    message = {
        "op": "compressed",
        "path": log["path"],
        "number": 1,
        "original": [found.st_ino, found.st_size, found.st_mtime_ns],
        "copy": "/nonexistent",
    }
    rig.keeper.channel.send({**message, "seq": rig.keeper.seq}, [])
    while (reply := rig.keeper.receive()).get("re") != rig.keeper.seq:
        pass
    assert reply["error"]["errno"] == 16
    go.touch()
    assert first.wait(20) == 0
    rig.keeper.drained("a.1")
    compressing.again()
    wait_for_copies(log["path"])
    compressing.close()
    text = read(log)
    assert [text.count(word) for word in ("one", "two", "x" * 99)] == [1, 1, 11]


def test_who_does_not_read_is_told_later_and_stays(rig: Any) -> None:
    """More rotations than a peer may have unread events: it reads nothing until they are over, and hears of the last one all the same."""
    log = rig.log("a", driver="json-file", max_size=500, max_file=2, compress=True)
    stalled, rotations, go = Channel(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)), MAX_QUEUE + 500, rig.root / "go"
    stalled.sock.setblocking(True)
    stalled.sock.connect(f"{rig.exec_root}/keeper.sock")
    stalled.sock.setblocking(False)
    stalled.send({"op": "hello", "role": "sampand", "seq": 1})
    process = rig.write(
        "a",
        f"import os, time\nhere = os.open({str(rig.root)!r}, os.O_RDONLY)\n"
        "def inode():\n for entry in os.scandir(here):\n  if entry.name == 'a.json': return entry.inode()\n return 0\n"
        f"os.write(1, b'x' * 600 + b'\\n')\nwhile not os.path.getsize({log['path']!r}): time.sleep(0.01)\n"
        f"for _ in range({rotations}):\n seen = inode()\n os.write(1, b'x' * 600 + b'\\n')\n"
        " while inode() in (0, seen): time.sleep(0.0002)\n"
        f"open({str(go)!r}, 'w').close()\nwhile os.path.exists({str(go)!r}): time.sleep(0.01)",
        log,
    )
    wait_until(go.exists)
    keeper = rig.keeper.hello["pid"]
    os.kill(keeper, signal.SIGSTOP)
    wait_until(lambda: Path(f"/proc/{keeper}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    unread = told_to(stalled)
    assert 0 < unread < MAX_QUEUE
    os.kill(keeper, signal.SIGCONT)
    later = 0

    def is_told() -> bool:
        nonlocal later
        later += told_to(stalled)
        return later == 2  # the one that was queued, and one for all those since

    wait_until(is_told)
    go.unlink()
    assert process.wait(20) == 0
    stalled.close()


def test_a_log_that_is_not_to_be_compressed_is_not_told_of(rig: Any) -> None:
    log = rig.log("a", driver="json-file", max_size=1000, max_file=5)
    process = rig.write("a", "for n in range(200): print(n)", log)
    assert process.wait(20) == 0
    rig.keeper.drained("a")
    assert not [event for event in rig.keeper.events if event.get("event") == "rotated"]
