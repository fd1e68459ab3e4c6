"""A layer of 4 GB comes and goes through little memory: of sampand's own and of each worker's."""

import gzip
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.archive import writer
from sampan.archive.reader import REGULAR
from tests.support.engine import Engine
from tests.support.faultyregistry import CONFIG, LAYER, MANIFEST, FaultyRegistry, digest_of
from tests.support.imagetars import config
from tests.support.memory import peaks
from tests.support.realregistry import RealRegistry

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(1800)]

MEMBERS = 4 << 10
PIECE = os.urandom(1 << 20)
RSS_MAX = 150 << 20


class Repeated(bytes):
    """A gzip stream of a head, a piece MEMBERS times, and a tail, each a member of its own: as long as it is, it is not kept."""

    def __new__(cls, *_: bytes) -> "Repeated":
        return super().__new__(cls)

    def __init__(self, head: bytes, piece: bytes, tail: bytes) -> None:
        self.head, self.piece, self.tail = (gzip.compress(part, 1, mtime=0) for part in (head, piece, tail))

    def __len__(self) -> int:
        return len(self.head) + MEMBERS * len(self.piece) + len(self.tail)

    def parts(self) -> Iterator[tuple[int, bytes]]:
        """Where each member begins, and the member."""
        at = 0
        for part in (self.head, *[self.piece] * MEMBERS, self.tail):
            yield at, part
            at += len(part)

    def __getitem__(self, key: object) -> bytes:  # type: ignore[override]
        assert isinstance(key, slice)
        start, stop, _ = key.indices(len(self))
        found = bytearray()
        at = max(0, (start - len(self.head)) // len(self.piece))
        position = len(self.head) + at * len(self.piece) if start >= len(self.head) else 0
        parts = [] if position else [self.head]
        parts += [self.piece] * min(MEMBERS - at, (stop - start) // len(self.piece) + 2)
        if position + sum(map(len, parts)) < stop:
            parts.append(self.tail)
        for part in parts:
            found += part[max(0, start - position) : max(0, stop - position)]
            position += len(part)
        return bytes(found)


@pytest.mark.parametrize("driver", ["erofs", "overlay2"])
def test_a_layer_of_four_gigabytes(make_engine: Callable[..., Engine], docker_path: str, tmp_path: Path, driver: str) -> None:
    size = MEMBERS * len(PIECE)
    head, tail = writer.header(b"large", REGULAR, mode=0o644, size=size), writer.END
    blob = Repeated(head, PIECE, tail)
    digest, diff_id = hashlib.sha256(), hashlib.sha256(head)
    for _, part in blob.parts():
        digest.update(part)
    for _ in range(MEMBERS):
        diff_id.update(PIECE)
    diff_id.update(tail)
    document = config(rootfs={"type": "layers", "diff_ids": ["sha256:" + diff_id.hexdigest()]})
    source = FaultyRegistry()
    sink = RealRegistry(tmp_path / "registry")
    engine = make_engine("--bridge=none", f"--storage-driver={driver}")
    engine.start()
    try:
        name = "sha256:" + digest.hexdigest()
        source.blobs = {name: blob, digest_of(document): document}
        entry = {"mediaType": LAYER, "size": len(blob), "digest": name}
        source.add_manifest("large", "1", manifest_of(document, entry), MANIFEST)
        with peaks(engine.pid) as peak:
            began = time.monotonic()
            done = engine.run_client([docker_path], "pull", "-q", f"{source.host}/large:1", timeout=800)
            assert done.returncode == 0, done.stderr
            pulled = time.monotonic()
            source.close()  # what it came by is gone: it is compressed anew
            assert engine.run_client([docker_path], "tag", f"{source.host}/large:1", f"{sink.host}/large:1").returncode == 0
            done = engine.run_client([docker_path], "push", "-q", f"{sink.host}/large:1", timeout=800)
            assert done.returncode == 0, done.stderr
        print(f"{driver}: pull {pulled - began:.0f} s, push {time.monotonic() - pulled:.0f} s, MB at most:", end=" ")
        print({kind: value >> 20 for kind, value in peak.items()})
        assert {"sampand", "zygote", "other"} <= peak.keys()
        assert max(peak.values()) < RSS_MAX, peak
    finally:
        sink.close()
        engine.request("DELETE", f"/images/{sink.host}/large:1?force=1")


def manifest_of(document: bytes, layer: dict[str, object]) -> bytes:
    """An image's manifest."""
    entry = {"mediaType": CONFIG, "size": len(document), "digest": digest_of(document)}
    return json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": entry, "layers": [layer]}).encode()
