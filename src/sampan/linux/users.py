"""User and group names by the container's own /etc/passwd and /etc/group, read inside it with a bound.

Source of the rules: moby/sys/user GetExecUser; the primary group is among the supplementary ones (CVE-2022-36109).
"""

import errno
import os
import stat

_MAX_FILE = 8 * 1024 * 1024
_MAX_ID = 2**31 - 1


class LookupFailure(Exception):
    """A name or number that cannot be used; message in docker's words."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.EINVAL
        self.message = message


class Identity:
    """Who the process will be."""

    def __init__(self, uid: int, gid: int, groups: list[int], home: str) -> None:
        self.uid, self.gid, self.groups, self.home = uid, gid, groups, home


def read_table(path: str) -> list[list[str]]:
    """parse_table() of a path; empty when it is missing."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return parse_table(fd)
    finally:
        os.close(fd)


def parse_table(fd: int) -> list[list[str]]:
    """Colon-separated lines of a regular file; empty when it is something else (a FIFO must not hang us)."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        return []
    data = b""
    while len(data) < _MAX_FILE:
        block = os.read(fd, 65536)
        if not block:
            break
        data += block
    text = data.decode(errors="surrogateescape")
    return [line.strip().split(":") for line in text.splitlines() if line.strip() and not line.startswith("#")]


def _number(text: str) -> int | None:
    digits = text[1:] if text[:1] in ("-", "+") else text
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 20 else None


def lookup(user: str, groups_add: list[str], passwd: list[list[str]], group: list[list[str]]) -> Identity:
    """The identity of `user[:group]` plus supplementary groups. Pure. Raises LookupFailure."""
    name, _, group_name = user.partition(":")
    name = name or "0"
    number = _number(name)
    entry = next((row for row in passwd if len(row) >= 4 and row[0] == name), None)
    if entry is None and number is not None:
        entry = next((row for row in passwd if len(row) >= 4 and row[2] == name), None)
    if entry is not None:
        uid, gid = _number(entry[2]) or 0, _number(entry[3]) or 0
        home = entry[5] if len(entry) > 5 else ""
    elif number is not None:
        uid, gid, home = number, 0, ""
    else:
        raise LookupFailure(f"unable to find user {name}: no matching entries in passwd file")
    if not 0 <= uid <= _MAX_ID:
        raise LookupFailure(f"uids and gids must be in range 0-{_MAX_ID}")

    def group_id(text: str) -> int:
        row = next((row for row in group if len(row) >= 3 and row[0] == text), None)
        found = _number(row[2]) if row is not None else _number(text)
        if found is None:
            raise LookupFailure(f"unable to find group {text}: no matching entries in group file")
        if not 0 <= found <= _MAX_ID:
            raise LookupFailure(f"uids and gids must be in range 0-{_MAX_ID}")
        return found

    extra: list[int] = []
    if group_name:
        gid = group_id(group_name)
    elif entry is not None:
        extra = [_number(row[2]) or 0 for row in group if len(row) >= 4 and entry[0] in row[3].split(",")]
    groups = [gid, *extra, *(group_id(text) for text in groups_add)]
    return Identity(uid, gid, list(dict.fromkeys(groups)), home)


def resolve(user: str, groups_add: list[str]) -> Identity:
    """lookup() in the files of the current root."""
    return lookup(user, groups_add, read_table("/etc/passwd"), read_table("/etc/group"))
