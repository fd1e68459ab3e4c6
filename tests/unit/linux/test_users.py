"""user[:group] by the container's tables, as docker reads them."""

import contextlib
import os
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sampan.linux import users

PASSWD = b"""root:x:0:0:root:/root:/bin/sh
app:x:1000:1001::/home/app:/bin/sh
12:x:5:6::/odd:
  spaced:x:7:7::/spaced:
#c:x:8:8::/c:
bad:x:zz:9::/bad:
short:x:10
toor:x:0:0::/toor:
\x0c\xffraw:x:11:11::/raw:"""
GROUP = b"root:x:0:\n#no:x:3:app\n\nwheel:x:10:root,app\napp:x:1001:\naudio:x:29:app\n1001:x:55:\naudio:x:30:\n"

MakeTables = Callable[[bytes, bytes], tuple[users.Table, users.Table]]


@pytest.fixture
def tables(tmp_path: Path) -> Iterator[MakeTables]:
    """A function that makes the two tables of two files' contents."""
    fds: list[int] = []

    def make(passwd: bytes, group: bytes) -> tuple[users.Table, users.Table]:
        for name, data in (("passwd", passwd), ("group", group)):
            (tmp_path / name).write_bytes(data)
            fds.append(os.open(tmp_path / name, os.O_RDONLY))
        return users.passwd_table(fds[-2]), users.group_table(fds[-1])

    yield make
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, [0, 10], "/root")),
        ("app", (1000, 1001, [1001, 10, 29], "/home/app")),
        ("1000", (1000, 1001, [1001, 10, 29], "/home/app")),
        ("app:audio", (1000, 29, [29], "/home/app")),
        ("app:77", (1000, 77, [77], "/home/app")),
        ("4000", (4000, 0, [0], "/")),
        ("12", (12, 0, [0], "/")),
        ("spaced", (7, 7, [7], "/spaced")),
        ("007", (7, 7, [7], "/spaced")),
        ("+7", (7, 7, [7], "/spaced")),
        ("#c", (8, 8, [8], "/c")),
        ("bad", (0, 9, [9], "/root")),
        ("toor", (0, 0, [0], "/root")),
        ("short", (10, 0, [0], "")),
        ("\udcffraw", (11, 11, [11], "/raw")),
        ("app:1001", (1000, 1001, [1001], "/home/app")),
        (":", (0, 0, [0, 10], "/root")),
        (":audio", (0, 29, [29], "/root")),
    ],
)
def test_forms(user: str, expected: tuple[int, int, list[int], str], tables: MakeTables) -> None:
    """What dockerd 28 made of each of these, by `docker run -u`."""
    found = users.lookup(user, [], *tables(PASSWD, GROUP))
    users.check(user, *tables(PASSWD, GROUP))
    assert (found.uid, found.gid, found.groups, found.home) == expected


def test_added_groups_by_name_and_number(tables: MakeTables) -> None:
    assert users.lookup("app", ["audio", "88"], *tables(PASSWD, GROUP)).groups == [1001, 10, 29, 88]


@pytest.mark.parametrize(
    ("user", "groups", "message"),
    [
        ("nobody", [], "unable to find user nobody: no matching entries in passwd file"),
        ("app:none", [], "unable to find group none: no matching entries in group file"),
        ("app", ["none"], "unable to find group none: no matching entries in group file"),
        ("99999999999", [], "uids and gids must be in range 0-2147483647"),
        ("-1", [], "uids and gids must be in range 0-2147483647"),
        ("app:-5", [], "uids and gids must be in range 0-2147483647"),
        ("app", ["-3"], "uids and gids must be in range 0-2147483647"),
        ("app:audio:x", [], "unable to find group audio:x: no matching entries in group file"),
    ],
)
def test_failures(user: str, groups: list[str], message: str, tables: MakeTables) -> None:
    with pytest.raises(users.LookupFailure) as caught:
        users.lookup(user, groups, *tables(PASSWD, GROUP))
    assert caught.value.message == message
    if not groups:
        with pytest.raises(users.LookupFailure) as caught:
            users.check(user, *tables(PASSWD, GROUP))
        assert caught.value.message == message


def test_tables_that_are_no_files_are_empty(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    assert list(users.passwd_table(fd).rows()) == []
    os.close(fd)
    assert list(users.passwd_table(-1).rows()) == []


EIGHT = 8 << 20


@pytest.mark.parametrize(
    ("passwd", "group"),
    [
        (b"\n" * 200_000, b"\n" * 200_000),
        (b"a:x:1:1::/:\n" * 50_000, b"b:x:2:app\n" * 50_000),
        ((b"x" * 65000 + b"\n") * 64, (b"y" * 1_000_000 + b"\n") * 4),
    ],
)
def test_huge_tables_cost_no_memory(passwd: bytes, group: bytes, tables: MakeTables) -> None:
    """Docker reads line by line; to keep all rows takes 90 times their bytes."""
    made = tables(passwd, group)
    for user in ("app", "root:app", "1:b"):
        tracemalloc.start()
        for search in (users.check, lambda user, *made: users.lookup(user, [], *made)):
            with contextlib.suppress(users.LookupFailure):
                search(user, *made)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 6 << 20


@pytest.mark.parametrize(
    ("user", "passwd", "group", "message"),
    [
        ("app", b"x" * 140_000 + b"\n" + PASSWD, GROUP, f"unable to find user app: {users.TOO_LONG}"),
        ("app", PASSWD, b"x" * 1_200_000 + b"\n", f"unable to find groups for spec app: {users.TOO_LONG}"),
        ("none", b"\n" * (EIGHT + 1), GROUP, "unable to find user none: the file has more than 8388608 bytes"),
        ("app", PASSWD, b"".join(b"g:x:%d:app\n" % gid for gid in range(65537)), "unable to find groups for spec app: too many groups"),
    ],
)
def test_tables_beyond_the_bounds_are_refused(user: str, passwd: bytes, group: bytes, message: str, tables: MakeTables) -> None:
    with pytest.raises(users.LookupFailure) as caught:
        users.lookup(user, [], *tables(passwd, group))
    assert caught.value.message == message
