"""Plain trees into tars and out of them; what an overlay's upper directory says."""

import io
import os
import stat
import subprocess
import tarfile
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from sampan.archive import changes, writer
from sampan.archive.extract import TreeExtractor
from sampan.archive.pack import Outlet, Packer, blocks
from sampan.archive.reader import InvalidArchive, TarReader
from sampan.archive.source import PipeSource, Source, TruncatedArchive
from tests.support.tars import joined, tar


def opened(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY)


def packed(path: Path, name: bytes, archived: bytes) -> bytes:
    return joined(Packer().tree(opened(path), name, archived)) + writer.END


def extract(archive: bytes, path: Path, **options: object) -> None:
    source = io.BytesIO(archive)
    owner = None if os.geteuid() == 0 else (-1, -1)
    with TreeExtractor(opened(path), None, owner=owner, **options) as extractor:  # type: ignore[arg-type]
        extractor.apply(TarReader(Source(source.read)))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "tree"
    (top / "b/c").mkdir(parents=True)
    (top / "b.x").write_text("x")
    (top / "a").write_bytes(os.urandom(3 << 20))
    os.link(top / "a", top / "b/z")
    (top / "b/link").symlink_to("../a")
    os.mkfifo(top / "fifo")
    (top / ("long" * 60)).write_text("long")
    (top / "b/c" / os.fsdecode(b"\xff\xfe")).write_text("not utf-8")
    (top / "empty").touch()
    (top / "a").chmod(0o640)
    os.utime(top / "b", (1, 1))
    return tmp_path


def same(one: Path, other: Path) -> None:
    """By GNU tools: names, types, modes, owners, times (in seconds), links and contents."""
    show = ["find", ".", "-printf", r"%P %y %m %U %G %l %n %Ts\n"]
    listings = [sorted(subprocess.run(show, cwd=path, capture_output=True, check=True).stdout.splitlines()) for path in (one, other)]
    assert listings[0] == listings[1]
    assert subprocess.run(["diff", "-r", "--no-dereference", "--exclude=fifo", one, other], check=False).returncode == 0


def test_gnu_tar_extracts_what_we_pack(tree: Path) -> None:
    (tree / "out").mkdir()
    archive = packed(tree, b"tree", b"name")
    subprocess.run(["tar", "xpf", "-", "-C", tree / "out"], input=archive, check=True)
    same(tree / "tree", tree / "out/name")


def test_we_extract_what_we_pack(tree: Path) -> None:
    (tree / "out").mkdir()
    extract(packed(tree, b"tree", b"name"), tree / "out")
    same(tree / "tree", tree / "out/name")


def test_the_same_tree_is_the_same_bytes(tree: Path) -> None:
    assert packed(tree, b"tree", b"t") == packed(tree, b"tree", b"t")
    with tarfile.open(fileobj=io.BytesIO(packed(tree, b"tree", b"t"))) as archive:
        names = archive.getnames()
    assert names[:3] == ["t", "t/a", "t/b"]
    assert names.index("t/b/z") < names.index("t/b.x")


def test_depth_costs_no_stack(tmp_path: Path) -> None:
    here = opened(tmp_path)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    archive = packed(tmp_path, b"d", b"d")
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened_archive:
        assert len(opened_archive.getmembers()) == 1500
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


def test_blocks_keep_the_bytes() -> None:
    pieces = [b"a" * 10, b"", b"b" * 5000, b"c"]
    found = list(blocks(iter(pieces), 16))
    assert b"".join(found) == b"".join(pieces)
    assert len(found) == 2


def test_a_file_that_shrinks_is_filled_up(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"x" * (3 << 20))
    pieces = Packer().tree(opened(tmp_path), b"f", b"f")
    head = next(pieces)
    os.truncate(tmp_path / "f", 1 << 20)
    archive = head + joined(pieces)
    assert len(archive) == 512 + (3 << 20)


def test_directories_and_others_are_not_exchanged(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "f").touch()
    with pytest.raises(InvalidArchive, match='cannot overwrite directory "d" with non-directory "/here"'):
        extract(tar(("f", "d", "x")), tmp_path, replace=False, place="/here")
    with pytest.raises(InvalidArchive, match='cannot overwrite non-directory "/here/f" with directory "/here"'):
        extract(tar(("d", "f")), tmp_path, replace=False, place="/here", full_names=True)
    extract(tar(("d", "f"), ("f", "d", "x"), ("f", ".wh.f", "plain")), tmp_path)
    assert (tmp_path / "f").is_dir()
    assert (tmp_path / "d").read_text() == "x"
    assert (tmp_path / ".wh.f").read_text() == "plain"


@pytest.mark.parametrize("link", ["../outside", "/{top}/outside"])
def test_no_entry_leaves_the_directory(tmp_path: Path, link: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "in").mkdir()
    link = link.replace("{top}", str(tmp_path))
    with pytest.raises(InvalidArchive):
        extract(tar(("l", "l", link), ("f", "l/x", "bad")), tmp_path / "in")
    with pytest.raises(InvalidArchive, match="breakout"):
        extract(tar(("f", "../outside/x", "bad")), tmp_path / "in")
    assert os.listdir(tmp_path / "outside") == []


# what an upper directory says


def differences(tmp_path: Path) -> set[tuple[int, str]]:
    found = changes.changes(opened(tmp_path / "upper"), opened(tmp_path / "lower"))
    return {(kind, path.decode()) for kind, path in found}


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    for top in ("upper/d/e", "lower/d/e"):
        (tmp_path / top).mkdir(parents=True)
    (tmp_path / "lower/d/f").write_text("old")
    (tmp_path / "lower/d/e/g").write_text("old")
    for top in ("upper", "upper/d", "upper/d/e", "lower", "lower/d", "lower/d/e"):
        os.utime(tmp_path / top, (5, 5))
    return tmp_path


def test_copied_up_but_the_same_is_no_change(trees: Path) -> None:
    subprocess.run(["cp", "-a", trees / "lower/d/f", trees / "upper/d/f"], check=True)
    assert differences(trees) == set()


def test_parents_change_with_their_entries(trees: Path) -> None:
    (trees / "upper/d/e/g").write_text("changed")
    (trees / "upper/d/e/h").write_text("new")
    assert differences(trees) == {(0, "/d"), (0, "/d/e"), (0, "/d/e/g"), (1, "/d/e/h")}


def test_a_time_without_a_fraction_is_the_same(trees: Path) -> None:
    os.utime(trees / "lower/d/f", ns=(7_000_000_000, 7_000_000_000))
    subprocess.run(["cp", "-a", trees / "lower/d/f", trees / "upper/d/f"], check=True)
    os.utime(trees / "upper/d/f", ns=(7_900_000_000, 7_900_000_000))
    assert differences(trees) == set()
    os.utime(trees / "upper/d/f", ns=(8_000_000_000, 8_000_000_000))
    assert (0, "/d/f") in differences(trees)


@pytest.mark.root
def test_whiteouts_and_opaque_directories(trees: Path) -> None:
    os.mknod(trees / "upper/d/f", stat.S_IFCHR, 0)
    os.mknod(trees / "upper/d/never", stat.S_IFCHR, 0)
    os.setxattr(trees / "upper/d/e", "trusted.overlay.opaque", b"y")
    (trees / "upper/d/e/new").write_text("x")
    assert differences(trees) == {(0, "/d"), (2, "/d/f"), (0, "/d/e"), (2, "/d/e/g"), (1, "/d/e/new")}
    archive = joined(changes.layer(opened(trees / "upper"), 3)) + writer.END
    with tarfile.open(fileobj=io.BytesIO(archive)) as layer:
        assert layer.getnames() == ["d", "d/e", "d/e/.wh..wh..opq", "d/e/new", "d/.wh.f", "d/.wh.never"]
        assert {item.mtime for item in layer.getmembers()} == {3}
        assert not any("overlay" in key for item in layer.getmembers() for key in item.pax_headers)


def test_mount_points_of_the_engine_are_no_change(trees: Path) -> None:
    (trees / "upper/sys").mkdir()
    (trees / "upper/etc").mkdir()
    for name in ("hosts", "hostname"):
        (trees / "upper/etc" / name).touch()
    own = {b"sys", b"etc", b"etc/hosts", b"etc/hostname"}

    def found() -> set[tuple[int, bytes]]:
        return set(changes.changes(opened(trees / "upper"), opened(trees / "lower"), own))

    assert found() == set()
    (trees / "upper/etc/hostname").write_text("another")
    (trees / "upper/etc/mine").touch()
    assert found() == {(0, b"/etc"), (1, b"/etc/hostname"), (1, b"/etc/mine")}
    archive = joined(changes.layer(opened(trees / "upper"), None, own)) + writer.END
    with tarfile.open(fileobj=io.BytesIO(archive)) as layer:
        assert layer.getnames() == ["d", "d/e", "etc", "etc/hostname", "etc/mine", "sys"]


def test_directories_made_for_mount_points_are_no_change(trees: Path) -> None:
    upper = trees / "upper"
    for path in ("run/secrets/empty", "d/e", "kept/inner", "root"):
        (upper / path).mkdir(parents=True, exist_ok=True)
    for path in ("run/secrets/s", "d/e/s", "kept/inner/s", "kept/mine"):
        (upper / path).touch()
    without = {b"run/secrets/s", b"run/secrets/empty", b"d/e/s", b"kept/inner/s", b"root/.cache/pip"}
    archive = joined(changes.layer(opened(upper), None, (), without, opened(trees / "lower"))) + writer.END
    with tarfile.open(fileobj=io.BytesIO(archive)) as layer:
        assert layer.getnames() == ["d", "d/e", "kept", "kept/mine"]


@pytest.mark.root
def test_redirects_are_refused(trees: Path) -> None:
    os.setxattr(trees / "upper/d/e", "trusted.overlay.redirect", b"/elsewhere")
    with pytest.raises(OSError, match="redirect"):
        joined(changes.layer(opened(trees / "upper"), None))
    with pytest.raises(OSError, match="redirect"):
        differences(trees)
    (trees / "upper/renamed").mkdir()
    os.removexattr(trees / "upper/d/e", "trusted.overlay.redirect")
    os.setxattr(trees / "upper/renamed", "trusted.overlay.redirect", b"/d")
    with pytest.raises(OSError, match="redirect"):
        differences(trees)


def test_xattrs_that_mean_something_are_kept(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    os.setxattr(tmp_path / "f", "user.note", b"kept")
    os.setxattr(tmp_path / "f", "user.overlay.opaque", b"y")
    (tmp_path / "out").mkdir()
    extract(packed(tmp_path, b"f", b"f"), tmp_path / "out")
    assert os.listxattr(tmp_path / "out/f") == ["user.note"]


def test_a_first_name_that_vanishes_is_no_links_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/p").write_text("content")
    os.link(tmp_path / "t/p", tmp_path / "t/q")
    os.link(tmp_path / "t/p", tmp_path / "t/r")
    real = os.open

    def vanishing(name: bytes, flags: int, **options: int) -> int:
        if name == b"p":
            raise FileNotFoundError(2, "No such file or directory", name)
        return real(name, flags, **options)

    monkeypatch.setattr(os, "open", vanishing)
    pieces = joined(Packer().below(real(tmp_path / "t", os.O_RDONLY), b"")) + writer.END
    with tarfile.open(fileobj=io.BytesIO(pieces)) as archive:
        assert [(member.name, member.linkname) for member in archive] == [("q", ""), ("r", "q")]


def from_pipe(archive: bytes, path: Path) -> int:
    """Extract what a pipe gives, as a worker does. How many bytes were moved unseen."""
    reader, writer = os.pipe()

    def feed() -> None:
        with suppress(BrokenPipeError), os.fdopen(writer, "wb") as file:
            file.write(archive)

    feeding = threading.Thread(target=feed)
    feeding.start()
    moved: list[int] = []
    owner = None if os.geteuid() == 0 else (-1, -1)
    try:
        with TreeExtractor(opened(path), None, owner=owner) as extractor:
            extractor.apply(TarReader(PipeSource(reader, lambda limit: os.read(reader, limit), moved.append)))
    finally:
        os.close(reader)
        feeding.join()
    return sum(moved)


def test_large_files_are_moved_and_holes_stay(tmp_path: Path) -> None:
    data = os.urandom(5 << 20)
    files = {"data": data, "small": b"x" * 3000, "holes": bytes(4 << 20) + data[: 1 << 20] + bytes(8 << 20) + b"end", "last": data[::-1]}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    moved = from_pipe(buffer.getvalue(), tmp_path)
    for name, content in files.items():
        assert (tmp_path / name).read_bytes() == content
    assert (tmp_path / "holes").stat().st_blocks * 512 < 3 << 20
    assert moved > 6 << 20


def test_a_pipe_that_ends_within_a_file_is_a_truncated_archive(tmp_path: Path) -> None:
    archive = tar(("f", "f", "x" * (3 << 20)))
    for size in (1 << 20, (2 << 20) + 7, 513):
        with pytest.raises(TruncatedArchive):
            from_pipe(archive[:size], tmp_path)


def test_what_goes_through_an_outlet_is_the_same_archive(tree: Path) -> None:
    reader, writer_fd = os.pipe()
    got: list[bytes] = []

    def read() -> None:
        with os.fdopen(reader, "rb") as file:
            got.append(file.read())

    reading = threading.Thread(target=read)
    reading.start()
    outlet = Outlet(writer_fd)
    pieces = 0
    for piece in Packer(outlet=outlet).tree(opened(tree), b"tree", b"t"):
        outlet.write(piece)
        pieces += len(piece)
    outlet.flush()
    os.close(writer_fd)
    reading.join()
    assert got[0] + writer.END == packed(tree, b"tree", b"t")
    assert pieces < len(got[0]) - (2 << 20)
