"""What every snapshot driver does (the semantics are docker's overlay2; both dockerds agree on them).

A test module makes the fixture `driver`: a Driver whose `snapshots` is fresh.
"""

import asyncio
import bz2
import gzip
import lzma
import os
import stat
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from sampan.digest import ChainId, chain_id, sha256_of
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.linux import libc
from sampan.linux.mounts import move_mount
from sampan.linux.overlay import mount_overlay
from sampan.snapshot.api import Snapshots
from sampan.worker.client import WorkerPool
from tests.support.tars import pipe_of, tar


class Driver(NamedTuple):
    """A driver under test and how to make it again on the same data, as after a restart."""

    make: Callable[[WorkerPool], Snapshots]
    root: Path

    def run(self, body: Callable[[Snapshots], Coroutine[Any, Any, None]]) -> None:
        """Run body with a live driver."""

        async def whole() -> None:
            workers = WorkerPool()
            try:
                snapshots = self.make(workers)
                await asyncio.wait_for(body(snapshots), 60)
                await snapshots.close()
            finally:
                await workers.stop()

        asyncio.run(whole())


async def put(snapshots: Snapshots, archive: bytes, parent: ChainId | None = None, key: str = "layer") -> ChainId:
    """Unpack and commit one layer."""
    fd = pipe_of(archive)
    try:
        unpacked = await snapshots.unpack(key, fd)
    finally:
        os.close(fd)
    return snapshots.commit(key, chain_id(parent, unpacked.diff_id), parent).name


@asynccontextmanager
async def mounted(snapshots: Snapshots, key: str, target: Path) -> AsyncIterator[Path]:
    """Mount an active snapshot."""
    target.mkdir(exist_ok=True)
    with await snapshots.mounts(key) as layers:
        fd = mount_overlay(layers.lowers, layers.upper, layers.work)
    directory = os.open(target, os.O_PATH | os.O_DIRECTORY)
    try:
        move_mount(fd, directory)
    finally:
        os.close(directory)
        os.close(fd)
    try:
        yield target
    finally:
        libc.umount2(str(target), 2)


def tree(path: Path) -> set[str]:
    """All names below path but what every container has."""
    own = {
        "dev",
        "dev/pts",
        "dev/shm",
        "dev/console",
        "etc",
        "etc/hosts",
        "etc/hostname",
        "etc/resolv.conf",
        "etc/mtab",
        "proc",
        "sys",
        ".dockerenv",
    }
    return {str(entry.relative_to(path)) for entry in path.rglob("*")} - own


class SnapshotsContract:
    """Run against each driver."""

    def test_layers_stack(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            low = await put(
                snapshots,
                tar(("d", "a"), ("f", "a/kept", "1"), ("f", "a/changed", "1"), ("f", "a/gone", "1"), ("d", "b"), ("f", "b/x", "1")),
            )
            top = await put(
                snapshots, tar(("f", "a/changed", "2"), ("f", "a/.wh.gone"), ("d", "b"), ("f", "b/.wh..wh..opq"), ("f", "b/y", "2")), low
            )
            snapshots.prepare("c", top)
            async with mounted(snapshots, "c", driver.root / "m") as path:
                assert tree(path) == {"a", "a/kept", "a/changed", "b", "b/y"}
                assert (path / "a/changed").read_text() == "2"
                (path / "a/kept").write_text("mine")
            snapshots.prepare("d", top)
            async with mounted(snapshots, "d", driver.root / "m") as path:
                assert (path / "a/kept").read_text() == "1"

        driver.run(body)

    @pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["plain", "gzip", "bzip2", "xz"])
    def test_any_compression(self, driver: Driver, compress: Callable[[bytes], bytes]) -> None:
        archive = tar(("f", "file", "content" * 100_000))

        async def body(snapshots: Snapshots) -> None:
            fd = pipe_of(compress(archive))
            unpacked = await snapshots.unpack("k", fd)
            os.close(fd)
            assert unpacked == (sha256_of(archive), 700_000, 1)

        driver.run(body)

    def test_zstd(self, driver: Driver) -> None:
        zstandard = pytest.importorskip("zstandard")
        self.test_any_compression(driver, zstandard.ZstdCompressor().compress)

    def test_several_gzip_members_are_one_stream(self, driver: Driver) -> None:
        archive = tar(("f", "file", "content" * 1000))

        async def body(snapshots: Snapshots) -> None:
            fd = pipe_of(gzip.compress(archive[:700]) + gzip.compress(archive[700:]))
            unpacked = await snapshots.unpack("k", fd)
            os.close(fd)
            assert unpacked.diff_id == sha256_of(archive)

        driver.run(body)

    @pytest.mark.parametrize(
        ("archive", "present", "absent"),
        [
            pytest.param(tar(("f", "deep/er/file")), {"deep", "deep/er", "deep/er/file"}, set(), id="missing parents"),
            pytest.param(tar(("f", "x", "1"), ("d", "x")), {"x"}, set(), id="a directory replaces a file"),
            pytest.param(tar(("d", "x"), ("f", "x/y"), ("f", "x", "1")), {"x"}, {"x/y"}, id="a file replaces a directory"),
            pytest.param(tar(("d", "d"), ("l", "s", "d"), ("f", "s/f", "1")), {"d", "s", "d/f"}, set(), id="followed symlink"),
            pytest.param(tar(("d", "d"), ("l", "s", "/d"), ("f", "s/f", "1")), {"d", "s", "d/f"}, set(), id="absolute symlink"),
            pytest.param(tar(("f", "/abs", "1")), {"abs"}, set(), id="absolute names are relative"),
            pytest.param(tar(("f", "a", "1"), ("h", "b", "a"), ("h", "c", "/b")), {"a", "b", "c"}, set(), id="hard links"),
            pytest.param(tar(("p", "fifo")), {"fifo"}, set(), id="fifo"),
            pytest.param(tar(("f", ".wh..wh.plnk", "")), set(), {".wh..wh.plnk"}, id="aufs metadata"),
            pytest.param(tar(("f", ".wh.never", "")), set(), {"never"}, id="whiteout of nothing"),
            pytest.param(tar(("f", "caf\udce9", "1")), {"caf\udce9"}, set(), id="names that are not UTF-8"),
        ],
    )  # fmt: skip
    def test_what_a_layer_may_hold(self, driver: Driver, archive: bytes, present: set[str], absent: set[str]) -> None:
        async def body(snapshots: Snapshots) -> None:
            snapshots.prepare("c", await put(snapshots, archive))
            async with mounted(snapshots, "c", driver.root / "m") as path:
                found = tree(path)
                assert present <= found
                assert not absent & found

        driver.run(body)

    @pytest.mark.parametrize(
        ("archive", "message"),
        [
            pytest.param(tar(("f", "../../escape", "1")), "breakout", id="dot-dot"),
            pytest.param(tar(("h", "b", "not-here")), "no such file", id="a hard link to another layer's file"),
            pytest.param(tar(("h", "b", "../../../../../../etc/passwd")), "breakout", id="a hard link outside"),
            pytest.param(tar(("f", ".wh.", "")), "invalid whiteout", id="an empty whiteout"),
            pytest.param(tar(("f", ".wh...", "")), "invalid whiteout", id="a whiteout of dot-dot"),
            pytest.param(b"garbage" * 200, "invalid tar header", id="garbage"),
            pytest.param(b"", "unexpected EOF", id="nothing"),
            pytest.param(tar(("f", "x", "1" * 5000))[:2000], "unexpected EOF", id="cut"),
            pytest.param(gzip.compress(tar(("f", "x", os.urandom(5000).hex())))[:2000], "unexpected EOF", id="a cut gzip"),
        ],
    )
    def test_refused_and_nothing_left(self, driver: Driver, archive: bytes, message: str) -> None:
        async def body(snapshots: Snapshots) -> None:
            fd = pipe_of(archive)
            with pytest.raises(InvalidArgument, match=message):
                await snapshots.unpack("k", fd)
            os.close(fd)
            assert snapshots.keys() == []
            await snapshots.empty_trash()
            assert snapshots.repair([]) == []

        driver.run(body)

    def test_a_symlink_never_leads_out_of_the_layer(self, driver: Driver) -> None:
        outside = driver.root / "outside"
        outside.mkdir()

        async def body(snapshots: Snapshots) -> None:
            await put(
                snapshots,
                tar(
                    ("l", "s", str(outside)),
                    ("d", str(outside)[1:]),
                    ("f", "s/file", "1"),
                    ("l", "t", "../../../../../../.."),
                    ("f", "t/file", "1"),
                ),
            )
            assert list(outside.iterdir()) == []

        driver.run(body)

    def test_modes_owners_and_times(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            snapshots.prepare("c", await put(snapshots, tar(("d", "d"), ("f", "d/suid", "1"), mode=0o4711)))
            async with mounted(snapshots, "c", driver.root / "m") as path:
                assert stat.S_IMODE((path / "d/suid").stat().st_mode) == 0o4711
                assert (path / "d").stat().st_mtime == (path / "d/suid").stat().st_mtime == 1_000_000_000
                assert stat.S_IMODE(path.stat().st_mode) == 0o755

        driver.run(body)

    def test_whiteout_then_directory_is_not_opaque(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            low = await put(snapshots, tar(("d", "d"), ("f", "d/old", "1")))
            snapshots.prepare("c", await put(snapshots, tar(("f", ".wh.d"), ("d", "d"), ("f", "d/new", "1")), low))
            async with mounted(snapshots, "c", driver.root / "m") as path:
                assert {"d/old", "d/new"} <= tree(path)

        driver.run(body)

    def test_containers_find_the_targets_of_their_bind_mounts(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            snapshots.prepare("c", None)
            async with mounted(snapshots, "c", driver.root / "m") as path:
                assert (path / "etc/resolv.conf").is_file()
                assert (path / "proc").is_dir()
            assert (await snapshots.usage("c")).inodes == 0

        driver.run(body)

    def test_usage_counts_hard_links_once(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            snapshots.prepare("c", None)
            async with mounted(snapshots, "c", driver.root / "m") as path:
                (path / "d").mkdir()
                (path / "d/f").write_bytes(b"x" * 1000)
                (path / "g").hardlink_to(path / "d/f")
            assert await snapshots.usage("c") == (1000, 2)

        driver.run(body)

    def test_what_is_in_use_stays(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            low = await put(snapshots, tar(("f", "a", "1")))
            top = await put(snapshots, tar(("f", "b", "1")), low)
            snapshots.prepare("c", top)
            with pytest.raises(Conflict):
                snapshots.prepare("c", top)
            with pytest.raises(Conflict):
                snapshots.remove_layer(low)
            with pytest.raises(Conflict):
                snapshots.remove_layer(top)
            snapshots.remove("c")
            snapshots.remove_layer(top)
            snapshots.remove_layer(low)
            snapshots.remove_layer(low)
            assert snapshots.layers() == []
            with pytest.raises(NotFound):
                snapshots.prepare("c", top)
            with pytest.raises(NotFound):
                await snapshots.mounts("c")

        driver.run(body)

    def test_the_same_layer_twice_is_one(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            first = await put(snapshots, tar(("f", "a", "1")))
            assert await put(snapshots, tar(("f", "a", "1"))) == first
            assert len(snapshots.layers()) == 1
            assert snapshots.keys() == []

        driver.run(body)

    def test_after_a_restart_all_is_there_and_strays_are_gone(self, driver: Driver) -> None:
        kept: list[ChainId] = []

        async def before(snapshots: Snapshots) -> None:
            kept.append(await put(snapshots, tar(("f", "a", "1"))))
            snapshots.prepare("live", kept[0])
            snapshots.prepare("stray", kept[0])
            fd = pipe_of(tar(("f", "b", "1")))
            await snapshots.unpack("never-committed", fd)
            os.close(fd)

        async def after(snapshots: Snapshots) -> None:
            assert len(snapshots.repair(["live"])) == 2
            assert snapshots.keys() == ["live"]
            assert [layer.name for layer in snapshots.layers()] == kept
            async with mounted(snapshots, "live", driver.root / "m") as path:
                assert tree(path) == {"a"}
            assert snapshots.repair(["live"]) == []

        driver.run(before)
        driver.run(after)

    def test_cancelling_an_unpack_leaves_nothing(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            reader, writer = os.pipe()
            os.write(writer, tar(("f", "a", "1"))[:1024])
            task = asyncio.ensure_future(snapshots.unpack("k", reader))
            await asyncio.sleep(0.05)  # any instant will do: before the job began or in its middle
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            os.close(reader)
            os.close(writer)
            assert snapshots.keys() == []
            assert snapshots.repair([]) == []

        driver.run(body)

    @pytest.mark.parametrize("format", ["gnu", "pax", "ustar"])
    def test_the_archive_comes_back_byte_for_byte(self, driver: Driver, format: str) -> None:
        tree = driver.root / "tree"
        (tree / "dir").mkdir(parents=True)
        (tree / "dir/file").write_bytes(os.urandom(300_000))
        (tree / "dir/hard").hardlink_to(tree / "dir/file")
        (tree / "link").symlink_to("dir")
        (tree / ("long" * 20)).write_text("1")
        with (tree / "sparse").open("wb") as file:
            file.seek(1 << 20)
            file.write(b"end")
        sparse = [] if format == "ustar" else ["--sparse"]
        command = ["tar", "-C", str(tree), f"--format={format}", *sparse, "-cf", "-", "."]
        archive = subprocess.run(command, check=True, capture_output=True, timeout=20).stdout + bytes(5000)

        async def body(snapshots: Snapshots) -> None:
            name = await put(snapshots, archive)
            with (driver.root / "again").open("w+b") as output:
                assert await snapshots.archive(name, output.fileno()) == len(archive)
                output.seek(0)
                assert output.read() == archive

        driver.run(body)

    def test_deep_trees_are_removed(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            snapshots.prepare("c", None)
            fd = os.open(snapshots.upper("c"), os.O_RDONLY | os.O_DIRECTORY)
            for _ in range(3000):
                os.mkdir("d" * 50, dir_fd=fd)
                below = os.open("d" * 50, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
                os.close(fd)
                fd = below
            os.close(fd)
            snapshots.remove("c")
            await snapshots.empty_trash()
            assert list(driver.root.rglob("trash/*")) == []

        driver.run(body)
