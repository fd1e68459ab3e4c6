"""./dev chaos: everything at once for a while, with our processes killed, the disk full, the clock jumping; then nothing may be amiss."""

import argparse
import itertools
import random
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from chaos.plan import steps
from chaos.world import Fault, World
from tests.support.disks import ext4
from tests.support.engine import own_number
from tests.support.registryprogram import RegistryProgram

DISK_BYTES = 600 << 20


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="./dev chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="how long (default 600)")
    parser.add_argument("--seed", type=int, default=None, help="which run (default: another each time); the same seed does the same")
    parser.add_argument("--steps", type=int, default=None, help="end after so many steps")
    parser.add_argument("--list", action="store_true", help="show what the first --steps are, and do nothing")
    return parser.parse_args()


def run(seed: int, seconds: float, limit: int | None) -> None:
    """One run. Raises Fault."""
    with ExitStack() as locks, ext4(DISK_BYTES) as place, tempfile.TemporaryDirectory(prefix="sampan-chaos-") as directory:
        registry = RegistryProgram(Path(directory))
        world = World(place, own_number(locks), registry)
        try:
            world.begin()
            before = world.weight()
            ends_at, number = time.monotonic() + seconds, 0
            for step, slots in itertools.islice(steps(seed), limit):
                print(step, flush=True)
                world.do(step, slots)
                number = step.number
                if time.monotonic() > ends_at:
                    break
            world.end()
            world.compare(before)
            print(f"{number} steps, all well: {before} -> {world.weight()}")
        except Fault:
            print(f"--- sampand's log\n{world.engine.log.read_text()[-6000:]}", flush=True)
            raise
        finally:
            world.close()
            registry.close()


def main() -> None:
    """The program."""
    arguments = parse()
    seed = random.SystemRandom().randrange(1 << 32) if arguments.seed is None else arguments.seed
    if arguments.list:
        for step, _ in itertools.islice(steps(seed), arguments.steps or 100):
            print(step)
        return
    print(f"seed {seed}: ./dev chaos --seed {seed} does the same again", flush=True)
    try:
        run(seed, arguments.seconds, arguments.steps)
    except Fault as error:
        print(f"--- fault, seed {seed}\n{error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
