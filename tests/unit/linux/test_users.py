"""user[:group] by the container's tables, as docker reads them."""

import pytest

from sampan.linux import users

PASSWD = [line.split(":") for line in ("root:x:0:0:root:/root:/bin/sh", "app:x:1000:1001::/home/app:/bin/sh", "12:x:5:6::/odd:")]
GROUP = [line.split(":") for line in ("root:x:0:", "wheel:x:10:root,app", "app:x:1001:", "audio:x:29:app")]


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, [0, 10], "/root")),
        ("app", (1000, 1001, [1001, 10, 29], "/home/app")),
        ("1000", (1000, 1001, [1001, 10, 29], "/home/app")),
        ("app:audio", (1000, 29, [29], "/home/app")),
        ("app:77", (1000, 77, [77], "/home/app")),
        ("4000", (4000, 0, [0], "")),
        ("12", (5, 6, [6], "/odd")),
        (":audio", (0, 29, [29], "/root")),
    ],
)
def test_forms(user: str, expected: tuple[int, int, list[int], str]) -> None:
    found = users.lookup(user, [], PASSWD, GROUP)
    assert (found.uid, found.gid, found.groups, found.home) == expected


def test_added_groups_by_name_and_number() -> None:
    assert users.lookup("app", ["audio", "88"], PASSWD, GROUP).groups == [1001, 10, 29, 88]


@pytest.mark.parametrize(
    ("user", "groups", "message"),
    [
        ("nobody", [], "unable to find user nobody: no matching entries in passwd file"),
        ("app:none", [], "unable to find group none: no matching entries in group file"),
        ("app", ["none"], "unable to find group none: no matching entries in group file"),
        ("99999999999", [], "uids and gids must be in range 0-2147483647"),
    ],
)
def test_failures(user: str, groups: list[str], message: str) -> None:
    with pytest.raises(users.LookupFailure) as caught:
        users.lookup(user, groups, PASSWD, GROUP)
    assert caught.value.message == message


def test_tables_that_are_no_files_are_empty(tmp_path: object) -> None:
    import os

    fifo = f"{tmp_path}/fifo"
    os.mkfifo(fifo)
    assert users.read_table(fifo) == []
    assert users.read_table(f"{tmp_path}/missing") == []
