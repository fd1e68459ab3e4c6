"""One life of the image service, to be killed: imports, names and removes images for ever. `python life.py ROOT SEED`."""

import asyncio
import random
import sys
from contextlib import suppress
from pathlib import Path

from sampan.errors import EngineError
from sampan.worker.client import WorkerPool
from tests.integration.images.support import Images
from tests.support.tars import tar


async def main(root: Path, seed: int) -> None:
    """Print a line once it works."""
    chance = random.Random(seed)
    images = Images(root, WorkerPool())
    images.service.repair([])
    print("working", flush=True)
    while True:
        number = chance.randrange(6)
        with suppress(EngineError):
            if chance.random() < 0.6:
                await images.load(tar(*(("f", f"{number}/{file}", "x" * 3000) for file in range(60))), f"x{number}")
            else:
                await images.service.remove(f"x{number}", force=True, prune=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
