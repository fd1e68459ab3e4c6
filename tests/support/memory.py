"""How much memory an engine's processes come to take."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def children(parent: int) -> list[int]:
    """The processes that a process has started."""
    return [int(word) for word in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


def own_memory(pid: int) -> int:
    """Bytes that only this process has in memory: what is shared with other programs does not count."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


@contextmanager
def peaks(pid: int) -> Iterator[dict[str, int]]:
    """The most memory (VmHWM, bytes) of a process and of each that it starts, by the name of its kind."""
    found: dict[str, int] = {}
    ended = threading.Event()

    def look() -> None:
        known = [("sampand", pid)]
        while known:
            kind, one = known.pop()
            with suppress(OSError, StopIteration):
                lines = Path(f"/proc/{one}/status").read_text().splitlines()
                peak = int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) << 10
                found[kind] = max(found.get(kind, 0), peak)
                known += [("other" if kind != "sampand" else "zygote", child) for child in children(one)]

    def watch() -> None:
        while not ended.wait(0.05):
            look()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        ended.set()
        thread.join()
