"""Compression that comes to the same bytes everywhere."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable

import pytest

from sampan.archive import gzipping
from sampan.archive.gzipping import BLOCK, compressed


def sample(size: int) -> bytes:
    """Bytes that compress somewhat: hashes of a counter, halved to an alphabet of sixteen."""
    blocks = (hashlib.sha256(number.to_bytes(8, "big")).hexdigest().encode() for number in range(size // 64 + 1))
    return b"".join(blocks)[:size]


def short(data: bytes, most: int) -> Callable[[int], bytes]:
    """A stream that gives no more than so many bytes at a time."""
    file = io.BytesIO(data)
    return lambda limit: file.read(min(limit, most))


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 7])
def test_what_goes_in_comes_out(size: int) -> None:
    assert gzip.decompress(b"".join(compressed(io.BytesIO(sample(size)).read))) == sample(size)


def test_neither_threads_nor_pieces_make_a_difference() -> None:
    data = sample(3 * BLOCK + 7)
    one = b"".join(compressed(io.BytesIO(data).read, threads=1))
    assert b"".join(compressed(io.BytesIO(data).read, threads=4)) == one
    assert b"".join(compressed(short(data, 10_007), threads=2)) == one


@pytest.mark.parametrize(
    ("library", "digest"),
    [
        ("isal", "00a8884c56f0f3272854ee9f3374cbfb6ea970aa69f029e64e5664320d55404d"),
        ("zlib", "c29e4a088fffe06015765e82c8fbb65729a7127b9de3a1b70578fde652850f8f"),
    ],
)
def test_the_bytes_never_change(library: str, digest: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever changes this makes every layer that anybody has pushed be sent again."""
    if library == "isal":
        assert gzipping._library() is gzipping._isal, "isal makes other bytes here than elsewhere"
    else:
        if "ng" in zlib.ZLIB_RUNTIME_VERSION:
            pytest.skip("zlib-ng has bytes of its own")
        monkeypatch.setattr(gzipping, "_library", lambda: zlib)
    data = b"".join(compressed(io.BytesIO(sample(2 * BLOCK + 5)).read))
    assert hashlib.sha256(data).hexdigest() == digest
    assert gzip.decompress(data) == sample(2 * BLOCK + 5)


def test_an_isal_with_bytes_of_its_own_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gzipping, "SAMPLE_DIGEST", "another")
    gzipping._library.cache_clear()
    try:
        assert gzipping._library() is zlib
    finally:
        gzipping._library.cache_clear()
