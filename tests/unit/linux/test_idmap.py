"""Maps of ID-mapped mounts: one ID becomes another, all others stay or have no name, none is there twice."""

import itertools

import pytest

from sampan.linux.idmap import outside, ranges

LAST = 2**32 - 2


@pytest.mark.parametrize(
    ("on_disk", "inside", "found"),
    [
        (5, 5, [(0, 0, LAST + 1)]),
        (0, 1, [(0, 1, 1), (2, 2, LAST - 1)]),
        (1000, 0, [(1000, 0, 1), (1, 1, 999), (1001, 1001, LAST - 1000)]),
        (3, 7, [(3, 7, 1), (0, 0, 3), (4, 4, 3), (8, 8, LAST - 7)]),
        (LAST, 0, [(LAST, 0, 1), (1, 1, LAST - 1)]),
    ],
)
def test_ranges(on_disk: int, inside: int, found: list[tuple[int, int, int]]) -> None:
    assert ranges(on_disk, inside) == found
    for column in (0, 1):
        spans = sorted((entry[column], entry[column] + entry[2]) for entry in found)
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))
        assert spans[-1][1] <= LAST + 1


def test_ids_outside() -> None:
    table = [(0, 100000, 1000), (1000, 500000, 64536)]
    assert [outside(table, number) for number in (0, 999, 1000, 65535)] == [100000, 100999, 500000, 564535]
    with pytest.raises(OSError, match="ID 65536 is not mapped"):
        outside(table, 65536)
