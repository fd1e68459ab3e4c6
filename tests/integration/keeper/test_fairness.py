"""The keeper between hostile neighbours: nobody's output, end or reader makes the others wait, and nothing is lost by that."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sampan.errors import InvalidArgument
from sampan.logs.attach import attached_output
from sampan.logs.reader import LogQuery, open_log, read_log
from sampan.logs.segments import SegmentSource
from sampan.logs.wakeup import Wakeup
from sampan.runtime import logframe, protocol
from sampan.runtime.client import Link, SupervisorClient

pytestmark = pytest.mark.root


def read_all(log: dict[str, Any]) -> bytes:
    async def collect() -> bytes:
        return b"".join([chunk async for chunk in read_log(open_log(log), LogQuery(multiplexed=False))])

    return asyncio.run(collect())


@pytest.mark.parametrize("driver", ["local", "json-file"])
def test_the_end_does_not_wait_for_a_stranger_who_writes_on(rig: Any, driver: str) -> None:
    """`--pid host`, or a descriptor given to another container: somebody who outlives the init still writes its pipe."""
    log = rig.log("a", driver=driver)
    script = (
        "import os, time\nif os.fork() == 0:\n os.close(2)\n while True: os.write(1, b'\\n' * 65536)\n"
        "time.sleep(0.3)\nos.write(2, b'said before the exit\\n')"
    )
    assert rig.write("a", script, log).wait(20) == 0
    rig.keeper.drained("a", 10)
    assert b"said before the exit\n" in read_all(log)
    rig.write("b", "print('next')", rig.log("b"))
    rig.keeper.drained("b", 10)
    size = sum(path.stat().st_size for path in Path(log["dir"]).iterdir())
    rig.keeper.request({"op": "hello", "role": "sampand"})
    assert sum(path.stat().st_size for path in Path(log["dir"]).iterdir()) == size


def test_the_end_of_a_terminal_does_not_wait_either(rig: Any) -> None:
    """A terminal does not tell how much it holds: so much as one can hold is read after the exit."""
    log = rig.log("t")
    master, slave = os.openpty()
    rig.keeper.request({"op": "adopt", "key": "t", "container": "t", "tty": True, "log": log}, {"pty": master})
    script = (
        "import os, time\nif os.fork() == 0:\n while True: os.write(1, b'x' * 4096)\ntime.sleep(0.3)\nos.write(1, b'said before the exit')"
    )
    process = subprocess.Popen([sys.executable, "-S", "-c", script], stdout=slave, stdin=subprocess.DEVNULL, start_new_session=True)
    rig.started.append(process)
    rig.hold("t", "t", process.pid, log, {"pty": master})
    os.close(slave)
    os.close(master)
    assert process.wait(20) == 0
    rig.keeper.drained("t", 10)
    assert b"said before the exit" in read_all(log)


def test_all_that_was_written_before_the_exit_is_logged(rig: Any) -> None:
    """As much as a pipe holds at the exit, although a stranger goes on at once."""
    log = rig.log("a", max_size=0)
    script = (
        "import fcntl, os\nfcntl.fcntl(1, 1031, 1 << 20)\nr, w = os.pipe()\nif os.fork() == 0:\n os.close(w); os.read(r, 1)\n"
        " while True: os.write(1, b'b' * 4096)\nos.close(r)\nfor n in range(200): os.write(1, b'a' * 65536)"
    )
    assert rig.write("a", script, log).wait(20) == 0
    rig.keeper.drained("a", 10)
    assert read_all(log).count(b"a") == 200 * 65536


@pytest.mark.parametrize(
    "options",
    [
        {"max_size": 0},
        pytest.param({"max_size": 1, "max_file": 10**9}, marks=pytest.mark.slow),
        pytest.param({"max_size": 0, "attrs": '{"a":"%s"}' % ("y" * 9000)}, marks=pytest.mark.slow),
    ],
)
def test_costly_output_leaves_turns_to_the_others(rig: Any, options: dict[str, Any]) -> None:
    """json-file's worst case is a container that prints newlines only: each is an entry, and may be a rotation."""
    process = rig.write("a", "import os\nwhile True: os.write(1, b'\\n' * 65536)", rig.log("a", driver="json-file", **options))
    time.sleep(0.3)
    slowest = 0.0
    for _ in range(20):
        begun = time.monotonic()
        rig.keeper.request({"op": "hello", "role": "sampand"})
        slowest = max(slowest, time.monotonic() - begun)
    process.kill()
    rig.keeper.drained("a", 60)
    assert slowest < 0.4
    resident = int(Path(f"/proc/{rig.keeper.hello['pid']}/status").read_text().partition("VmHWM:")[2].split()[0])
    assert resident < 48 * 1024, f"{resident} KiB"


@pytest.mark.parametrize("driver", ["local", "json-file"])
def test_the_end_does_not_wait_for_a_reader_who_does_not_read(rig: Any, driver: str) -> None:
    """It gets everything all the same, once it reads, although the next run has rotated the log since."""
    log = rig.log("c", driver=driver, max_size=1 << 20, max_file=2)
    script = "import itertools, os, time\ntime.sleep(0.3)\nfor n in itertools.count(): os.write(1, b'%09d\\n' % n)"

    async def run() -> bytes:
        wakeup, told = Wakeup(), asyncio.Event()
        process = rig.write("c.1", script, log, container="c")
        reply = rig.keeper.request({"op": "follow", "key": "c.1", "reader": "r", "attach": True}, {"eventfd": wakeup.fd})
        got: list[bytes] = []

        async def read() -> None:
            async for chunk in attached_output(SegmentSource(log["dir"], tuple(reply["pos"])), wakeup, lambda _: None, multiplexed=False):
                got.append(chunk)
                await told.wait()

        reader = asyncio.create_task(read())
        deadline, size = time.monotonic() + 30, -1
        while not got or size != (size := sum(path.stat().st_size for path in Path(log["dir"]).iterdir())):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.3)
        process.kill()
        begun = time.monotonic()
        end = await asyncio.to_thread(rig.keeper.event, "drained", "c.1", 20)
        assert time.monotonic() - begun < 3
        wakeup.end(tuple(end["pos"]))
        rig.keeper.request({"op": "forget", "key": "c.1"})
        rig.write("c.2", "import os\nfor _ in range(100): os.write(1, b'x' * 65536)", log, container="c")
        await asyncio.to_thread(rig.keeper.drained, "c.2", 20)
        told.set()
        await reader
        wakeup.close()
        return b"".join(got)

    lines = asyncio.run(asyncio.wait_for(run(), 100)).splitlines()
    assert len(lines) > 100_000
    assert lines[:-1] == [b"%09d" % number for number in range(len(lines) - 1)]


def test_two_runs_of_a_container_never_write_one_segment(rig: Any) -> None:
    """An earlier run's output has not ended (its process was lost sight of) when the next one begins."""
    log = rig.log("c", max_size=5000, max_file=0)
    script = "import os, time\nfor n in range(3000):\n os.write(1, b'%s%08d\\n' % (b'{}', n))\n if n % 10 == 0: time.sleep(0.001)"
    first = rig.write("c.1", script.format("a"), log, container="c")
    second = rig.write("c.2", script.format("b"), log, container="c")
    assert (first.wait(60), second.wait(60)) == (0, 0)
    rig.keeper.drained("c.1")
    rig.keeper.drained("c.2")
    for name in os.listdir(log["dir"]):
        data = Path(log["dir"], name).read_bytes()
        assert logframe.whole_length(data) == len(data)
    assert sorted(read_all(log).splitlines()) == [b"%c%08d" % (run, number) for run in b"ab" for number in range(3000)]


def test_too_long_a_request_costs_nobody_the_connection(rig: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = rig.supervisor
    with monkeypatch.context() as patch:
        patch.setattr(protocol, "MAX_PAYLOAD", 1 << 30)
        wire.channel.send({"op": "launch", "plan": "x" * (17 << 20), "seq": 1000})
    error = next(message for message in iter(wire.receive, None) if message.get("re") == 1000)["error"]
    assert error["message"] == "unknown request of over 16 MiB"
    assert "procs" in wire.request({"op": "list"})

    async def refused() -> None:
        link = Link(f"{rig.exec_root}/supervisor.sock", lambda _event, _fds: None)
        await link.open()
        client = SupervisorClient(link)
        with pytest.raises(InvalidArgument, match=r"^the configuration is too large to be passed on: "):
            await client.launch("a", "a", {"env": ["x" * (17 << 20)]}, {})
        assert await client.procs() == []
        await link.close()

    asyncio.run(refused())
