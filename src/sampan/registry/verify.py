"""`sampan registry verify`: whether content is what its digest says, and whether what names it finds it. Nothing is changed.

It may look beside pushes, deletions and the collector: what is wrong is looked at again before it is told, and told if it is still wrong.
Of content one piece is in memory, of manifests a few.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator

import msgspec

from sampan.registry import documents, paths
from sampan.registry.errors import RegistryError
from sampan.registry.names import parts_of
from sampan.registry.storage import Missing, Storage
from sampan.registry.store import bodies_of


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong. repository: "" for content, which is everybody's. what: a digest, or a tag."""

    what: str
    problem: str
    repository: str = ""

    def __str__(self) -> str:
        return f"{self.repository}: {self.what}: {self.problem}" if self.repository else f"{self.what}: {self.problem}"


class Verification(msgspec.Struct):
    """What was looked at, and what is wrong with it."""

    content: int = 0
    bytes: int = 0
    repositories: int = 0
    manifests: int = 0
    problems: list[Problem] = []
    seconds: float = 0.0

    def lines(self) -> list[str]:
        """For people."""
        count = len(self.problems)
        said = f"{count or 'no'} problem{'' if count == 1 else 's'}"
        return [*map(str, self.problems), f"Verified {self.content} blobs, {self.bytes} bytes: {said}"]


class Verifier:
    """Of one store."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._one = asyncio.Lock()

    async def verify(self) -> Verification:
        """Raises OSError: the place itself fails."""
        async with self._one:
            began = time.monotonic()
            found = Verification()
            for digest, _ in await self._storage.blobs():
                await self._content(digest, found)
            for name in await self._storage.repositories():
                found.repositories += 1
                first = [problem async for problem in self._repository(name, found)]
                still = {problem async for problem in self._repository(name, Verification())} if first else set()
                found.problems += [problem for problem in dict.fromkeys(first) if problem in still]
            found.seconds = round(time.monotonic() - began, 3)
            return found

    async def _content(self, digest: str, found: Verification) -> None:
        try:
            size = (await self._storage.stat(paths.blob(digest))).size
            problem = await self._read(digest)
            if problem:
                await self._storage.stat(paths.blob(digest))  # what was removed meanwhile is not damaged
        except Missing:
            return
        found.content += 1
        found.bytes += size
        found.problems += [Problem(digest, problem)] if problem else []

    async def _read(self, digest: str) -> str:
        """What is wrong with content, or "". Raises Missing."""
        stored = await self._storage.open(paths.blob(digest))
        algorithm = parts_of(digest).algorithm
        computing = hashlib.new(algorithm)
        try:
            async for piece in stored.pieces(0, stored.size):
                await asyncio.to_thread(computing.update, piece)
        except OSError as error:  # a sector, not the disk
            return f"the content cannot be read: {error.strerror or error}"
        finally:
            stored.close()
        computed = f"{algorithm}:{computing.hexdigest()}"
        return "" if computed == digest else f"the content is {computed}, {stored.size} bytes"

    async def _repository(self, name: str, found: Verification) -> AsyncIterator[Problem]:
        layers, revisions = await self._storage.links(paths.layers(name)), await self._storage.links(paths.revisions(name))
        for digest in layers:
            if await self._size(digest) is None:
                yield Problem(digest, "the blob's content is missing", name)
        blobs, manifests = set(layers), set(revisions)
        async for digest, body in bodies_of(self._storage, revisions):
            found.manifests += 1
            async for problem in self._manifest(body, blobs, manifests):
                yield Problem(digest, problem, name)
        tags = await self._storage.names(paths.tags(name))
        links = await self._storage.read_all(paths.tag(name, tag) for tag in tags)
        for tag, link in zip(tags, links, strict=True):
            meant = paths.digest_in(link or b"")
            if meant is None:
                yield Problem(tag, "the tag means nothing", name)
            elif meant not in manifests:
                yield Problem(tag, f"the tag means {meant}, which the repository has not", name)

    async def _manifest(self, body: bytes | None, blobs: set[str], manifests: set[str]) -> AsyncIterator[str]:
        """What is wrong with a manifest of a repository that has these."""
        if body is None:
            yield "the manifest's content is missing"
            return
        try:
            contents = documents.read(body)
        except RegistryError as error:
            yield f"the manifest cannot be read: {error.detail or error.message}"
            return
        for digest, size in contents.blobs:
            if digest not in blobs:
                yield f"it names the blob {digest}, which the repository has not"
            elif (there := await self._size(digest)) not in (None, size):
                yield f"it names the blob {digest} of {size} bytes, which has {there}"
        for digest in contents.manifests:
            if digest not in manifests:
                yield f"it names the manifest {digest}, which the repository has not"

    async def _size(self, digest: str) -> int | None:
        try:
            return (await self._storage.stat(paths.blob(digest))).size
        except Missing:
            return None
