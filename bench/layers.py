"""python -m bench.layers [--storage-driver D]: create and start of images of 2, 60 and 400 layers, network none; medians."""

import argparse
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from bench.__main__ import our_target
from bench.rows import seconds
from bench.target import Target, image_tar, require
from tests.support.engine import Engine, own_number
from tests.support.imagetars import config, docker_files, packed
from tests.support.tars import tar

COUNTS, STARTS = (2, 60, 400), 25


def load(target: Target, count: int) -> str:
    """An image of so many layers, the benchmark's root file system the lowest; returns its name."""
    name = f"{target.label}-layers:{count}"
    layers = [image_tar(), *(tar(("d", "data"), ("f", f"data/{number}", "x")) for number in range(count - 1))]
    said = target.call("POST", "/images/load?quiet=1", packed(docker_files(config(*layers), layers, [name])), raw=True)
    require(f"Loaded image: {name}".encode() in said, said)
    return name


def start(target: Target) -> None:
    """One container, until it runs."""
    target.run("sleep", "900", StopTimeout=0)


def measure(target: Target, names: list[str]) -> list[float]:
    """Medians in milliseconds, the images in turn; the first round is a warm-up: it may fold layers, and mounts them."""
    samples: list[list[float]] = [[] for _ in names]
    for turn in range(STARTS + 1):
        for name, taken in zip(names, samples, strict=True):
            target.image = name
            took, _ = seconds(lambda: start(target))
            if turn:
                taken.append(took * 1000)
            target.clean()
    return [statistics.median(taken) for taken in samples]


def main() -> int:
    """Measure on an engine of its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.layers", description=__doc__)
    parser.add_argument("--storage-driver", help="of sampand (default: what works best here)")
    driver = parser.parse_args().storage_driver
    flags = [f"--storage-driver={driver}"] if driver else []
    locks = ExitStack()
    engine = Engine(Path(tempfile.mkdtemp(prefix="sampan-bench-", dir="/var/tmp")), own_number(locks), flags)
    target = our_target(engine)
    try:
        target.boot()
        names = [load(target, count) for count in COUNTS]
        medians = measure(target, names)
        cells = [f"{medians[0]:.1f} ms", *(f"{median:.1f} ms ({median / medians[0]:.2f} ×)" for median in medians[1:])]
        print("| driver | " + " | ".join(f"{count} layers" for count in COUNTS) + " |\n|---|" + "---|" * len(COUNTS))
        print(f"| {target.call('GET', '/info')['Driver']} | {' | '.join(cells)} |")
    finally:
        target.halt()
        target.log.unlink(missing_ok=True)
        engine.teardown()
        locks.close()
        subprocess.run(["rm", "-rf", str(engine.root)], check=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
