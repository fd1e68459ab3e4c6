"""Seeded requests at a live engine: no 5xx but 501 and 503, and afterwards descriptors, memory, mounts and network are as before."""

import json
import os
import random
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.fuzz.live_requests import abuse, shaped
from tests.fuzz.random_requests import is_dockers, random_request
from tests.support.engine import Engine, processes_of

pytestmark = pytest.mark.root

SEED = 20261125
PATIENCE = 60.0
"""Seconds an answer may take that does not stream: the machine may be busy."""
GLANCE = 0.4
"""Seconds a client stays with an answer that streams."""
SPARE_MB = 40
"""How much more the engine may hold afterwards: caches and the allocator's free lists."""


def exchange(path: str, data: bytes, *, stream: bool, half_close: bool) -> bytes:
    """What the server sends until it ends the connection, or, for streams, until we have seen enough."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(GLANCE if stream else PATIENCE)
        sock.connect(path)
        got = b""
        try:
            sock.sendall(data)
            if half_close:
                sock.shutdown(socket.SHUT_WR)
            while piece := sock.recv(1 << 16):
                got += piece
                if len(got) > 1 << 20:
                    break
                if not half_close and whole(got):
                    break
        except TimeoutError:
            assert stream, f"no answer after {PATIENCE} s: {data[:2000]!r}"
        except OSError:
            pass  # refused early: the answer is there all the same
        return got


def whole(got: bytes) -> bool:
    """Whether an answer with a length is all there."""
    head, end, rest = got.partition(b"\r\n\r\n")
    _, found, length = head.partition(b"Content-Length: ")
    return bool(end) and (not found or len(rest) >= int(length.partition(b"\r\n")[0])) and b"chunked" not in head


class Load:
    """What one thread of clients sends, and what it saw."""

    def __init__(self, engine: Engine, seed: int, count: int) -> None:
        self.engine, self.seed, self.count = engine, seed, count
        self.seen: dict[int, int] = {}
        self.wrong: list[tuple[str, bytes, bytes]] = []
        self.execs: list[str] = []

    def run(self) -> None:
        rng = random.Random(self.seed)
        for number in range(self.count):
            kind = rng.random()
            if kind < 0.7:
                request = shaped(rng, self.engine.root, self.execs)
                data, stream, half = request.data, request.stream, rng.random() < 0.05
            elif kind < 0.9:
                data, stream, half = random_request(rng), True, True
                if data.startswith(b"DELETE") and b"busybox" in data:
                    continue  # the others need the image
            else:
                data, stream, half = abuse(rng), True, rng.random() < 0.7
            got = exchange(self.engine.socket, data, stream=stream, half_close=half)
            self.note(f"seed {self.seed}, request {number}", data, got)

    def note(self, where: str, data: bytes, got: bytes) -> None:
        if got.startswith(b"HTTP/1.1 100 "):
            got = got.partition(b"\r\n\r\n")[2]
        status = int(got.split(b" ", 2)[1]) if got else 0
        self.seen[status] = self.seen.get(status, 0) + 1
        if status >= 500 and status not in (501, 503) and not is_dockers(data, got):
            self.wrong.append((where, data[:3000], got[:1500]))
        if status == 201 and b"/exec " in data.partition(b"\r\n")[0]:
            self.execs.append(json.loads(got.partition(b"\r\n\r\n")[2])["Id"])


def role_pid(engine: Engine, role: str) -> int:
    """The process of the keeper or the supervisor."""
    (found,) = [line for line in processes_of(str(engine.exec_root)) if role in line.split()]
    return int(found.split()[0])


def state(engine: Engine) -> dict[str, object]:
    """What the engine holds of the machine: descriptors and memory of its three processes, mounts, cgroups, network, directories."""
    pids = [engine.pid, *(role_pid(engine, role) for role in ("keeper", "supervisor"))]
    files = sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)
    memory = sum(
        int(line.split()[1]) for pid in pids for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:")
    )
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(engine.root) in line]
    # os.walk passes over what goes meanwhile: the trash is being emptied
    directories = [place for place, _, _ in os.walk(engine.data_root) if "/worker" not in place and place != str(engine.data_root)]
    return {
        "processes": len(processes_of(str(engine.root))),
        "descriptors": files,
        "memory": memory // 1024,
        "mounts": mounts,
        "cgroups": sorted(engine.cgroups()),
        "network": sorted(engine.network_state()),
        "directories": sorted(directories),
    }


def clean(engine: Engine) -> None:
    """Remove what the requests made: all containers, the volumes that some removals left, and the images named by them."""
    engine.remove_containers()
    assert engine.request("POST", '/volumes/prune?filters={"all":["true"]}')[0] == 200
    for image in engine.request("GET", "/images/json")[1]:
        for tag in [tag for tag in image["RepoTags"] if tag != "busybox:latest"] or ([] if image["RepoTags"] else [image["Id"]]):
            engine.request("DELETE", f"/images/{tag}?force=1")


def differences(engine: Engine, before: dict[str, object]) -> dict[str, object]:
    """What is not as before, memory within bounds."""
    after = state(engine)
    found: dict[str, object] = {}
    for key, old in before.items():
        new = after[key]
        if isinstance(old, list) and isinstance(new, list):
            more, fewer = set(new) - set(old), {item for item in set(old) - set(new) if "/trash/" not in item}  # emptied meanwhile
            if more or fewer:
                found[key] = {"more": sorted(more), "fewer": sorted(fewer)}
        elif isinstance(old, int) and isinstance(new, int) and new > old + (SPARE_MB if key == "memory" else 0):
            found[key] = (old, new)
    return found


def warm_up(engine: Engine, seed: int) -> None:
    """Everything is made and loaded once: modules, workers, cgroups, caches."""
    status, made = engine.request("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]})
    assert status == 201, made
    assert engine.request("POST", f"/containers/{made['Id']}/start")[0] == 204
    assert engine.request("POST", "/images/create?fromSrc=-&repo=fuzz", b"\0" * 1024)[0] == 200
    Load(engine, seed + 1000, 150).run()


def fuzz(engine: Engine, seed: int, count: int, threads: int) -> dict[int, int]:
    """Send `count` requests by several clients at once and check what they leave. Returns how often each status came."""
    warm_up(engine, seed)
    clean(engine)
    before = state(engine)
    loads = [Load(engine, seed + number, count // threads) for number in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(Load.run, loads))
    wrong = [case for load in loads for case in load.wrong]
    messages = {got.rpartition(b"\r\n")[2]: (where, data, got) for where, data, got in wrong}
    shown = "\n".join(f"{where}\n  {data!r}\n  {got!r}" for where, data, got in list(messages.values())[:40])
    assert not wrong, f"{len(wrong)} wrong answers:\n{shown}\n{engine.log.read_text()[-6000:]}"
    clean(engine)
    deadline = time.monotonic() + 30
    while (found := differences(engine, before)) and time.monotonic() < deadline:
        time.sleep(0.2)
        clean(engine)
    assert not found, found
    assert engine.request("GET", "/_ping") == (200, b"OK")
    assert "Traceback" not in engine.log.read_text(), engine.log.read_text()[-4000:]
    seen: dict[int, int] = {}
    for load in loads:
        for status, times in load.seen.items():
            seen[status] = seen.get(status, 0) + times
    assert {101, 200, 201, 204, 400, 404, 409, 501} <= set(seen), seen  # it got as far as it means to
    return seen


@pytest.fixture
def own_engine(make_engine: Callable[..., Engine]) -> Engine:
    """An engine that only this test uses: what it holds can be counted."""
    engine = make_engine()
    engine.start()
    engine.bootstrap()
    (engine.root / "file").touch()
    return engine


def test_some_requests(own_engine: Engine) -> None:
    fuzz(own_engine, SEED, 600, 2)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_requests(own_engine: Engine) -> None:
    seed = int(os.environ.get("SAMPAN_FUZZ_SEED", SEED + 1))
    print(fuzz(own_engine, seed, 10_000, 4))
