"""kill -9 of sampand while images are loaded, run and removed, on both drivers: no half-made layer, nothing left mounted, all repaired."""

import hashlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import NamedTuple

import pytest

from tests.support.clients import Clients
from tests.support.disks import ext4
from tests.support.engine import Engine
from tests.support.imagetars import base_layer, config, digest, docker_files, packed
from tests.support.layers import need
from tests.support.strays import complaints, wait_for_none
from tests.support.tars import tar

pytestmark = [pytest.mark.root, pytest.mark.timeout(300)]

DEEP = 45
"""Layers: more than erofs stacks without folding them."""
BYTES = 3 << 20


class Known(NamedTuple):
    """An image that clients load, and what is in it."""

    name: str
    archive: bytes
    chain: list[str]
    """diffIDs."""
    sum: str
    """sha256 of its files together."""


@pytest.fixture(params=["erofs", "overlay2"])
def disk_engine(make_engine: Callable[..., Engine], request: pytest.FixtureRequest) -> Iterator[Engine]:
    """An engine on a disk of its own. The disk can be unmounted at the end: nothing, seen or unseen, is mounted from it."""
    need(request.param)
    with ext4(1 << 30) as place:
        engine = make_engine(f"--storage-driver={request.param}", place=str(place))
        try:
            engine.start()
            engine.bootstrap()
            yield engine
        finally:
            engine.teardown()
            assert not any(engine.leftovers().values())


def images_on(engine: Engine) -> list[Known]:
    """Three images upon busybox: one shares a layer with the next, one is deep."""
    base, noise = base_layer(engine), random.Random(5)

    def known(name: str, *contents: str) -> Known:
        layers = [base, *(tar(("d", "data"), ("f", f"data/{number:03}", content)) for number, content in enumerate(contents))]
        document = config(*layers, config={"Cmd": ["sh", "-c", "cat /data/* | sha256sum"]})
        total = hashlib.sha256("".join(contents).encode()).hexdigest()
        return Known(name, packed(docker_files(document, layers, [name])), [digest(layer) for layer in layers], total)

    large = [noise.randbytes(BYTES // 2).hex() for _ in range(3)]
    return [known("k:1", *large[:2]), known("k:2", *large), known("k:deep", *(noise.randbytes(500).hex() for _ in range(DEEP)))]


class Busy(Clients):
    """They load, run and remove images."""

    def __init__(self, engine: Engine, images: list[Known], seed: int) -> None:
        self.images = images
        self.done = {"load": 0, "run": 0, "remove": 0}
        super().__init__(engine, seed, 3)

    def wait_for_one_of_each(self, seconds: float) -> None:
        """Until each has been done once, however slow the machine is."""
        deadline = time.monotonic() + seconds
        while not all(self.done.values()):
            assert time.monotonic() < deadline, f"the clients did next to nothing: {self.done}"
            time.sleep(0.05)

    def one_thing(self, chance: random.Random) -> None:
        """One image, loaded, run or removed."""
        image = chance.choice(self.images)
        kind = chance.choices(["load", "run", "remove"], [3, 4, 2])[0]
        getattr(self, f"_{kind}")(image)
        self.done[kind] += 1

    def _load(self, image: Known) -> None:
        _, answer = self.ask("POST", "/images/load?quiet=1", image.archive)
        if "error" in str(answer):
            self.wrong.append(f"load {image.name}: {answer}")

    def _run(self, image: Known) -> None:
        status, made = self.ask("POST", "/containers/create", {"Image": image.name, "HostConfig": {"NetworkMode": "none"}})
        if status == 201:
            one = f"/containers/{made['Id']}"
            self.ask("POST", f"{one}/start")
            self.ask("POST", f"{one}/wait")
            self.ask("DELETE", f"{one}?force=1")

    def _remove(self, image: Known) -> None:
        self.ask("DELETE", f"/images/{image.name}?force=1")


def layers_of(engine: Engine) -> dict[str, str]:
    """Committed layers as the state database has them: directory -> diffID."""
    with closing(sqlite3.connect(f"file:{engine.data_root}/state.db?mode=ro", uri=True)) as database:
        return dict(database.execute("SELECT directory, diff_id FROM layers").fetchall())


def check(engine: Engine, images: list[Known]) -> None:
    """Every layer is an image's and whole, nothing else is on disk, every image runs and has its content."""
    engine.remove_containers()
    wait_for_none(engine, 60)
    by_name = {image.name: image for image in images}
    wanted: set[str] = set()
    for item in engine.request("GET", "/images/json?all=1")[1]:
        wanted.update(engine.request("GET", f"/images/{item['Id']}/json")[1]["RootFS"]["Layers"])
        for name in item["RepoTags"]:
            if name in by_name:
                assert engine.request("GET", f"/images/{name}/json")[1]["RootFS"]["Layers"] == by_name[name].chain
                ran = engine.cli("run", "--rm", "--network=none", name)
                assert ran.stdout == f"{by_name[name].sum}  -\n", (name, ran)
    rows = layers_of(engine)
    assert set(rows.values()) == wanted
    on_disk = {path.name for place in ("erofs/l", "overlay/l") for path in (engine.data_root / place).iterdir()}
    assert on_disk == set(rows)
    for place in ("erofs/f", "overlay/r"):
        assert {path.name.partition(".")[0] for path in (engine.data_root / place).iterdir()} <= set(rows)
    assert os.listdir(engine.data_root / "tmp") == []


def hidden(engine: Engine) -> int:
    """Bytes in use on the engine's disk that no name leads to: of removed files that something holds, as a mount without a place."""
    found = os.statvfs(engine.data_root)
    seen: set[int] = set()
    named = 0
    for place, directories, files in os.walk(engine.root.parent):
        for name in (*directories, *files):
            info = os.lstat(f"{place}/{name}")
            if info.st_ino not in seen:
                seen.add(info.st_ino)
                named += info.st_blocks * 512
    return (found.f_blocks - found.f_bfree) * found.f_frsize - named


def crash(engine: Engine, seed: int, kills: int) -> None:
    """Kill at random instants and check after each; then remove all images: nothing holds any of their layers."""
    images = images_on(engine)
    chance = random.Random(seed)
    before = hidden(engine)
    for number in range(kills):
        clients = Busy(engine, images, seed * 1000 + number)
        clients.wait_for_one_of_each(60)
        time.sleep(chance.uniform(0, 1.5))
        os.kill(engine.pid, signal.SIGKILL)
        clients.stop()
        assert engine.process is not None
        engine.process.wait(10)
        assert not clients.wrong, clients.wrong[:3]
        engine.start()
        check(engine, images)
    for item in engine.request("GET", "/images/json")[1]:
        if item["RepoTags"] != ["busybox:latest"]:  # one that lost its name while it ran has none
            assert engine.request("DELETE", f"/images/{item['Id']}?force=1")[0] == 200
    check(engine, images)
    assert len(layers_of(engine)) == 1
    deadline = time.monotonic() + 60
    while True:
        with suppress(FileNotFoundError):  # what is in the trash goes
            if (held := hidden(engine) - before) < BYTES // 2:
                break
            assert time.monotonic() < deadline, f"{held} bytes of removed layers are still held"
        time.sleep(0.2)
    assert complaints(engine) == []


def test_killed_while_images_come_and_go(disk_engine: Engine) -> None:
    crash(disk_engine, seed=1, kills=3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(2, 4))
def test_killed_again_and_again(disk_engine: Engine, seed: int) -> None:
    crash(disk_engine, seed, kills=20)
