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

from sampan.archive import writer
from sampan.archive.reader import DIRECTORY, HARDLINK, REGULAR, SYMLINK
from sampan.digest import ChainId, chain_id, sha256_of
from sampan.errors import Conflict, InvalidArgument, NotFound
from sampan.linux import libc
from sampan.linux.mounts import move_mount
from sampan.linux.overlay import mount_overlay
from sampan.snapshot.api import Snapshots
from sampan.worker.client import WorkerPool
from tests.contracts.layer_semantics import CASES, LENIENT, OWN, Case, listing
from tests.support.tars import pipe_of, tar
from tests.support.workers import LentWorkers


class Driver(NamedTuple):
    """A driver under test and how to make it again on the same data, as after a restart."""

    make: Callable[[WorkerPool], Snapshots]
    root: Path

    def run(self, body: Callable[[Snapshots], Coroutine[Any, Any, None]], seconds: float = 60) -> None:
        """Run body with a live driver."""

        async def whole() -> None:
            workers = LentWorkers()
            try:
                snapshots = self.make(workers)
                await asyncio.wait_for(body(snapshots), seconds)
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
    return {str(entry.relative_to(path)) for entry in path.rglob("*")} - OWN


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

    def test_nothing_is_inherited_from_directories_of_the_archive(self, driver: Driver) -> None:
        entries = [b"\1\0\7\0" + b"\xff" * 4, b"\2\0\6\0\xe8\3\0\0"] + [bytes([tag, 0, 5, 0]) + b"\xff" * 4 for tag in (4, 16, 32)]
        acl = b"\2\0\0\0" + b"".join(entries)
        directory = writer.header(b"g", DIRECTORY, mode=0o2775, gid=500, xattrs={b"system.posix_acl_default": acl})

        async def body(snapshots: Snapshots) -> None:
            snapshots.prepare("c", await put(snapshots, directory + tar(("f", "g/deep/f", "1"), ("p", "g/p"), ("d", "g/d"))))
            async with mounted(snapshots, "c", driver.root / "m") as path:
                assert os.getxattr(path / "g", "system.posix_acl_default") == acl
                for name, mode in (("deep", 0o755), ("deep/f", 0o644), ("p", 0o644), ("d", 0o755)):
                    info = (path / "g" / name).stat()
                    assert (info.st_uid, info.st_gid, stat.S_IMODE(info.st_mode)) == (0, 0, mode)
                    assert os.listxattr(path / "g" / name) == []

        driver.run(body)

    @pytest.mark.parametrize("case", [*CASES, *LENIENT], ids=lambda case: case.name)
    def test_layers_come_to_what_dockerd_shows(self, driver: Driver, case: Case) -> None:
        async def body(snapshots: Snapshots) -> None:
            top = None
            for archive in case.layers:
                top = await put(snapshots, archive, top)
            snapshots.prepare("c", top)
            async with mounted(snapshots, "c", driver.root / "m") as path:
                lines = []
                for name in sorted(tree(path)):
                    info = (path / name).lstat()
                    link = os.readlink(path / name) if stat.S_ISLNK(info.st_mode) else ""
                    lines.append(listing(name, info.st_mode, info.st_size, link, stat.S_ISDIR(info.st_mode)))
                assert tuple(sorted(lines)) == tuple(sorted(case.listed))

        if case.error:
            with pytest.raises(InvalidArgument, match=case.error):
                driver.run(body)
        else:
            driver.run(body)

    def test_a_file_keeps_its_inode_when_it_is_changed(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            low = await put(snapshots, tar(("d", "d"), ("f", "d/a", "1" * 9000), ("f", "d/b", "2"), ("h", "hard", "d/b")))
            snapshots.prepare("c", await put(snapshots, tar(("f", "d/c", "3")), low))
            names = ("d", "d/a", "d/b", "hard", "d/c")
            async with mounted(snapshots, "c", driver.root / "m") as path:
                before = {name: (path / name).stat() for name in names}
                assert len({info.st_dev for info in before.values()} | {path.stat().st_dev}) == 1
                assert before["d/b"].st_ino == before["hard"].st_ino
                for name in ("d/a", "d/c"):
                    with (path / name).open("ab") as file:
                        file.write(b"more")
                after = {name: (path / name).stat() for name in names}
                assert {name: (info.st_dev, info.st_ino) for name, info in after.items()} == {
                    name: (info.st_dev, info.st_ino) for name, info in before.items()
                }
            async with mounted(snapshots, "c", driver.root / "m") as path:
                assert (path / "d/a").stat().st_ino == before["d/a"].st_ino
                assert (path / "d/a").read_bytes() == b"1" * 9000 + b"more"

        driver.run(body)

    def test_du_finds_everything_on_one_file_system(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            low = await put(snapshots, tar(("d", "d"), *(("f", f"d/{n}", "x" * 5000) for n in range(50))))
            snapshots.prepare("c", await put(snapshots, tar(("d", "e"), ("f", "e/x", "y" * 70000)), low))
            async with mounted(snapshots, "c", driver.root / "m") as path:
                (path / "d/0").write_bytes(b"changed")
                sizes = []
                for options in ("-s", "-sx"):
                    done = subprocess.run(["du", options, str(path)], check=True, capture_output=True, timeout=20)  # noqa: ASYNC221
                    sizes.append(int(done.stdout.split()[0]))
                assert sizes[0] == sizes[1] > 250

        driver.run(body)

    def test_sizes_over_eight_gigabytes(self, driver: Driver) -> None:
        with (driver.root / "huge").open("wb") as file:
            file.write(b"begin")
            file.seek(9 << 30)
            file.write(b"end")
        for form in ("gnu", "pax"):
            command = ["tar", "-C", str(driver.root), f"--format={form}", "--sparse", "-cf", "-", "huge"]
            archive = subprocess.run(command, check=True, capture_output=True, timeout=60).stdout

            async def body(snapshots: Snapshots, archive: bytes = archive, form: str = form) -> None:
                fd = pipe_of(archive)
                unpacked = await snapshots.unpack("k", fd)
                os.close(fd)
                assert unpacked.size == (9 << 30) + 3
                name = snapshots.commit("k", chain_id(None, unpacked.diff_id), None).name
                assert await snapshots.disk_usage(name) < 1 << 20
                snapshots.prepare(form, name)
                async with mounted(snapshots, form, driver.root / "m") as path:
                    with (path / "huge").open("rb") as file:
                        assert file.read(7) == b"begin\0\0"
                        file.seek((9 << 30) - 2)
                        assert file.read() == b"\0\0end"

            driver.run(body)

    def test_times_owners_and_attributes(self, driver: Driver) -> None:
        def member(name: bytes, mtime: bytes, **attributes: bytes) -> bytes:
            records = {
                b"mtime": mtime,
                b"uid": b"3000000",
                b"gid": b"2000000000",
                **{key.encode().replace(b"__", b"."): value for key, value in attributes.items()},
            }
            payload = b"".join(writer.pax_record(key, value) for key, value in records.items())
            extended = writer.header(b"pax", b"x", mode=0, size=len(payload)) + payload + writer.padding(len(payload))
            return extended + writer.header(name, REGULAR, mode=0o4751, size=1) + b"1" + writer.padding(1)

        capability = b"\1\0\0\2\0\4" + bytes(14)
        archive = (
            member(b"negative", b"-1.25", SCHILY__xattr__user__k=b"v" * 1000)
            + member(b"fraction", b"1700000000.123456789", SCHILY__xattr__security__capability=capability)
            + writer.END
        )

        async def body(snapshots: Snapshots) -> None:
            snapshots.prepare("c", await put(snapshots, archive))
            async with mounted(snapshots, "c", driver.root / "m") as path:
                negative, fraction = path / "negative", path / "fraction"
                assert negative.stat().st_mtime_ns == -1_250_000_000
                assert fraction.stat().st_mtime_ns == 1_700_000_000_123_456_789
                assert (fraction.stat().st_uid, fraction.stat().st_gid) == (3_000_000, 2_000_000_000)
                assert stat.S_IMODE(fraction.stat().st_mode) == 0o4751
                assert os.getxattr(negative, "user.k") == b"v" * 1000
                assert os.getxattr(fraction, "security.capability") == capability

        driver.run(body)

    def test_the_longest_name(self, driver: Driver) -> None:
        """4,094 bytes, so that a program can name it from its root; one more is refused."""
        name = "d/" * 2046 + "ff"

        async def body(snapshots: Snapshots) -> None:
            fd = pipe_of(tar(("f", name + "f", "x")))
            with pytest.raises(InvalidArgument, match="File name too long"):
                await snapshots.unpack("k", fd)
            os.close(fd)
            snapshots.prepare("c", await put(snapshots, tar(("f", name, "x"), ("h", "hard", name))))
            async with mounted(snapshots, "c", driver.root / "m") as path:
                place = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                found = os.stat(name, dir_fd=place)
                os.close(place)
                assert (found.st_size, found.st_nlink) == (1, 2)
            snapshots.remove("c")
            snapshots.remove_layer(snapshots.layers()[0].name)
            await snapshots.empty_trash()
            assert list(driver.root.rglob("trash/*")) == []

        driver.run(body)

    def test_what_a_hard_links_entry_says_is_the_files_too(self, driver: Driver) -> None:
        """As in dockerd 20.10 and 28, but that a capability stays where the entry has the same owner: other tars do not name it twice."""
        capability = b"\1\0\0\2\0\4" + bytes(14)

        def member(name: str, kind: bytes = REGULAR, link: str = "", **more: Any) -> bytes:
            return writer.header(name.encode(), kind, link=link.encode(), **{"mode": 0o755, "mtime": 1000, **more})

        archive = (
            member("file", xattrs={b"security.capability": capability, b"user.old": b"1"})
            + member("same", HARDLINK, "/file", mode=0o4711, mtime=-5, xattrs={b"user.new": b"2"})
            + member("taken", xattrs={b"security.capability": capability})
            + member("given", HARDLINK, "taken", uid=5, gid=6)
            + member("link", SYMLINK, "file", mtime=7)
            + member("twin", HARDLINK, "link", mode=0, uid=5, gid=6, mtime=9)
            + writer.END
        )

        async def body(snapshots: Snapshots) -> None:
            snapshots.prepare("c", await put(snapshots, archive))
            async with mounted(snapshots, "c", driver.root / "m") as path:
                file, taken, link = (path / "file").lstat(), (path / "taken").lstat(), (path / "link").lstat()
                assert (stat.S_IMODE(file.st_mode), file.st_mtime, file.st_uid, file.st_nlink) == (0o4711, -5, 0, 2)
                assert {key: os.getxattr(path / "same", key) for key in os.listxattr(path / "same") if "overlay" not in key} == {
                    "security.capability": capability,
                    "user.old": b"1",
                    "user.new": b"2",
                }
                assert (taken.st_uid, taken.st_gid) == (5, 6)
                assert "security.capability" not in os.listxattr(path / "given")  # as chown(2) has it
                assert (stat.S_IMODE(link.st_mode), link.st_mtime, link.st_uid, link.st_gid, link.st_nlink) == (0o777, 7, 5, 6, 2)

        driver.run(body)

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    def test_images_of_five_hundred_layers(self, driver: Driver) -> None:
        async def body(snapshots: Snapshots) -> None:
            top = None
            for number in range(500):
                content = tar(("d", "d"), ("f", f"d/{number}", "x"), ("f", "same", str(number)), ("f", f"d/.wh.{number - 7}"))
                top = await put(snapshots, content, top)
                if number + 1 in (60, 499, 500):
                    snapshots.prepare(f"c{number}", top)
                    async with mounted(snapshots, f"c{number}", driver.root / "m") as path:
                        assert (path / "same").read_text() == str(number)
                        assert set(os.listdir(path / "d")) == {str(number - back) for back in range(7)}
                        (path / "same").write_text("changed")

        driver.run(body, 500)

    @pytest.mark.slow
    @pytest.mark.timeout(600)
    def test_a_hundred_thousand_files_in_one_directory(self, driver: Driver) -> None:
        archive = tar(("d", "d"), *(("f", f"d/{number:06}", "x") for number in range(100_000)))

        async def body(snapshots: Snapshots) -> None:
            name = await put(snapshots, archive)
            snapshots.prepare("c", name)
            async with mounted(snapshots, "c", driver.root / "m") as path:
                names = os.listdir(path / "d")
                assert len(names) == 100_000
                assert set(names) == {f"{number:06}" for number in range(100_000)}
                assert all((path / f"d/{number:06}").stat().st_size == 1 for number in range(0, 100_000, 997))

        driver.run(body, 500)

    @pytest.mark.slow
    @pytest.mark.timeout(900)
    def test_a_file_over_four_gigabytes(self, driver: Driver) -> None:
        size = (4 << 30) + 12345

        async def body(snapshots: Snapshots) -> None:
            reader, written = os.pipe()

            def feed() -> None:
                with os.fdopen(written, "wb") as file:
                    file.write(writer.header(b"big", REGULAR, mode=0o644, size=size))
                    piece = bytes(range(256)) * 4096
                    for _ in range(size >> 20):
                        file.write(piece)
                    file.write(piece[: size & 0xFFFFF] + writer.padding(size) + writer.END)

            feeding = asyncio.create_task(asyncio.to_thread(feed))
            unpacked = await snapshots.unpack("k", reader)
            os.close(reader)
            await feeding
            snapshots.prepare("c", snapshots.commit("k", chain_id(None, unpacked.diff_id), None).name)
            async with mounted(snapshots, "c", driver.root / "m") as path:
                assert (path / "big").stat().st_size == size
                with (path / "big").open("rb") as file:
                    file.seek((4 << 30) + 1000)
                    assert file.read(256) == bytes((1000 + n) % 256 for n in range(256))
                    file.seek(size - 1)
                    assert file.read() == bytes([(size - 1) & 0xFF])

        driver.run(body, 800)

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

    @pytest.mark.parametrize(
        "archive",
        [
            pytest.param(tar(("f", "a", "1"), ("f", "a", "22"), ("f", "a", "333")), id="file over file"),
            pytest.param(tar(("f", "a", "1"), ("d", "a"), ("f", "a/b", "2")), id="directory over file"),
            pytest.param(tar(("f", "a/b/c", "1"), ("f", "a/d", "2"), ("f", "a", "3")), id="file over directory"),
            pytest.param(tar(("f", "a", "1"), ("f", "b", "2"), ("h", "a", "b")), id="hard link over file"),
            pytest.param(tar(("f", "a", "1"), ("h", "b", "a"), ("f", "a", "2")), id="file over one of two names"),
            pytest.param(tar(("d", "d"), ("l", "s", "d"), ("f", "s/f", "1"), ("f", "s", "2")), id="file over the symlink on the way"),
            pytest.param(tar(("f", "a", "x" * 5_000_000), ("f", "a", "y")), id="large"),
            pytest.param(tar(("f", "a", "1"), ("f", ".wh.a"), ("f", "b", "2")), id="whiteout of its own"),
        ],
    )
    def test_what_a_later_entry_replaced_comes_back(self, driver: Driver, archive: bytes) -> None:
        async def body(snapshots: Snapshots) -> None:
            name = await put(snapshots, archive)
            assert await snapshots.archive_size(name) == len(archive)
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
