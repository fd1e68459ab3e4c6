"""python -m bench.starts: whether a start costs more the more there is. Milliseconds of each of 500 starts, on average for every 50."""

import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from bench.__main__ import our_target
from bench.target import Target
from tests.support.engine import Engine, own_number

CONTAINERS, LOT, NETWORKS = 500, 50, 200


def plot(target: Target, networks: list[str]) -> None:
    """Start CONTAINERS, in turn on each of the networks, and print a line for every LOT."""
    print(f"\n{CONTAINERS} containers on {len(networks)} network{'s' * (len(networks) > 1)}")
    for first in range(0, CONTAINERS, LOT):
        made = [
            target.create("sleep", "900", network=networks[number % len(networks)], StopTimeout=0) for number in range(first, first + LOT)
        ]
        begin = time.perf_counter()
        for container in made:
            target.call("POST", f"/containers/{container}/start")
        took = (time.perf_counter() - begin) * 1000 / LOT
        print(f"{first + 1:4}..{first + LOT:<4}{took:7.1f} ms  {'#' * round(took)}", flush=True)
    target.clean()


def main() -> int:
    """Measure on an engine of its own."""
    locks = ExitStack()
    engine = Engine(Path(tempfile.mkdtemp(prefix="sampan-bench-", dir="/var/tmp")), own_number(locks))
    target = our_target(engine)
    try:
        target.boot()
        target.load_image()
        plot(target, [target.network("one", "10.228.0.0/20")])
        plot(target, [target.network(f"n{number}", f"10.{230 + number // 100}.{number % 100}.0/24") for number in range(NETWORKS)])
        target.clean()
        target.halt()
    finally:
        engine.teardown()
        locks.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
