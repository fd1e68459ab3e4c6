"""What the tar reader makes of headers."""

import io
import tarfile

import pytest

from sampan.archive.reader import BLOCK, TarReader
from sampan.archive.source import Source
from sampan.archive.writer import END


class Leaping(Source):
    """An archive without the data of its large files: passing over that is only counted."""

    def skip(self, size: int) -> None:
        if size <= BLOCK:
            super().skip(size)
        else:
            self.consumed += size


@pytest.mark.parametrize("size", [(8 << 30) - 1, 8 << 30, (9 << 30) + 1, 1 << 50])
def test_a_size_of_any_number_in_an_ordinary_header(size: int) -> None:
    """GNU's form, base-256, where eleven octal digits are too few."""
    large, small = tarfile.TarInfo("large"), tarfile.TarInfo("small")
    large.size, small.size = size, 3
    header = large.tobuf(tarfile.GNU_FORMAT)
    assert len(header) == BLOCK
    assert (header[124] == 0x80) == (size >= 8 << 30)
    source = Leaping(io.BytesIO(header + small.tobuf(tarfile.GNU_FORMAT) + b"abc" + bytes(BLOCK - 3) + END).read)
    assert [(entry.name, entry.size, entry.stored) for entry in TarReader(source)] == [(b"large", size, size), (b"small", 3, 3)]
