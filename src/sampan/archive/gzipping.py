"""gzip for layers that go out: the same bytes on every machine, by several cores at once.

Two engines that push the same layer must come to the same digest, so that the second sends nothing. isal's bytes depend on what the
processor can do; but at level 1 they are the same on all x86-64 since SSE 4.2 (compared: 370 MB on AVX-512, and under qemu as Haswell and
Nehalem). So isal is used where it makes the reference bytes of a sample, which older or other processors and other versions may not;
there zlib does it, four times slower and with digests of its own.
"""

import hashlib
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from typing import Any, Final

from sampan.archive.compression import Read

_isal: Any
try:
    from isal import isal_zlib as _isal
except ImportError:  # pragma: no cover - depends on the installation
    _isal = None

LEVEL: Final = 1
"""Higher ones are no longer the same everywhere."""
BLOCK: Final = 1 << 20
"""Bytes that one thread compresses at a time. Part of what determines the result: never to be changed without need."""
SAMPLE_DIGEST: Final = "7234f86d84f206b6c71f3055e9a8ec681e53e23a31f53dacaacb6120fdbc3928"
"""sha256 of what isal makes of the sample where all is as it should be."""
_WINDOW: Final = 1 << 15
_HEADER: Final = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
"""No name, no time, no system (RFC 1952 §2.3.1)."""
_LAST: Final = b"\x03\0"
"""An empty final block (RFC 1951 §3.2.3)."""


def compressed(read: Read, threads: int = 0) -> Iterator[bytes]:
    """The pieces of a gzip stream of all that read gives. threads: how many compress at once; 0: one for each core, four at the most."""
    count = threads or min(4, os.cpu_count() or 1)
    library = _library()
    checksum, size, before = 0, 0, b""
    yield _HEADER
    with ThreadPoolExecutor(count) as pool:
        pending: deque[Future[bytes]] = deque()
        while block := _full(read):
            pending.append(pool.submit(deflated, library, block, before))  # without the interpreter's lock
            checksum, size, before = zlib.crc32(block, checksum), size + len(block), block[-_WINDOW:]
            if len(pending) > count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    yield _LAST + struct.pack("<II", checksum, size & 0xFFFFFFFF)


def _full(read: Read) -> bytes:
    """The next BLOCK bytes, however they come; fewer at the end only."""
    pieces: list[bytes] = []
    left = BLOCK
    while left and (piece := read(left)):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)


def deflated(library: Any, block: bytes, before: bytes) -> bytes:
    """A block as whole bytes of a deflate stream, which may refer to what came before it. library: zlib or isal's module like it."""
    dictionary = (before,) if before else ()  # isal refuses an empty one
    compressor = library.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_DEFAULT_STRATEGY, *dictionary)
    return bytes(compressor.compress(block) + compressor.flush(zlib.Z_SYNC_FLUSH))


@cache
def _library() -> Any:
    """isal if it makes the reference bytes here, else zlib."""
    if _isal is not None and hashlib.sha256(deflated(_isal, sample(), b"")).hexdigest() == SAMPLE_DIGEST:
        return _isal
    return zlib


def sample() -> bytes:
    """Some 200 KB in which every way of finding repetitions finds others: words in no order, noise, zeros."""
    noise = hashlib.shake_128(b"sampan").digest(1 << 15)
    words = [noise[at * 11 : at * 11 + 3 + noise[at] % 8] for at in range(2048)]
    text = b"".join(words[noise[at] << 3 | noise[at + 1] & 7] for at in range(len(noise) - 1))
    return text + noise + bytes(1 << 14)
