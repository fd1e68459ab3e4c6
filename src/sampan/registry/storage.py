"""What the registry asks of the place it keeps things in. filesystem.py is one; tests/contracts/registry_storage.py is what all must do.

A key is a path with "/" between its parts (paths.py). What is written is seen whole or not at all, and stays once write() has returned.
"""

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol


class Missing(Exception):
    """There is nothing under this key."""


class Stat(NamedTuple):
    """modified: seconds since 1970."""

    size: int
    modified: float


class Stored(Protocol):
    """Content that is open for reading. Close it."""

    size: int

    def file(self) -> int | None:
        """A descriptor that sendfile(2) can read at any offset; None: there is none, use pieces."""

    def pieces(self, start: int, length: int) -> AsyncIterator[bytes]:
        """The bytes from start on."""

    def close(self) -> None:
        """Idempotent."""


class Storage(Protocol):
    """All raise OSError when the place itself fails."""

    async def read(self, key: str) -> bytes:
        """All of a small thing. Raises Missing."""

    async def read_all(self, keys: Iterable[str]) -> list[bytes | None]:
        """As read, of many at once; None for those that are missing."""

    async def write(self, key: str, content: bytes) -> None:
        """Put or replace a small thing."""

    async def ingest(self, file: Path, key: str) -> None:
        """Take over a local file, whose bytes are complete; it is gone afterwards."""

    async def stat(self, key: str) -> Stat:
        """Raises Missing."""

    async def touch(self, key: str) -> None:
        """modified becomes now. Raises Missing."""

    async def open(self, key: str) -> Stored:
        """Raises Missing."""

    async def remove(self, key: str) -> None:
        """One thing, and the directories that are empty then; nothing happens when it is missing."""

    async def remove_all(self, key: str) -> None:
        """Everything below a directory."""

    async def names(self, key: str) -> list[str]:
        """What a directory holds, in order; [] when there is none."""

    async def links(self, key: str) -> list[str]:
        """The digests ALGORITHM:HEX of a directory's ALGORITHM/HEX/link, in order."""

    async def has_links(self, key: str) -> bool:
        """Whether there is any of these. However many there are, it takes no longer."""

    async def repositories(self) -> list[str]:
        """The names of all repositories, in order."""

    async def blobs(self) -> list[tuple[str, Stat]]:
        """(digest, size and time) of all content."""
