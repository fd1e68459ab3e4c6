"""python -m bench.builds [PEER-URL]: builds from the cache and contexts of 100 MB, in turn with a dockerd that runs.

Also the processor time that each costs sampand and its workers, which says more on a machine that others use, too.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from bench.__main__ import our_target
from bench.build_rows import STEPS, BuildContext, context
from bench.rows import seconds
from bench.target import Target, require
from tests.support.engine import Engine, own_number

CACHED, CONTEXTS = 300, 7
SETTLE_SECONDS = 0.3
"""After a build, until a worker that has ended counts as its parent's."""


def processor_seconds(top: int) -> float:
    """What a process and all below it have used until now."""
    parents, used = {}, {}
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(entry)], used[int(entry)] = int(fields[1]), sum(map(int, fields[11:15]))
    chosen = {top}
    while more := {pid for pid, parent in parents.items() if parent in chosen} - chosen:
        chosen |= more
    return sum(used[pid] for pid in chosen if pid in used) / os.sysconf("SC_CLK_TCK")


def build(target: Target, archive: bytes) -> float:
    """Seconds of one build, whose RUNs have no network."""
    took, said = seconds(lambda: target.call("POST", f"/build?t={target.label}-built&rm=1&networkmode=none", archive, raw=True))
    require(b"Successfully tagged" in said, said[-300:])
    return took


def steps(target: Target) -> bytes:
    """A context for ten steps."""
    files = {f"f{number}": os.urandom(20).hex().encode() for number in range(STEPS)}
    lines = "".join(f"COPY {name} /app/{name}\nRUN cat /app/{name} >> /app/all\n" for name in files)
    return context({**files, "Dockerfile": f"FROM {target.image}\n{lines}".encode()})


def measure(name: str, targets: list[Target], turns: int, archive: Callable[[Target], bytes]) -> None:
    """Print medians, and what ours has used for each, the first of them left out."""
    took: list[list[float]] = [[] for _ in targets]
    ours = targets[0].process
    assert ours is not None
    before = 0.0
    for turn in range(turns + 1):
        for target, times in zip(targets, took, strict=True):
            times.append(build(target, archive(target)))
        if not turn:
            time.sleep(SETTLE_SECONDS)
            before = processor_seconds(ours.pid)
    for target, times in zip(targets, took, strict=True):
        print(f"{name:8} {target.name:8} {statistics.median(times[1:]) * 1000:8.1f} ms", flush=True)
    time.sleep(SETTLE_SECONDS)
    used = (processor_seconds(ours.pid) - before) / turns
    print(f"{name:8} {targets[0].name:8} {used * 1000:8.2f} ms of processor time", flush=True)


def large(target: Target) -> bytes:
    """A context of 100 MB, of which a small file is copied."""
    row = BuildContext(target)
    row.prepare()
    return context({"Dockerfile": f"FROM {target.image}\nCOPY small /small\n".encode(), "big": row.big, "small": os.urandom(20)})


def main() -> int:
    """Measure on an engine of its own."""
    locks = ExitStack()
    engine = Engine(Path(tempfile.mkdtemp(prefix="sampan-bench-", dir="/var/tmp")), own_number(locks))
    targets = [our_target(engine)]
    if len(sys.argv) > 1:
        targets.append(Target("dockerd", sys.argv[1], None, "docker"))
    try:
        for target in targets:
            target.boot()
            target.load_image()
        print(f"load {os.getloadavg()[0]:.0f}")
        archives = {target.name: steps(target) for target in targets}
        measure("cached", targets, CACHED, lambda target: archives[target.name])
        measure("context", targets, CONTEXTS, large)
    finally:
        for target in targets:
            for image in (f"{target.label}-built", target.image):
                target.call("DELETE", f"/images/{image}?force=1", ok=(200, 404))
        targets[0].halt()
        engine.teardown()
        locks.close()
        shutil.rmtree(engine.root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
