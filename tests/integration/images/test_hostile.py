"""Hostile archives, with both drivers: an error that says why, nothing left, nothing outside touched; a good one still loads."""

import asyncio
import gzip
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zstandard

from sampan.archive import writer
from sampan.archive.reader import CHAR, DIRECTORY, HARDLINK, REGULAR, SYMLINK
from sampan.errors import EngineError
from sampan.image.archives import DOCUMENT_MAX
from sampan.linux.overlay import mount_overlay
from tests.integration.images.support import Images, pieces, run
from tests.support.disks import tmpfs
from tests.support.imagetars import (
    INDEX,
    MANIFEST,
    blob,
    config,
    descriptor,
    digest,
    docker_files,
    oci_files,
    oci_index,
    oci_manifest,
    packed,
)
from tests.support.layers import need
from tests.support.tars import tar

pytestmark = pytest.mark.root

GOOD = tar(("d", "etc"), ("f", "etc/passwd", "inside"), ("l", "etc/link", "/etc/passwd"), ("h", "etc/hard", "etc/passwd"))


def entry(name: bytes, kind: bytes = REGULAR, content: bytes = b"evil", *, link: bytes = b"", mode: int = 0o644) -> bytes:
    """One raw entry, whatever its name."""
    content = content if kind == REGULAR else b""
    head = writer.header(name, kind, mode=mode, size=len(content), link=link, major=1, minor=3)
    return head + content + writer.padding(len(content))


def layered(*entries: bytes) -> bytes:
    """A layer of raw entries."""
    return b"".join(entries) + writer.END


def image(*layers: bytes) -> bytes:
    """A docker-archive of these layers."""
    return packed(docker_files(config(*layers), layers, ["hostile:1"]))


def changed(old: bytes, new: bytes) -> bytes:
    """A good archive with some bytes of a header changed and its checksum made right again."""
    whole = bytearray(image(GOOD))
    at = whole.index(old) // 512 * 512
    header = whole[at : at + 512].replace(old, new)
    header[148:156] = b"        "
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    whole[at : at + 512] = header
    return bytes(whole)


def sized(name: bytes, size: int) -> bytes:
    """A header that announces size bytes."""
    return writer.header(name, REGULAR, mode=0o644, size=size)


@pytest.fixture(params=["overlay2", "erofs"])
def driver(request: pytest.FixtureRequest) -> str:
    """What makes the layers. None of these tests but one needs a kernel that can mount them."""
    return str(request.param)


BEFORE_ANY_LAYER = pytest.mark.parametrize("driver", ["overlay2", pytest.param("erofs", marks=pytest.mark.slow)])
"""Of large archives that are refused before a driver has seen anything of them."""


@pytest.fixture
def bait(tmp_path: Path) -> Iterator[Path]:
    """Files that must not change, outside of the data root."""
    (tmp_path / "victim").write_text("untouched")
    before = sorted((str(path), path.lstat().st_mtime_ns) for path in tmp_path.rglob("*"))
    yield tmp_path / "victim"
    assert (tmp_path / "victim").read_text() == "untouched"
    assert sorted((str(path), path.lstat().st_mtime_ns) for path in tmp_path.rglob("*")) == before
    assert not Path("/sampan-breakout").exists()
    assert not Path("/etc/sampan-breakout").exists()


async def refused(images: Images, root: Path, archive: bytes, message: str, *, imported: bool = False) -> None:
    """Load (or import) it, and see that it fails so, and that all is as it was."""
    before = everything(root)
    with pytest.raises(EngineError, match=message) as caught:
        await (images.load(archive) if imported else images.load_archive(archive))
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 8192
    await images.service.settle()
    assert images.store.all() == []
    assert images.snapshots.layers() == []
    assert images.snapshots.keys() == []
    for _ in range(250):  # files are unlinked by a thread
        if everything(root) == before:
            break
        await asyncio.sleep(0.02)
    assert everything(root) == before


def everything(root: Path) -> list[str]:
    """All that is in the data root but the database."""
    return sorted(str(path) for path in root.rglob("*") if not path.name.startswith("state."))


async def accepted(images: Images) -> None:
    """The positive control."""
    assert await images.load_archive(image(GOOD)) == ["Loaded image: hostile:1"]


UP = b"../" * 30
BREAKOUT = "outside of the root: breakout"
LAYERS: dict[str, tuple[bytes, str]] = {
    "parent": (layered(entry(b"../sampan-breakout")), BREAKOUT),
    "parent inside": (layered(entry(b"a/../../sampan-breakout")), BREAKOUT),
    "parent directory": (layered(entry(UP + b"etc/", DIRECTORY)), BREAKOUT),
    "hard link up": (layered(entry(b"x", HARDLINK, link=UP + b"etc/passwd")), BREAKOUT),
    "hard link absolute": (layered(entry(b"x", HARDLINK, link=b"/etc/passwd")), "no such file or directory"),
    "hard link through a symlink": (
        layered(entry(b"out", SYMLINK, link=UP + b"etc"), entry(b"x", HARDLINK, link=b"out/passwd")),
        "no such file or directory|No such file or directory",
    ),
    "hard links in a ring": (
        layered(entry(b"a", HARDLINK, link=b"b"), entry(b"b", HARDLINK, link=b"c"), entry(b"c", HARDLINK, link=b"a")),
        "no such file or directory",
    ),
    "whiteout of the parent": (layered(entry(b"d/.wh...", content=b"")), "invalid whiteout"),
    "name of a megabyte": (layered(entry(b"n" * (1 << 20))), "header field too long"),
    "checksum": (GOOD[:150] + bytes((GOOD[150] ^ 1,)) + GOOD[151:], "invalid tar header"),
    "truncated": (GOOD[: 512 + 512 + 100], "unexpected EOF"),
    "size beyond the end": (sized(b"f", 1 << 20) + b"x" * 100, "unexpected EOF"),
    "size of 8 EiB": (sized(b"f", (1 << 63) - 512) + b"x" * 1024, "no space left on device|unexpected EOF|File too large"),
    "size negative": (GOOD[:124] + b"\xff" * 12 + GOOD[136:148] + b"        " + GOOD[156:], "invalid tar header"),
    "a file as a directory": (layered(entry(b"f"), entry(b"f/g")), "Not a directory"),
    "symlinks in a ring": (layered(entry(b"a", SYMLINK, link=b"b"), entry(b"b", SYMLINK, link=b"a"), entry(b"a/f")), "Too many levels"),
    "bad gzip": (gzip.compress(GOOD)[:-20], "unexpected EOF|invalid compressed data"),
    "gzip with a bad sum": (gzip.compress(GOOD)[:-8] + b"\0" * 8, "invalid compressed data"),
    "not a tar": (b"#!/bin/sh\nexit 0\n" * 100, "invalid tar header"),
    "empty": (b"", "unexpected EOF"),
}


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.replace(" ", "-"))
def test_a_hostile_layer_is_refused(root: Path, bait: Path, case: str, driver: str) -> None:
    layer, message = LAYERS[case]

    async def body(images: Images) -> None:
        await refused(images, root, image(GOOD, layer), message)
        await accepted(images)

    run(root, body, driver)


DEEP_NAME = b"d/" * 2046 + b"f"
NAMES = [
    (entry(b"d/" + b"n" * 256), "d/" + "n" * 198 + "..."),
    (entry(b"n" * 256 + b"/", DIRECTORY), "n" * 200 + "..."),
    (entry(b"d/" + b"n" * 256 + b"/f"), "d/" + "n" * 198 + "..."),
    (entry(b"d/.wh." + b"n" * 252, content=b""), "d/.wh." + "n" * 194 + "..."),
    (entry(DEEP_NAME + b"ff"), "d/" * 100 + "..."),
    (entry(b"h", HARDLINK, link=b"n" * 256), "invalid hardlink 'h': " + "n" * 200 + "..."),
    (entry(b"h", HARDLINK, link=DEEP_NAME + b"ff"), "invalid hardlink 'h': " + "d/" * 100 + "..."),
    (entry(b"s", SYMLINK, link=b"t" * 4096), "s"),
]
"""One byte more than the kernel takes; and what the error begins with."""


def test_names_that_no_program_could_use(root: Path, bait: Path, driver: str) -> None:
    async def body(images: Images) -> None:
        for bad, shown in NAMES:
            layer = layered(entry(b"before"), bad, entry(b"after"))
            for imported, archive in ((False, image(GOOD, layer)), (True, layer)):
                await refused(images, root, archive, rf"(^|: ){re.escape(shown)}: File name too long$", imported=imported)
        await accepted(images)

    run(root, body, driver)


def test_the_longest_components(root: Path, driver: str) -> None:
    long = b"n" * 255
    layer = layered(entry(long), entry(b"p" * 255 + b"/f"), entry(b".wh." + b"w" * 251, content=b""), entry(b"h", HARDLINK, link=long))

    async def body(images: Images) -> None:
        assert await images.load_archive(image(layer)) == ["Loaded image: hostile:1"]

    run(root, body, driver)


def outer(name: bytes, kind: bytes = REGULAR, *, link: bytes = b"") -> bytes:
    """A good archive with one more member, in front."""
    return entry(name, kind, link=link) + image(GOOD)


def deep_index() -> bytes:
    """An index within an index within an index..."""
    files: dict[str, bytes | str] = {}
    inner = descriptor(b"{}", MANIFEST)
    for _ in range(50):
        data = oci_index(inner)
        files[blob(data)] = data
        inner = descriptor(data, INDEX)
    return packed({**files, "index.json": oci_index(inner)})


def cyclic_index() -> bytes:
    """An index that names itself: only possible with a digest that lies."""
    name = "sha256:" + "ab" * 32
    inner = json.dumps({"schemaVersion": 2, "manifests": [{"mediaType": INDEX, "digest": name, "size": -1}]}).encode()
    return packed({"blobs/sha256/" + "ab" * 32: inner, "index.json": inner})


def oci_with(replaced: str, content: bytes) -> bytes:
    """An OCI layout, a blob's content exchanged."""
    files = oci_files(config(GOOD), [GOOD])
    return packed({**files, {"config": blob(config(GOOD)), "layer": blob(GOOD)}[replaced]: content})


def docker_with(document: bytes, **item: object) -> bytes:
    """A docker-archive whose manifest says something else."""
    files = docker_files(document, [GOOD], ["hostile:1"])
    (entry_,) = json.loads(files["manifest.json"])
    files["manifest.json"] = json.dumps([{**entry_, **item}]).encode()
    return packed(files)


HUGE = 1 << 30
DEEP = b'{"unknown":' + b"[" * 5000 + b"]" * 5000 + b"}"
ARCHIVES: dict[str, tuple[Callable[[], bytes], str]] = {
    "parent": (lambda: outer(b"../sampan-breakout"), "outside of the archive: breakout"),
    "absolute": (lambda: outer(b"/etc/sampan-breakout"), "outside of the archive: an absolute name"),
    "hard link up": (lambda: outer(b"x", HARDLINK, link=b"../../etc/passwd"), "outside of the archive: breakout"),
    "name of 5000 bytes": (lambda: outer(b"n" * 5000), "too long: 5000 bytes"),
    "layer is a symlink out": (
        lambda: packed({**docker_files(config(GOOD), [GOOD], None), "manifest.json": json.dumps(
            [{"Config": digest(config(GOOD))[7:] + ".json", "Layers": ["l"]}]).encode(), "l": "../../../../etc/passwd"}),
        "l: no such file or directory",
    ),
    "config is a symlink out": (
        lambda: packed({"c": "/etc/passwd", "manifest.json": b'[{"Config":"c","Layers":[]}]'}),
        "c: no such file or directory",
    ),
    "symlinks in a ring": (
        lambda: packed({"a": "b", "b": "a", "manifest.json": b'[{"Config":"a","Layers":[]}]'}),
        "too many levels of symbolic links",
    ),
    "config path out": (lambda: packed({"manifest.json": b'[{"Config":"../../etc/passwd","Layers":[]}]'}), "no such file or directory"),
    "truncated": (lambda: image(GOOD)[:5000], "unexpected EOF"),
    "checksum": (lambda: image(GOOD)[:150] + b"\1" + image(GOOD)[151:], "invalid tar header"),
    "diffID": (
        lambda: packed(docker_files(config(tar(("f", "other"))), [GOOD], ["hostile:1"])),
        'invalid diffID for layer 0: expected "sha256:',
    ),
    "layers missing": (
        lambda: packed(docker_files(config(GOOD, GOOD), [GOOD], ["hostile:1"])),
        "layers length mismatch: expected 1, got 2",
    ),
    "history": (
        lambda: packed(docker_files(config(GOOD, history=[{"created_by": "x"}] * 5), [GOOD], None)),
        "history has 5 layers, rootfs 1",
    ),
    "not linux": (lambda: packed(docker_files(config(GOOD, os="windows"), [GOOD], None)), "cannot load windows image on linux"),
    "tag": (lambda: docker_with(config(GOOD), RepoTags=["../../etc/passwd:1"]), "invalid reference format"),
    "no tag": (lambda: docker_with(config(GOOD), RepoTags=["hostile"]), 'invalid tag "hostile"'),
    "manifest null": (lambda: packed({"manifest.json": b"null"}), "manifest cannot be null"),
    "manifest not JSON": (lambda: packed({"manifest.json": b"[{"}), "invalid archive: manifest.json: "),
    "manifest of lists in lists": (lambda: packed({"manifest.json": b"[" * 100_000}), "invalid archive: manifest.json: "),
    "manifest of numbers": (lambda: packed({"manifest.json": b'[{"Config":1,"Layers":2}]'}), "invalid archive: manifest.json: "),
    "config not JSON": (lambda: packed(docker_files(b"\xff\xfe", [GOOD], None)), "invalid image config"),
    "config of lists in lists": (
        lambda: packed(docker_files(config(GOOD)[:-1] + b', "unknown": ' + b"[" * 50_000 + b"]" * 50_000 + b"}", [GOOD], None)),
        "invalid image config: lists and objects within each other",
    ),
    "config with bytes that are no text": (
        lambda: packed(docker_files(config(GOOD).replace(b"amd64", b"amd\xff4"), [GOOD], None)), "invalid image config: ",
    ),
    "blob of lists in lists": (
        lambda: packed({blob(DEEP): DEEP, "index.json": oci_index(descriptor(DEEP, MANIFEST))}), "lists and objects within each other",
    ),
    "no images at all": (lambda: tar(("f", "hello", "x")), "this is not an image archive"),
    "index in itself": (cyclic_index, "unexpected digest of blobs/sha256/abab"),
    "indexes in indexes": (deep_index, "indexes within indexes"),
    "config digest": (lambda: oci_with("config", config(GOOD, author="x")), "unexpected size|unexpected digest"),
    "layer exchanged": (
        lambda: oci_with("layer", tar(("f", "etc/passwd", "other!"), ("f", "y")).ljust(len(GOOD), b"\0")),
        "invalid diffID",
    ),
    "layer of another size": (lambda: oci_with("layer", GOOD + bytes(512)), "unexpected size"),
    "foreign media type": (
        lambda: packed(
            {**oci_files(config(GOOD), [GOOD]), "index.json": oci_index(descriptor(oci_manifest(config(GOOD), [GOOD]), "text/x"))}
        ),
        "media type 'text/x'",
    ),
    "digest is a path": (
        lambda: packed({"index.json": oci_index({"mediaType": MANIFEST, "digest": "sha256:../../../../etc/passwd", "size": 1})}),
        "is not a sha256 digest",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ARCHIVES, ids=lambda case: case.replace(" ", "-"))
def test_a_hostile_archive_is_refused(root: Path, bait: Path, case: str, driver: str) -> None:
    make, message = ARCHIVES[case]

    async def body(images: Images) -> None:
        await refused(images, root, make(), message)
        await accepted(images)

    run(root, body, driver)


@BEFORE_ANY_LAYER
@pytest.mark.parametrize("name", ["manifest.json", "config"])
def test_a_document_of_1_gb_is_not_read(root: Path, name: str, driver: str) -> None:
    """The header says 1 GB; the memory of no process grows by it."""

    async def body(images: Images) -> None:
        files = docker_files(config(GOOD), [GOOD], ["hostile:1"])
        path = name if name == "manifest.json" else next(key for key in files if key.endswith(".json") and key != "manifest.json")
        rest = packed({key: content for key, content in files.items() if key != path})[: -len(writer.END)]
        head, zeros = sized(path.encode(), HUGE), bytes(1 << 20)

        async def archive():  # type: ignore[no-untyped-def]
            yield rest + head
            for _ in range(HUGE >> 20):
                yield zeros
            yield writer.END

        with pytest.raises(EngineError, match=f"is too large: {HUGE} bytes, at most {DOCUMENT_MAX}"):
            async for _ in images.archives.load(archive(), quiet=True, platform=None):
                pass
        assert images.snapshots.layers() == []
        await accepted(images)

    run(root, body, driver)


def test_links_stay_inside_across_layers(root: Path, bait: Path, driver: str) -> None:
    """A symlink out in one layer, a file through it in the next: it lands in that layer, at the name it has."""
    first = layered(entry(b"out", SYMLINK, link=str(bait.parent).encode()), entry(b"up", SYMLINK, link=UP + b"etc"))
    second = layered(entry(b"out/victim"), entry(b"up/sampan-breakout"), entry(b"/etc/sampan-breakout"))
    third = layered(
        entry(bytes(bait.parent)[1:] + b"/", DIRECTORY, mode=0o755),
        entry(b"here", SYMLINK, link=str(bait.parent).encode()),
        entry(b"here/victim"),
        entry(b"over", SYMLINK, link=UP),
        entry(b"over/etc/sampan-breakout"),
    )

    async def body(images: Images) -> None:
        assert await images.load_archive(image(first, second, third)) == ["Loaded image: hostile:1"]
        names = set()
        async with shown(images) as tree:
            for path in tree.rglob("*"):
                names.add(str(path.relative_to(tree)))
        inside = str(bait.parent)[1:]
        parents = {inside.rsplit("/", cut)[0] for cut in range(inside.count("/") + 1)}
        wanted = {"here", "out", "out/victim", "over", "up", "up/sampan-breakout", "etc", "etc/sampan-breakout", f"{inside}/victim"}
        assert names == wanted | parents

    need(driver)
    run(root, body, driver)


@asynccontextmanager
async def shown(images: Images) -> AsyncIterator[Path]:
    """The tree of the one image."""
    (loaded,) = images.store.all()
    assert loaded.chain_id is not None
    with await images.snapshots.view(loaded.chain_id) as layers:
        fd = mount_overlay(layers.lowers, "", "")
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def test_devices_are_dockers(root: Path, driver: str) -> None:
    """A layer may have devices, as docker's may: whether they can be opened is decided by the container's device rules."""
    device = layered(entry(b"dev/", DIRECTORY, mode=0o755), entry(b"dev/null", CHAR, mode=0o666))

    async def body(images: Images) -> None:
        await images.load_archive(image(device))
        async with shown(images) as tree:
            info = (tree / "dev/null").lstat()
            assert (stat.S_ISCHR(info.st_mode), info.st_rdev) == (True, os.makedev(1, 3))

    need(driver)
    run(root, body, driver)


def test_devices_need_the_right(tmp_path: Path) -> None:
    """An engine without CAP_MKNOD refuses a layer with devices. (EROFS makes no device, it describes one.)"""
    device = layered(entry(b"dev/", DIRECTORY, mode=0o755), entry(b"dev/null", CHAR, mode=0o666))
    (tmp_path / "archive.tar").write_bytes(image(device))
    (tmp_path / "data").mkdir()
    script = (
        "import asyncio, sys; from pathlib import Path; from tests.integration.images.support import run\n"
        "async def body(images):\n"
        "    try: await images.load_archive(Path(sys.argv[1]).read_bytes())\n"
        "    except Exception as error: print('refused:', error, images.snapshots.layers(), images.snapshots.keys())\n"
        "run(Path(sys.argv[2]), body)\n"
    )
    command = ["capsh", "--drop=cap_mknod", "--", "-c", 'exec "$0" "$@"', sys.executable, "-c", script]
    done = subprocess.run(
        [*command, str(tmp_path / "archive.tar"), str(tmp_path / "data")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert done.stdout == "refused: dev/null: Operation not permitted [] []\n", done.stderr


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 192 MiB with 8,000 inodes."""
    with tmpfs(tmp_path / "disk", "size=192m,nr_inodes=8000,mode=755") as path:
        yield path


def zeros(size: int) -> Iterator[bytes]:
    """A layer with a file of size zeros, in pieces."""
    yield sized(b"zeros", size)
    yield from (bytes(1 << 20) for _ in range(size >> 20))
    yield writer.END


def test_the_disk_is_never_filled(small_disk: Path, driver: str) -> None:
    """A bomb by size, one by count: both are refused while there is still room for others. To EROFS many files are one: no bomb."""

    async def body(images: Images) -> None:
        squeezer = zstandard.ZstdCompressor().compressobj()
        bomb = b"".join(squeezer.compress(piece) for piece in zeros(185 << 20)) + squeezer.flush()
        assert len(bomb) < 1 << 20
        crowd = layered(*(entry(f"f{number}".encode(), content=b"") for number in range(9000)))
        lowest = os.statvfs(small_disk).f_bavail
        inodes = os.statvfs(small_disk).f_favail

        async def watch() -> None:
            nonlocal lowest, inodes
            while True:
                await asyncio.sleep(0.005)
                lowest, inodes = min(lowest, os.statvfs(small_disk).f_bavail), min(inodes, os.statvfs(small_disk).f_favail)

        watching = asyncio.ensure_future(watch())
        for layer in (bomb, crowd) if driver == "overlay2" else (bomb,):
            with pytest.raises(EngineError, match=r"no space left on device: .* kept for others"):
                async for _ in images.service.import_(pieces(layer, 1 << 16), repo="x", tag="", message="", changes=(), platform=""):
                    pass
            with pytest.raises(EngineError, match=r"no space left on device: .* kept for others"):
                await images.load_archive(packed(oci_files(config(layer), [layer])))
            await images.service.settle()
            assert images.snapshots.layers() == []
        watching.cancel()
        assert lowest * os.statvfs(small_disk).f_frsize > 8 << 20
        assert inodes > 300
        await accepted(images)

    run(small_disk, body, driver)


@BEFORE_ANY_LAYER
def test_a_bomb_by_ratio(root: Path, driver: str) -> None:
    async def body(images: Images) -> None:
        squeezer = zstandard.ZstdCompressor().compressobj()
        bomb = b"".join(squeezer.compress(piece) for piece in zeros((1 << 30) + (64 << 20))) + squeezer.flush()
        with pytest.raises(EngineError, match=r"compressed bytes have become \d+: this is not a real archive"):
            await images.load_archive(bomb)
        await images.service.settle()
        assert images.snapshots.layers() == []
        await accepted(images)

    run(root, body, driver)


@BEFORE_ANY_LAYER
def test_an_archive_of_too_many_members(root: Path, driver: str) -> None:
    async def body(images: Images) -> None:
        archive = b"".join(entry(f"f{number}".encode(), content=b"") for number in range(70_000)) + writer.END
        await refused(images, root, archive, "the archive has more than 65536 members")
        await accepted(images)

    run(root, body, driver)
