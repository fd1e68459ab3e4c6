"""Compression by content: every kind, in small reads, damaged, and without the optional libraries."""

import bz2
import gzip
import io
import itertools
import lzma
import os
import zlib
from collections.abc import Callable

import pytest

from sampan.archive import compression
from sampan.archive.compression import MEMBER_MIN, MEMBERS_FREE, Compression, CompressionError, decompress, detect, peek

PLAIN = b"some text " * 50_000 + os.urandom(1000)


def read_all(data: bytes, step: int = 4096) -> bytes:
    file = io.BytesIO(data)
    head, read = peek(lambda limit: file.read(min(limit, step)))
    plain = decompress(detect(head), read)
    return b"".join(iter(lambda: plain(5000), b""))


def plain_of(kind: Compression, data: bytes) -> bytes:
    read = decompress(kind, io.BytesIO(data).read)
    return b"".join(iter(lambda: read(1 << 20), b""))


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress], ids=["", "gzip", "bzip2", "xz"])
@pytest.mark.parametrize("step", [1, 4096, 1 << 20])
def test_each_kind(compress: "type[bytes]", step: int) -> None:
    small = PLAIN[:2000] if step == 1 else PLAIN
    assert read_all(compress(small), step) == small


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_streams_one_after_the_other(compress: "type[bytes]") -> None:
    assert read_all(compress(PLAIN) + compress(b"more")) == PLAIN + b"more"


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_every_kind_of_gzip_header(step: int) -> None:
    body = gzip.compress(b"x" * 1000)[10:]
    for flags in range(32):
        header = b"\x1f\x8b\x08" + bytes((flags,)) + bytes(5) + b"\3"
        header += b"\5\0extra" if flags & 4 else b""
        header += b"name\0" if flags & 8 else b""
        header += b"comment\0" if flags & 16 else b""
        header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little") if flags & 2 else b""
        assert read_all((header + body) * 2, step) == b"x" * 2000, flags
    with pytest.raises(CompressionError, match="unknown header flags"):
        read_all(b"\x1f\x8b\x08\x20" + bytes(6) + body, step)


@pytest.mark.parametrize("step", [1, 7, 4096])
def test_padding_between_streams(step: int) -> None:
    assert read_all(lzma.compress(b"one") + bytes(16) + lzma.compress(b" two") + bytes(4), step) == b"one two"


def test_what_follows_the_last_member_is_ignored_as_gzip_does() -> None:
    assert read_all(gzip.compress(PLAIN) + bytes(512)) == PLAIN


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress], ids=["gzip", "bzip2", "xz"])
def test_a_cut_stream_is_refused(compress: "type[bytes]") -> None:
    with pytest.raises(CompressionError):
        read_all(compress(PLAIN)[:-20])


def test_a_damaged_stream_is_refused() -> None:
    damaged = bytearray(gzip.compress(PLAIN))
    damaged[500] ^= 0xFF
    with pytest.raises(CompressionError, match=r"invalid compressed data|unexpected EOF"):
        read_all(bytes(damaged))


def test_without_isal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "_inflate", zlib)
    assert read_all(gzip.compress(PLAIN)) == PLAIN


def test_zstd_without_its_library_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression, "zstandard", None)
    with pytest.raises(CompressionError, match="pip install"):
        read_all(b"\x28\xb5\x2f\xfd" + bytes(20))


def test_zstd() -> None:
    zstandard = pytest.importorskip("zstandard")
    compress = zstandard.ZstdCompressor().compress
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
    assert read_all(skippable + compress(PLAIN) + compress(b"more")) == PLAIN + b"more"


def test_a_bomb_takes_little_memory() -> None:
    bomb = gzip.compress(bytes(64 << 20))
    file = io.BytesIO(bomb)
    read = decompress("gzip", file.read)
    assert max(len(piece) for piece in iter(lambda: read(1 << 30), b"")) <= 1 << 20


@pytest.mark.parametrize("size", ["as xz -9 asks for", "far more"])
def test_the_memory_that_a_stream_asks_for_has_a_bound(size: str) -> None:
    """A small stream whose header says that it wants a large dictionary."""
    xz = bytearray(lzma.compress(b"x"))
    assert xz[14:16] == b"\x21\x01"  # of the block's header: LZMA2, one byte of properties
    xz[16] = 28 if size != "far more" else 36  # 64 MiB, 1 GiB
    xz[20:24] = zlib.crc32(xz[12:20]).to_bytes(4, "little")
    zstd = b"\x28\xb5\x2f\xfd\0" + bytes((17 << 3 if size != "far more" else 20 << 3,)) + b"\x09\0\0x"  # a window of 128 MiB, 1 GiB
    for stream, problem in ((bytes(xz), "Memory usage limit exceeded"), (zstd, "too much memory")):
        if size != "far more":
            assert read_all(stream) == b"x"
        else:
            with pytest.raises(CompressionError, match=problem):
                read_all(stream)


@pytest.mark.parametrize(("kind", "compress"), [("gzip", gzip.compress), ("bzip2", bz2.compress), ("xz", lzma.compress)])
def test_tiny_members_without_end_are_refused(kind: Compression, compress: Callable[[bytes], bytes]) -> None:
    """Each costs a hundred times what its bytes do."""
    few = compress(b"") * (MEMBERS_FREE - 1) + compress(b"x")
    assert plain_of(kind, few) == b"x"
    for content in (b"", b"x", b"x" * (MEMBER_MIN - 1)):
        endless = itertools.cycle([compress(content) * 100])
        read = decompress(kind, lambda _limit, endless=endless: next(endless))  # type: ignore[misc]
        with pytest.raises(CompressionError, match=r"\d+ compressed streams hold \d+ bytes: this is not a real archive"):
            list(iter(lambda read=read: read(1 << 20), b""))  # type: ignore[misc]


def test_archives_with_a_member_for_each_file() -> None:
    assert len(plain_of("gzip", gzip.compress(os.urandom(MEMBER_MIN)) * 20 * MEMBERS_FREE)) == 20 * MEMBERS_FREE * MEMBER_MIN


def test_an_error_of_the_disk_is_not_the_archives() -> None:
    def broken(_limit: int) -> bytes:
        raise OSError(5, "Input/output error")

    for kind in ("gzip", "bzip2", "xz"):
        with pytest.raises(OSError, match="Input/output error"):
            decompress(kind, broken)(10)

    damaged = bytearray(bz2.compress(b"x" * 1000))
    damaged[20] ^= 255
    with pytest.raises(CompressionError, match="invalid compressed data"):
        decompress("bzip2", io.BytesIO(bytes(damaged)).read)(10)
