"""What a layer file costs beside its bytes on disk."""

import ctypes
import mmap
import os
import tempfile
from pathlib import Path

from sampan.archive import layerfile
from tests.support.layers import index
from tests.support.tars import tar

SIZE = 8 << 20


def resident(path: Path) -> int:
    """Bytes of a file in the page cache."""
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE) as mapped:
        pages = -(-len(mapped) // mmap.PAGESIZE)
        found = (ctypes.c_ubyte * pages)()
        first = ctypes.c_char.from_buffer(mapped)
        try:
            assert ctypes.CDLL(None, use_errno=True).mincore(ctypes.byref(first), ctypes.c_size_t(len(mapped)), found) == 0
        finally:
            del first
        return sum(page & 1 for page in found) * mmap.PAGESIZE


def test_the_page_cache_of_the_tar_is_given_back() -> None:
    with tempfile.TemporaryDirectory(prefix="sampan-test-", dir="/var/tmp") as directory:
        path = Path(directory, "layer")
        index(tar(("f", "file", "x" * SIZE)), path)
        assert resident(path) > SIZE
        layerfile.settle(path)
        assert resident(path) < SIZE // 8
        fd = os.open(path, os.O_RDONLY)
        assert b"".join(layerfile.tar_of(fd)) == tar(("f", "file", "x" * SIZE))
        assert resident(path) > SIZE // 2
        layerfile.cool(fd)
        os.close(fd)
        assert resident(path) < SIZE // 8
