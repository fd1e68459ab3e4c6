"""Hard links that came before what they link to: the order in which to make them, found without looking at any file."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from sampan.archive.reader import Entry

ROUNDS_MAX: Final = 40
"""A round makes every chain of links whole. More than one is needed only where a link's target goes through a symlink."""


class Waiting(NamedTuple):
    """A hard link to what had not come yet; its names are clean."""

    name: bytes
    target: bytes
    entry: Entry


def in_order(waiting: Sequence[Waiting]) -> Iterator[Waiting]:
    """Each link after the one it links to, in time linear in their number. Those that link to each other in a ring come in any order."""
    by_name: dict[bytes, int] = {}
    for index, link in enumerate(waiting):
        by_name.setdefault(link.name, index)
    begun = [False] * len(waiting)
    for index in range(len(waiting)):
        chain: list[int] = []
        following: int | None = index
        while following is not None and not begun[following]:
            begun[following] = True
            chain.append(following)
            following = by_name.get(waiting[following].target)
        while chain:
            yield waiting[chain.pop()]
