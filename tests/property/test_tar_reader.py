"""The tar reader agrees with tarfile and GNU tar, and refuses garbage without hanging, crashing or reading without bound."""

import contextlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.archive import writer
from sampan.archive.reader import DIRECTORY, REGULAR, SYMLINK, Entry, InvalidArchive, TarReader, parse_pax
from sampan.archive.source import Source, TruncatedArchive


def reader_of(archive: bytes, step: int = 1 << 20) -> TarReader:
    file = io.BytesIO(archive)
    return TarReader(Source(lambda limit: file.read(min(limit, step))))


def read_all(archive: bytes, step: int = 1 << 20) -> list[tuple[Entry, bytes]]:
    reader = reader_of(archive, step)
    return [(entry, b"".join(bytes(piece) for piece in reader.data())) for entry in reader]


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=200).filter(
    lambda name: name not in (".", "..")
)
kinds = st.sampled_from(["file", "directory", "symlink"])
members = st.lists(
    st.tuples(names, kinds, st.binary(max_size=3000), st.integers(0, 2**40), st.integers(0, 2**33)),
    max_size=6,
)


@given(members, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.integers(1, 2000))
def test_agrees_with_tarfile(members: list[tuple[str, str, bytes, int, int]], format: int, step: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, encoding="utf-8", errors="surrogateescape") as tar:
        for name, kind, content, uid, mtime in members:
            info = tarfile.TarInfo(name)
            info.uid, info.gid, info.mtime, info.mode = uid, uid // 2, mtime, 0o640
            info.pax_headers = {"SCHILY.xattr.user.x": "v"} if format == tarfile.PAX_FORMAT else {}
            if kind == "file":
                info.size = len(content)
            elif kind == "directory":
                info.type = tarfile.DIRTYPE
            else:
                info.type, info.linkname = tarfile.SYMTYPE, name * 2
            tar.addfile(info, io.BytesIO(content))
    found = read_all(buffer.getvalue(), step)
    assert len(found) == len(members)
    for (entry, data), (name, kind, content, uid, mtime) in zip(found, members, strict=True):
        assert entry.name.rstrip(b"/") == name.encode().rstrip(b"/")
        assert (entry.uid, entry.gid, entry.mtime_ns, entry.mode) == (uid, uid // 2, mtime * 10**9, 0o640)
        assert entry.type == {"file": REGULAR, "directory": DIRECTORY, "symlink": SYMLINK}[kind]
        assert data == (content if kind == "file" else b"")
        assert entry.link == ((name * 2).encode() if kind == "symlink" else b"")
        assert entry.xattrs == ({b"user.x": b"v"} if format == tarfile.PAX_FORMAT else {})


@given(
    st.binary(min_size=1, max_size=300).filter(lambda b: b"\0" not in b),
    st.binary(max_size=50),
    st.integers(0, 2**62),
    st.integers(-(2**40), 2**40),
)
def test_our_writer_is_read_back(name: bytes, value: bytes, uid: int, mtime: int) -> None:
    archive = (
        writer.header(name, REGULAR, mode=0o755, uid=uid, size=3, mtime=mtime, xattrs={b"user.k": value})
        + b"abc"
        + writer.padding(3)
        + writer.END
    )
    [(entry, data)] = read_all(archive)
    assert entry.name == name
    assert (entry.uid, entry.mtime_ns, entry.xattrs, data) == (uid, mtime * 10**9, {b"user.k": value}, b"abc")


@given(st.binary(max_size=4096))
def test_garbage_is_refused_or_read(garbage: bytes) -> None:
    with contextlib.suppress(InvalidArchive, TruncatedArchive):
        read_all(garbage)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_archive_is_refused_or_read(data: st.DataObject) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("x" * 150)
        info.size = 5
        tar.addfile(info, io.BytesIO(b"hello"))
    damaged = bytearray(buffer.getvalue()[:3072])
    for position in data.draw(st.lists(st.integers(0, len(damaged) - 1), max_size=5)):
        damaged[position] = data.draw(st.integers(0, 255))
    start = data.draw(st.sampled_from([0, 1024]))
    # a right checksum, so that damage gets beyond it
    damaged[start + 148 : start + 156] = b" " * 8
    damaged[start + 148 : start + 156] = f"{sum(damaged[start : start + 512]):06o}\0 ".encode()
    with contextlib.suppress(InvalidArchive, TruncatedArchive):
        read_all(bytes(damaged))


@given(st.binary(max_size=200))
def test_pax_records_are_refused_or_read(payload: bytes) -> None:
    with contextlib.suppress(InvalidArchive):
        list(parse_pax(payload))


@pytest.mark.parametrize("options", [["--format=gnu"], ["--format=pax", "--sparse-version=0.0"], ["--format=pax", "--sparse-version=0.1"],
                                     ["--format=pax", "--sparse-version=1.0"]])  # fmt: skip
def test_gnu_tars_sparse_files(tmp_path: Path, options: list[str]) -> None:
    fragments = {0: b"begin", 1 << 20: b"middle" * 1000, 5 << 20: b"end"}
    with (tmp_path / "sparse").open("wb") as file:
        for offset, content in fragments.items():
            file.seek(offset)
            file.write(content)
        file.truncate(6 << 20)
    command = ["tar", "-C", str(tmp_path), *options, "--sparse", "-cf", "-", "sparse"]
    archive = subprocess.run(command, capture_output=True, check=True, timeout=20).stdout
    assert len(archive) < 1 << 20
    [(entry, data)] = read_all(archive)
    assert (entry.name, entry.size, entry.type) == (b"sparse", 6 << 20, REGULAR)
    assert entry.sparse is not None
    whole = bytearray(entry.size)
    position = 0
    for offset, length in entry.sparse:
        whole[offset : offset + length] = data[position : position + length]
        position += length
    assert bytes(whole) == (tmp_path / "sparse").read_bytes()


def test_gnu_tars_long_and_odd_names(tmp_path: Path) -> None:
    odd = [b"\xff\xfe not utf-8", b"new\nline", b"x" * 250]
    for name in odd:
        (tmp_path / os.fsdecode(name)).write_bytes(b"1")
    archive = subprocess.run(
        ["tar", "-C", str(tmp_path), "--format=gnu", "-cf", "-", "."], capture_output=True, check=True, timeout=20
    ).stdout
    assert {entry.name for entry, _ in read_all(archive)} == {b"./", *(b"./" + name for name in odd)}


def test_a_huge_extended_header_is_refused() -> None:
    with pytest.raises(InvalidArchive, match="too long"):
        read_all(writer.header(b"x", b"x", mode=0, size=1 << 30) + bytes(1024))


@pytest.mark.parametrize("cut", [1, 511, 513, 700])
def test_a_cut_archive_is_refused(cut: int) -> None:
    archive = writer.header(b"x", REGULAR, mode=0o644, size=1000) + bytes(1000) + writer.padding(1000)
    with pytest.raises(TruncatedArchive):
        read_all(archive[:cut])
