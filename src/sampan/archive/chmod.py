"""`--chmod` of COPY and ADD: an octal mode, or chmod(1)'s symbolic ones."""

import re
import stat
from collections.abc import Callable

Chmod = Callable[[int, bool], int]
"""The new mode of an old one; told whether it is a directory's."""
_OCTAL = re.compile(r"[0-7]{1,5}")
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([-+=])([ugo]|[rwxXst]*)")
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}


class BadMode(ValueError):
    """Not a mode; the message says which."""


def parse(text: str) -> Chmod:
    """Raises BadMode."""
    if _OCTAL.fullmatch(text):
        fixed = int(text, 8)
        if fixed > 0o7777:
            raise BadMode(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
        return lambda _old, _directory: fixed
    clauses = [_CLAUSE.fullmatch(clause) for clause in text.split(",")]
    if not text or any(clause is None for clause in clauses):
        raise BadMode(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")

    def changed(old: int, directory: bool) -> int:
        for clause in clauses:
            assert clause is not None
            for operator, what in _ACTION.findall(clause[2]):
                old = _apply(old, clause[1] or "a", operator, what, directory)
        return old

    return changed


def _apply(old: int, who: str, operator: str, what: str, directory: bool) -> int:
    classes = "ugo" if "a" in who else who
    mask, bits = 0, 0
    for one in classes:
        shift = _SHIFTS[one]
        mask |= 7 << shift
        bits |= _permissions(old, what, directory) << shift
    if "s" in what:
        bits |= (stat.S_ISUID if "u" in classes else 0) | (stat.S_ISGID if "g" in classes else 0)
    if "t" in what:
        bits |= stat.S_ISVTX
    if operator == "+":
        return old | bits
    if operator == "-":
        return old & ~bits
    special = (stat.S_ISUID if "u" in classes else 0) | (stat.S_ISGID if "g" in classes else 0)
    return old & ~(mask | (0 if directory else special)) | bits


def _permissions(old: int, what: str, directory: bool) -> int:
    if what in _SHIFTS:
        return old >> _SHIFTS[what] & 7
    bits = sum(_BITS.get(letter, 0) for letter in set(what) - {"X"})
    if "X" in what and (directory or old & 0o111):
        bits |= 1
    return bits
