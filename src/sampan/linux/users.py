"""User and group names by the container's own /etc/passwd and /etc/group: hostile files, read line by line with bounds.

Source of the rules: moby/sys/user GetExecUser and GetAdditionalGroups; the primary group is among the supplementary ones (CVE-2022-36109).
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress

_BLOCK = 64 * 1024
_MAX_FILE = 8 * 1024 * 1024
_MAX_ID = 2**31 - 1
_MAX_GROUPS = 65536
"""The kernel's NGROUPS_MAX."""
TOO_LONG = "bufio.Scanner: token too long"
"""What docker says of a line that is longer than it reads."""


class LookupFailure(Exception):
    """A name or number that cannot be used; message in docker's words."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.EINVAL
        self.message = message


class _UnreadableTable(Exception):
    """A table beyond the bounds."""


class Identity:
    """Who the process will be."""

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid, self.gid, self.groups, self.home = uid, gid, groups, home


class Table:
    """The rows of a passwd or group file. Nothing of it is kept: each search reads it again, one block at a time."""

    def __init__(self, fd: int, *, longest: int, comments: bool) -> None:
        """fd: stays the caller's; -1 or anything but a regular file (a FIFO must not hang us) is an empty table.

        longest: bytes a line may have, give or take a block. comments: whether lines that begin with # are none of the table's.
        """
        self._fd = fd if fd >= 0 and stat.S_ISREG(os.fstat(fd).st_mode) else -1
        self._longest, self._comments = longest, comments

    def rows(self, holding: str = "") -> Iterator[list[str]]:
        """The fields of every line that has `holding` somewhere in it. Raises _UnreadableTable."""
        needle = holding.encode(errors="surrogateescape")
        for lines in self._blocks():
            # What can be most of millions of lines is passed over before a line costs more than this test.
            for line in [line for line in lines if needle in line] if needle else lines:
                text = line.decode(errors="surrogateescape").strip()
                if text and not (self._comments and text.startswith("#")):
                    yield text.split(":")

    def _blocks(self) -> Iterator[list[bytes]]:
        """All lines, some at a time."""
        rest, offset = b"", 0
        while self._fd >= 0 and (block := os.pread(self._fd, _BLOCK, offset)):
            offset += len(block)
            if offset > _MAX_FILE:
                raise _UnreadableTable(f"the file has more than {_MAX_FILE} bytes")
            *lines, rest = (rest + block).split(b"\n")
            if len(rest) > self._longest:
                raise _UnreadableTable(TOO_LONG)
            yield lines
        yield [rest]


def passwd_table(fd: int) -> Table:
    """The table of an open /etc/passwd, -1 if there is none."""
    return Table(fd, longest=64 * 1024, comments=False)


def group_table(fd: int) -> Table:
    """The table of an open /etc/group, -1 if there is none."""
    return Table(fd, longest=1024 * 1024, comments=True)


def _number(text: str) -> int | None:
    """As Go's Atoi; None for what is no number."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    return int(text[:40]) if digits.isascii() and digits.isdigit() else None


def _in_range(number: int) -> int:
    if not 0 <= number <= _MAX_ID:
        raise LookupFailure(f"uids and gids must be in range 0-{_MAX_ID}")
    return number


def _argument(text: str) -> int | None:
    """The number that a user or group is given by, None when it is a name. Raises LookupFailure."""
    number = _number(text)
    return None if number is None else _in_range(number)


def _field(row: list[str], index: int) -> str:
    return row[index] if index < len(row) else ""


def _id(row: list[str], index: int) -> int:
    """A number in a row; docker takes what is none for 0."""
    return _number(_field(row, index)) or 0


def _named(table: Table, name: str) -> list[str] | None:
    """The first row of this name."""
    return next((row for row in table.rows(name) if row[0] == name), None)


def _find_user(name: str, number: int | None, passwd: Table) -> list[str] | None:
    """The row of a user, None for a number without one. Raises LookupFailure."""
    try:
        if number is not None:
            # Whatever Atoi takes for this number has its digits in it; but it also takes garbage for 0.
            return next((row for row in passwd.rows(str(number) if number else "") if _id(row, 2) == number), None)
        found = _named(passwd, name)
    except _UnreadableTable as error:
        raise LookupFailure(f"unable to find user {name}: {error}") from None
    if found is None:
        raise LookupFailure(f"unable to find user {name}: no matching entries in passwd file")
    return found


def _find_group(name: str, group: Table) -> int:
    """The gid of a group by name or number. Raises LookupFailure."""
    number = _argument(name)
    if number is not None:
        return number
    try:
        found = _named(group, name)
    except _UnreadableTable as error:
        raise LookupFailure(f"unable to find group {name}: {error}") from None
    if found is None:
        raise LookupFailure(f"unable to find group {name}: no matching entries in group file")
    return _in_range(_id(found, 2))


def _member_of(name: str, group: Table) -> list[int]:
    """The gids of the groups that list a user, each once. Raises LookupFailure."""
    found: dict[int, None] = {}
    try:
        for row in group.rows(name):
            if name in _field(row, 3).split(","):
                found[_in_range(_id(row, 2))] = None
                if len(found) >= _MAX_GROUPS:
                    raise _UnreadableTable("too many groups")
    except _UnreadableTable as error:
        raise LookupFailure(f"unable to find groups for spec {name}: {error}") from None
    return list(found)


def check(user: str, passwd: Table, group: Table) -> None:
    """Whether the names in `user[:group]` exist, which is less to read than lookup(). Raises LookupFailure."""
    name, _, group_name = user.partition(":")
    number = _argument(name)
    if group_name:
        _argument(group_name)
    if name and number is None:
        _find_user(name, None, passwd)
    if group_name:
        _find_group(group_name, group)


def lookup(user: str, groups_add: list[str], passwd: Table, group: Table) -> Identity:
    """The identity of `user[:group]` plus supplementary groups. A number is never taken for a name. Raises LookupFailure."""
    name, _, group_name = user.partition(":")
    number = _argument(name) if name else 0
    row = _find_user(name or "0", number, passwd)
    uid, gid = (number or 0, 0) if row is None else (_in_range(_id(row, 2)), _in_range(_id(row, 3)))
    extra: list[int] = []
    if group_name:
        gid = _find_group(group_name, group)
    elif row is not None and row[0]:
        extra = _member_of(row[0], group)
    # As runc, to which docker tells the number only: of several users with it the first one's home.
    if number is None:
        row = _find_user(name, uid, passwd)
    groups = [gid, *extra, *(_find_group(text, group) for text in groups_add)]
    return Identity(uid, gid, list(dict.fromkeys(groups)), "/" if row is None else _field(row, 5))


def resolve(user: str, groups_add: list[str], opener: Callable[[str, int], int] = os.open) -> Identity:
    """lookup() in the files of the current root, or that of opener(path, flags); those that cannot be opened are empty.

    Raises LookupFailure.
    """
    fds = [-1, -1]
    for number, path in enumerate(("/etc/passwd", "/etc/group")):
        with suppress(OSError):
            fds[number] = opener(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return lookup(user, groups_add, passwd_table(fds[0]), group_table(fds[1]))
    finally:
        for fd in fds:
            if fd >= 0:
                os.close(fd)
