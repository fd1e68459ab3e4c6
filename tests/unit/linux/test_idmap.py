"""Maps of ID-mapped mounts: one ID becomes another, all others stay or have no name, none is there twice."""

import fcntl
import itertools
import os
from pathlib import Path

import pytest

from sampan.linux.idmap import new_namespaces, outside, ranges

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


@pytest.mark.root
def test_new_namespaces_are_the_new_user_namespaces() -> None:
    get_owner = 0xB701  # ioctl_ns(2) NS_GET_USERNS
    found = new_namespaces([(0, 700_000, 1000)], [(0, 700_000, 1000)], ["net", "uts"])
    assert list(found) == ["user", "net", "uts"]
    user, net, uts = found.values()
    owners = [fcntl.ioctl(fd, get_owner) for fd in (net, uts)]
    assert all(os.path.samestat(os.fstat(owner), os.fstat(user)) for owner in owners)
    for fd in (*found.values(), *owners):
        os.close(fd)


@pytest.mark.root
def test_maps_that_the_kernel_refuses_leave_nothing() -> None:
    before, children = os.listdir("/proc/self/fd"), Path("/proc/thread-self/children").read_text()
    with pytest.raises(OSError, match="Invalid argument"):
        new_namespaces([(0, 700_000, 1000), (1000, 700_500, 1000)], [(0, 700_000, 1000)], ["net"])
    assert os.listdir("/proc/self/fd") == before
    assert Path("/proc/thread-self/children").read_text() == children
