"""Each way in which an archive can write to the disk stops while there is still room for others; the refusal says so.

Where others have taken all there was, each command says that.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

from sampan.archive import writer
from sampan.archive.reader import REGULAR
from sampan.errors import EngineError, SystemFailure
from sampan.snapshot.api import Files
from tests.integration.images.support import Images, run
from tests.support.disks import tmpfs
from tests.support.engine import Engine
from tests.support.imagetars import config, docker_files, packed
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


@contextmanager
def no_inodes(disk: Path) -> Iterator[None]:
    """Somebody has taken the last one."""
    ballast = disk / "ballast"
    ballast.mkdir()
    try:
        for number in count():
            (ballast / str(number)).touch()
    except OSError:
        pass
    try:
        yield
    finally:
        shutil.rmtree(ballast)


PLAIN_WORDS = r"^[a-z ']+: no space left on device$"
LAYER = tar(("f", "f", "2"))
ARCHIVE = packed(docker_files(config(LAYER), [LAYER], ["two:1"]))


@pytest.mark.parametrize("driver", ["overlay2", "erofs"])
def test_an_archive_for_a_disk_without_inodes_is_refused_in_words(small_disk: Path, driver: str) -> None:
    async def body(images: Images) -> None:
        with no_inodes(small_disk):
            with pytest.raises(SystemFailure, match=PLAIN_WORDS):
                await images.load(LAYER)
            with pytest.raises(SystemFailure, match=PLAIN_WORDS):
                await images.load_archive(ARCHIVE)
            with pytest.raises(SystemFailure, match=PLAIN_WORDS):
                images.snapshots.prepare("c", None)
        await images.service.settle()
        assert images.snapshots.files() == Files([], [], [])
        assert (await images.load_archive(ARCHIVE)) == ["Loaded image: two:1"]

    run(small_disk, body, driver)


def test_commands_say_that_a_disk_has_no_inodes(make_engine: Callable[..., Engine]) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="sampan-small-", dir="/var/tmp") as place,
        tmpfs(Path(place), "size=128m,nr_inodes=8000") as disk,
    ):
        engine = make_engine("--bridge=none", place=place)
        try:
            engine.start()
            engine.bootstrap()
            assert engine.cli("create", "--name", "changed", "busybox").returncode == 0
            without_inodes(engine, disk)
        finally:
            engine.teardown()  # before its disk goes
            shutil.rmtree(engine.root)


def without_inodes(engine: Engine, disk: Path) -> None:
    """Commands that fail, and then succeed."""
    commands = (["import", "-", "one"], LAYER), (["load"], ARCHIVE), (["commit", "changed"], b""), (["create", "busybox"], b"")
    with no_inodes(disk):
        for words, stdin in commands:
            done = engine.cli(*words, stdin=stdin)
            assert done.returncode == 1
            assert re.search(PLAIN_WORDS.removeprefix("^"), done.stderr.strip()), done.stderr
            assert str(disk) not in done.stderr
    assert "Traceback" not in engine.log.read_text()
    assert engine.findings() == []
    for words, stdin in commands:
        assert engine.cli(*words, stdin=stdin).returncode == 0
