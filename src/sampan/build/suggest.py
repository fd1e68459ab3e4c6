"""`(did you mean FROM?)`, as docker finds it. Pure."""

from collections.abc import Iterable
from typing import Final

_NEAR: Final = 3
"""Words that are this far apart, or farther, do not resemble each other."""


def distance(one: str, other: str, limit: int = _NEAR) -> int:
    """Levenshtein's distance of two words; anything from `limit` on is `limit`."""
    if abs(len(one) - len(other)) >= limit:
        return limit
    row = list(range(len(other) + 1))
    for i, char in enumerate(one, 1):
        previous, row = row, [i]
        for j, other_char in enumerate(other, 1):
            row.append(min(previous[j] + 1, row[j - 1] + 1, previous[j - 1] + (char != other_char)))
        if min(row) >= limit:
            return limit
    return min(row[-1], limit)


def suggestion(word: str, options: Iterable[str], *, any_case: bool = False) -> str:
    """` (did you mean OPTION?)` with the most similar option, or nothing. `any_case`: options are upper case, and shown as the word is.

    Where several are equally near docker takes any; here it is the one with most letters in common, then the first by name.
    """
    wanted = word.lower() if any_case else word
    found: list[tuple[int, int, str]] = []
    for option in options:
        candidate = option.lower() if any_case else option
        if candidate == wanted:
            return ""
        apart = distance(wanted, candidate)
        if apart < _NEAR:
            found.append((apart, -sum(min(wanted.count(char), candidate.count(char)) for char in set(wanted)), candidate))
    if not found:
        return ""
    best = min(found)[2]
    return f" (did you mean {best.upper() if any_case and word == word.upper() and word != word.lower() else best}?)"
