"""An archive of 4 GB goes in and out with bounded memory in every process of the engine."""

import contextlib
import hashlib
import json
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.archive import writer
from sampan.archive.reader import REGULAR
from sampan.daemon.teardown import UnixConnection
from tests.support.engine import Engine

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

LAYERS, LAYER_BYTES, PIECE = 4, 1 << 30, 1 << 20
LIMIT = 150_000_000


def layer(number: int) -> Iterator[bytes]:
    """A layer's tar with one file of 1 GiB, in pieces."""
    noise = random.Random(number).randbytes(PIECE)
    yield writer.header(f"file{number}".encode(), REGULAR, mode=0o644, size=LAYER_BYTES)
    for index in range(LAYER_BYTES // PIECE):
        yield index.to_bytes(8, "big") + noise[8:]
    yield writer.END


def archive() -> Iterator[bytes]:
    """A docker-archive of all layers, in pieces."""
    diff_ids = []
    for number in range(LAYERS):
        digest = hashlib.sha256()
        size = LAYER_BYTES + 512 + len(writer.END)
        yield writer.header(f"{number}/layer.tar".encode(), REGULAR, mode=0o644, size=size)
        for piece in layer(number):
            digest.update(piece)
            yield piece
        diff_ids.append("sha256:" + digest.hexdigest())
    config = json.dumps({"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
    manifest = [{"Config": "c.json", "RepoTags": ["large:1"], "Layers": [f"{number}/layer.tar" for number in range(LAYERS)]}]
    for name, content in (("c.json", config), ("manifest.json", json.dumps(manifest).encode())):
        yield writer.header(name.encode(), REGULAR, mode=0o644, size=len(content)) + content + writer.padding(len(content))
    yield writer.END


class Watch:
    """Notes the largest resident set of each of the engine's processes, file mappings left out."""

    def __init__(self, engine: Engine) -> None:
        self._place = str(engine.root)
        self._sampand = engine.pid
        self.largest: dict[str, int] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(0.02):
            pending = [self._sampand]
            while pending:
                pid = pending.pop()
                try:
                    pending += [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
                    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line)
                except (OSError, ProcessLookupError):
                    continue
                if "VmHWM" in status:
                    name = f"{status['Name'].strip()} {pid}"
                    self.largest[name] = max(self.largest.get(name, 0), int(status["VmHWM"].split()[0]) * 1024)


@pytest.mark.parametrize("driver", ["overlay2", "erofs"])
def test_4_gb_in_150_mb(make_engine: Callable[..., Engine], driver: str) -> None:
    engine = make_engine(f"--storage-driver={driver}")
    engine.start()
    with contextlib.ExitStack() as stack:
        watch = stack.enter_context(Watch(engine))
        client = UnixConnection(engine.socket, 600)
        stack.callback(client.close)
        client.request("POST", "/v1.50/images/load?quiet=1", archive(), {"Content-Type": "application/x-tar"}, encode_chunked=True)
        said = client.getresponse().read()
        assert b"Loaded image: large:1" in said, said
        client.request("GET", "/v1.50/images/large:1/get")
        response = client.getresponse()
        total = 0
        while piece := response.read(PIECE):
            total += len(piece)
        assert total > LAYERS * LAYER_BYTES
    assert len(watch.largest) >= 3
    assert max(watch.largest.values()) < LIMIT, watch.largest
    engine.request("DELETE", "/images/large:1")  # the disk is needed for the next driver
