"""Compression that comes to the same bytes everywhere."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Callable

import pytest

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


@pytest.mark.skipif("ng" in zlib.ZLIB_RUNTIME_VERSION, reason="zlib-ng has bytes of its own")
def test_the_bytes_never_change() -> None:
    """Whoever changes this makes every layer that anybody has pushed be sent again."""
    data = b"".join(compressed(io.BytesIO(sample(2 * BLOCK + 5)).read))
    assert hashlib.sha256(data).hexdigest() == "c29e4a088fffe06015765e82c8fbb65729a7127b9de3a1b70578fde652850f8f"
