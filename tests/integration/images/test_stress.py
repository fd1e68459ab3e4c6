"""Pulls, pushes, runs, removals and prunes of the same images side by side: nothing unexpected is said, `system check` finds nothing
wrong at any time, and nothing stays behind.
"""

import os
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.archive import writer
from sampan.archive.reader import REGULAR
from tests.support.engine import Engine
from tests.support.realregistry import RealRegistry
from tests.support.registries import load
from tests.support.tars import tar

pytestmark = pytest.mark.root

IMAGES = ((0, 1), (0, 2), (0, 3, 4), (5,), (5, 0), (1,))
"""Layers of each"""
EXPECTED = (
    "No such image",
    "does not exist",
    "An image does not exist locally",
    "manifest unknown",
    "unknown: unknown error",  # docker-registry reads a manifest while another writes it
    "conflict: unable to",  # a container uses it
)
SHELL = (0, 1, 4)
"""Images with a shell: those of layer 0"""


@pytest.fixture
def registries(tmp_path: Path) -> Iterator[list[RealRegistry]]:
    made = [RealRegistry(tmp_path / name) for name in ("one", "two")]
    yield made
    for registry in made:
        registry.close()


class User:
    """Somebody who does one thing after the other, by chance."""

    def __init__(self, engine: Engine, registries: list[RealRegistry], seed: int, end: float) -> None:
        self.engine, self.end = engine, end
        self.one, self.two = (registry.host for registry in registries)
        self.random = random.Random(seed)
        self.unexpected: list[str] = []

    def run(self) -> None:
        while time.monotonic() < self.end:
            name = f"i{self.random.randrange(len(IMAGES))}"
            host = self.random.choice((self.one, self.two))
            pull = f"/images/create?fromImage={self.one}/{name}&tag=1"
            match self.random.choices(range(8), (7, 4, 2, 4, 1, 2, 4, 2))[0]:
                case 0:
                    self.ask("POST", pull)
                case 1:
                    self.ask("POST", f"/images/{host}/{name}/push?tag=1")
                case 2:
                    self.ask("POST", f"/images/{self.one}/{name}:1/tag?repo={self.two}/{name}&tag=1")
                case 3:
                    self.ask("DELETE", f"/images/{host}/{name}:1?force=1")
                case 4:
                    self.ask("POST", "/images/prune")
                case 5:
                    self.leave(pull)
                case 6:
                    self.run_one(f"{host}/i{self.random.choice(SHELL)}:1")
                case 7:
                    found = self.engine.request("GET", "/system/check", timeout=120)
                    if found != (200, {"Findings": [], "LayersRead": 0}):
                        self.unexpected.append(f"check: {found}")

    def run_one(self, image: str) -> None:
        """Create, start, perhaps wait, remove."""
        body = {"Image": image, "Cmd": ["/sh", "-c", "echo x > /y"], "HostConfig": {"NetworkMode": "none"}}
        status, answer = self.engine.request("POST", "/containers/create", body, timeout=120)
        if status != 201:
            if not any(text in str(answer) for text in EXPECTED):
                self.unexpected.append(f"create {image}: {answer}")
            return
        path = f"/containers/{answer['Id']}"
        self.ask("POST", f"{path}/start")
        if self.random.random() < 0.5:
            self.ask("POST", f"{path}/wait")
        self.ask("DELETE", f"{path}?force=1")

    def ask(self, method: str, path: str) -> None:
        answer = str(self.engine.request(method, path, timeout=120)[1])
        if ("message" in answer or '"error"' in answer) and not any(text in answer for text in EXPECTED):
            self.unexpected.append(f"{method} {path}: {answer[-500:]}")

    def leave(self, path: str) -> None:
        """Ask, and be gone before the answer is."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(self.engine.socket)
            client.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            time.sleep(self.random.random() * 0.2)


def shell() -> bytes:
    """A layer with a static shell."""
    program = Path("/bin/busybox").read_bytes()
    head = writer.header(b"sh", REGULAR, mode=0o755, size=len(program), mtime=1_000_000_000)
    return head + program + writer.padding(len(program)) + writer.END


def test_many_users(make_engine: Callable[..., Engine], registries: list[RealRegistry]) -> None:
    work_side_by_side(make_engine("--bridge=none"), registries, 5)


@pytest.mark.slow
@pytest.mark.parametrize("driver", ["", "--storage-driver=overlay2"], ids=["own-driver", "overlay2"])
def test_many_users_for_long(make_engine: Callable[..., Engine], registries: list[RealRegistry], driver: str) -> None:
    work_side_by_side(make_engine("--bridge=none", *filter(None, [driver])), registries, 60)


def work_side_by_side(engine: Engine, registries: list[RealRegistry], seconds: float) -> None:
    engine.start()
    layers = [shell()] + [tar(("f", f"l{number}", os.urandom(200_000 if number % 3 else 2_000_000).hex())) for number in range(1, 6)]
    for number, chosen in enumerate(IMAGES):
        load(engine, f"{registries[0].host}/i{number}:1", *(layers[layer] for layer in chosen))
        assert "digest: sha256:" in str(engine.request("POST", f"/images/{registries[0].host}/i{number}/push?tag=1")[1])
    users = [User(engine, registries, seed, time.monotonic() + seconds) for seed in range(6)]
    threads = [threading.Thread(target=user.run) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert [line for user in users for line in user.unexpected] == []
    assert "Traceback" not in engine.log.read_text()
    assert engine.request("GET", "/system/check?deep=1", timeout=120)[1]["Findings"] == []
    for number in range(len(IMAGES)):
        engine.request("POST", f"/images/create?fromImage={registries[0].host}/i{number}&tag=1")
    images = engine.request("GET", "/images/json")[1]
    assert len(images) == len(IMAGES)
    for image in images:
        status, archive = engine.request("GET", f"/images/{image['Id']}/get")
        assert (status, len(archive) > image["Size"]) == (200, True), "a layer is missing"
        assert engine.request("DELETE", f"/images/{image['Id']}?force=1")[0] == 200
    engine.request("POST", "/images/prune")
    deadline = time.monotonic() + 20
    while left := [
        path for name in ("content/partial", "erofs/l", "erofs/f", "overlay/l", "overlay/trash") for path in listed(engine, name)
    ]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def listed(engine: Engine, name: str) -> list[str]:
    directory = engine.data_root / name
    return [f"{name}/{entry}" for entry in os.listdir(directory)] if directory.exists() else []
