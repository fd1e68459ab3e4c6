"""kill -9 at random instants: what is left is whole images, and start-up removes the rest."""

import os
import random
import select
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.images.support import Images, run

pytestmark = pytest.mark.root

ROUNDS = 8
SEED = 3


def test_killed_at_any_instant(root: Path) -> None:
    chance = random.Random(SEED)
    here = Path(__file__).parents[3]
    for number in range(ROUNDS):
        environment = {**os.environ, "PYTHONPATH": f"{here}:{here / 'src'}"}
        command = [sys.executable, str(Path(__file__).with_name("life.py")), str(root), str(number)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as life:
            assert life.stdout is not None
            assert life.stdout.readline() == b"working\n"
            select.select([], [], [], chance.uniform(0.0, 0.25))
            life.kill()

        async def check(images: Images) -> None:
            images.service.repair([])
            await images.service.settle()
            needed = {name for image in images.store.all() for name in image.chain}
            assert {layer.name for layer in images.snapshots.layers()} == needed
            assert len(list((root / "overlay/l").iterdir())) == len(needed)
            assert list((root / "overlay/trash").iterdir()) == []
            for image in images.store.all():
                shown = await images.service.inspect(image.id)
                assert shown.size == 60 * 3000
                files = [path for path in Path(shown.graph_driver.data["UpperDir"]).rglob("*") if path.is_file()]  # type: ignore[index]
                assert [path.stat().st_size for path in files] == [3000] * 60

        run(root, check)
