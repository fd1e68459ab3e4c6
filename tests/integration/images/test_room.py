"""Each way in which an archive can write to the disk stops while there is still room for others; the refusal says so."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.archive import writer
from sampan.archive.reader import REGULAR
from sampan.errors import EngineError
from tests.integration.images.support import Images, run
from tests.support.disks import tmpfs
from tests.support.tars import tar

pytestmark = pytest.mark.root

KEPT = r"no space left on device: .* kept for others"
NOISE = os.urandom(1 << 20)
"""Longer than what deflate remembers: it stays as large however often it is repeated."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 MiB with 8,000 inodes."""
    with tmpfs(tmp_path / "disk", "size=128m,nr_inodes=8000,mode=755") as path:
        yield path


def behind_the_end() -> bytes:
    return tar(("f", "f", "1")) + NOISE * 160


def in_headers() -> bytes:
    payload = writer.pax_record(b"comment", NOISE[:-100])
    head = writer.header(b"x", b"x", mode=0, size=len(payload)) + payload + writer.padding(len(payload))
    return b"".join(head + tar(("f", f"f{number}"))[:-1024] for number in range(150)) + writer.END


def missing_parents() -> bytes:
    return tar(*(("f", f"{number}/" + "a/" * 1900 + "f") for number in range(8)))


def sparse_data() -> bytes:
    size = 80 << 20
    payload = writer.pax_record(b"GNU.sparse.map", b"0,%d" % size) + writer.pax_record(b"GNU.sparse.size", b"%d" % (size + 1))
    head = writer.header(b"x", b"x", mode=0, size=len(payload)) + payload + writer.padding(len(payload))
    return head + writer.header(b"sparse", REGULAR, mode=0o644, size=size) + NOISE * 80 + writer.END


@pytest.mark.parametrize(
    ("driver", "archive", "message"),
    [
        ("overlay2", behind_the_end, "bytes follow the archive's end"),
        ("erofs", behind_the_end, "bytes follow the archive's end"),
        ("overlay2", in_headers, KEPT),
        ("erofs", in_headers, KEPT),
        ("overlay2", missing_parents, r"inodes free, \d+ of them kept for others"),
        ("erofs", sparse_data, KEPT),
    ],
)
def test_the_disk_keeps_room_for_others(small_disk: Path, driver: str, archive: Callable[[], bytes], message: str) -> None:
    async def body(images: Images) -> None:
        with pytest.raises(EngineError, match=message):
            await images.load(archive())
        await images.service.settle()
        assert images.snapshots.layers() == []
        assert (await images.load(tar(("f", "good")))).startswith("sha256:")

    run(small_disk, body, driver)
