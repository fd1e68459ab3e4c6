"""Patterns of `${name#pattern}` and its kin: `*` and `?`, nothing else. Pure, and never worse than the product of both lengths.

Not made regular expressions: `*a*a*a*b` would take Python's for ever.
"""

import re
from typing import Final, NamedTuple

_ESCAPABLE: Final = "*?\\"


class BadPattern(Exception):
    """What is wrong with the pattern."""


class Pattern(NamedTuple):
    """Pieces between stars; in each a character, or None for any one (`?`)."""

    pieces: tuple[tuple[str | None, ...], ...]


def compiled(text: str) -> Pattern:
    """A pattern read. Raises BadPattern in Go's words."""
    pieces: list[list[str | None]] = [[]]
    at = 0
    while at < len(text):
        char = text[at]
        at += 1
        if char == "*":
            pieces.append([])
        elif char == "?":
            pieces[-1].append(None)
        elif char == "\\":
            following = text[at : at + 1]
            if following in ("}", "/"):  # escaped for the sake of ${}: no part of the pattern
                continue
            if not following or following not in _ESCAPABLE:
                raise BadPattern(f"invalid escape '\\{following or chr(0xFFFD)}'")
            pieces[-1].append(following)
            at += 1
        else:
            pieces[-1].append(char)
    return Pattern(tuple(map(tuple, pieces)))


def without_prefix(value: str, pattern: Pattern, *, longest: bool) -> str:
    """The value without the shortest or longest beginning that matches; whole if none does."""
    end = _match_end(value, 0, _searchers(pattern), longest=longest)
    return value if end is None else value[end:]


def without_suffix(value: str, pattern: Pattern, *, longest: bool) -> str:
    """The same at the end."""
    backwards = Pattern(tuple(piece[::-1] for piece in pattern.pieces[::-1]))
    return without_prefix(value[::-1], backwards, longest=longest)[::-1]


def replaced(value: str, pattern: Pattern, replacement: str, *, every: bool) -> str:
    """The value with the first match, or every one, replaced: the leftmost, as long as it can be."""
    searchers = _searchers(pattern)
    out: list[str] = []
    copied = at = 0
    ended_at = -1
    while at <= len(value):
        found = searchers[0].search(value, at)
        if found is None:
            break
        end = _match_end(value, found.start(), searchers, longest=True)
        if end is None:
            # no later beginning of this line can have what follows, if this one has not
            line_end = value.find("\n", found.start())
            if line_end < 0:
                break
            at = line_end + 1
            continue
        if end > found.start() or found.start() != ended_at:  # Go: no empty match right after another one
            out += value[copied : found.start()], replacement
            copied = ended_at = end
        at = end if end > found.start() else end + 1
        if not every:
            break
    return "".join(out) + value[copied:]


def _searchers(pattern: Pattern) -> list[re.Pattern[str]]:
    return [re.compile("".join("." if char is None else re.escape(char) for char in piece)) for piece in pattern.pieces]


def _match_end(value: str, start: int, pieces: list[re.Pattern[str]], *, longest: bool) -> int | None:
    """Where a match that begins at `start` ends; None if there is none.

    Every piece is taken as early as possible: if the rest does not fit after that, it fits nowhere. The longest match differs in its last
    piece only. As in Go, a star stands for no newline.
    """
    first = pieces[0].match(value, start)
    if first is None:
        return None
    at = first.end()
    if len(pieces) == 1:
        return at
    for piece in pieces[1:-1]:
        found = piece.search(value, at)
        if found is None or "\n" in value[at : found.start()]:
            return None
        at = found.end()
    last = pieces[-1]
    line_end = value.find("\n", at)
    limit = len(value) if line_end < 0 else line_end
    found = last.search(value, at)
    if found is None or found.start() > limit:
        return None
    if not longest:
        return found.end()
    for begin in range(limit, found.start(), -1):
        if at_end := last.match(value, begin):
            return at_end.end()
    return found.end()
