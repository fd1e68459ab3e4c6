"""Repositories: which blobs, manifests and tags each has, over a Storage. Order of writing is what makes a crash harmless:
content first, then the link that shows it; what is taken away loses its link first, and the collector (gc.py) removes the content.
"""

import hashlib
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from sampan.digest import Digest
from sampan.registry import documents, paths
from sampan.registry.documents import Contents, Referrer
from sampan.registry.errors import RegistryError
from sampan.registry.gate import Gate, steps
from sampan.registry.names import is_digest, parts_of
from sampan.registry.storage import Missing, Storage, Stored

READ_AT_ONCE = 8
"""Manifests in memory, each of which may have 4 MiB."""
REFERRERS_MAX = 1000
REFERRERS_BYTES = 3 << 20
"""Of one page: clients read no more than a manifest may have."""


class Manifest(NamedTuple):
    """As it was pushed, byte for byte."""

    digest: Digest
    media_type: str
    body: bytes


def digest_of(body: bytes, algorithm: str = "sha256") -> Digest:
    """ALGORITHM:HEX of body."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}")


async def bodies_of(storage: Storage, digests: Sequence[str]) -> AsyncIterator[tuple[str, bytes | None]]:
    """Manifests with their bytes, few of which are in memory at once; None for those that are missing."""
    for start in range(0, len(digests), READ_AT_ONCE):
        some = digests[start : start + READ_AT_ONCE]
        for digest, body in zip(some, await storage.read_all(map(paths.blob, some)), strict=True):
            yield digest, body


def _referrer(digest: str, body: bytes) -> Referrer | None:
    """None: it is damaged."""
    try:
        return documents.read(body).referrer(digest, len(body))
    except RegistryError:
        return None


async def kept(storage: Storage, digest: Digest, size: int) -> bool:
    """Touch content that is pushed again; False: it is not here, or a damaged disk has made it shorter or longer."""
    key = paths.blob(digest)
    try:
        await storage.touch(key)
        return (await storage.stat(key)).size == size
    except Missing:
        return False


class Blobs:
    """Blobs of repositories. A repository has those that were pushed to it or mounted, whatever others have."""

    def __init__(self, storage: Storage, gate: Gate) -> None:
        self._storage = storage
        self._gate = gate

    async def open(self, name: str, digest: Digest) -> Stored:
        """Close what is returned. Raises RegistryError BLOB_UNKNOWN."""
        try:
            await self._storage.stat(paths.layer(name, digest))
            return await self._storage.open(paths.blob(digest))
        except Missing:
            raise RegistryError("BLOB_UNKNOWN", {"digest": digest}) from None

    async def has(self, name: str, digest: Digest) -> bool:
        """Whether a repository has a blob."""
        try:
            await self._storage.stat(paths.layer(name, digest))
        except Missing:
            return False
        return True

    async def promise(self, name: str, digest: Digest) -> int:
        """The blob's size. Whoever is told that it is there may push a manifest that names it: it is kept as a new one is.

        Raises RegistryError BLOB_UNKNOWN.
        """
        async with self._gate.shared():
            return await self._promise(name, digest)

    async def _promise(self, name: str, digest: Digest) -> int:
        try:
            await self._storage.touch(paths.layer(name, digest))
            return (await self._storage.stat(paths.blob(digest))).size
        except Missing:
            raise RegistryError("BLOB_UNKNOWN", {"digest": digest}) from None

    async def add(self, name: str, digest: Digest, file: Path) -> None:
        """Take over a local file with this digest."""
        await self._gate.add(self._add(name, digest, file))

    async def _add(self, name: str, digest: Digest, file: Path) -> None:
        if await kept(self._storage, digest, file.stat().st_size):
            file.unlink()
        else:
            await self._storage.ingest(file, paths.blob(digest))
        await self._storage.write(paths.layer(name, digest), paths.link_of(digest))

    async def link(self, name: str, digest: Digest) -> None:
        """Have a blob whose content is here already."""
        await self._gate.add(self._storage.write(paths.layer(name, digest), paths.link_of(digest)))

    async def mount(self, name: str, digest: Digest, source: str) -> bool:
        """Have a blob that another repository has; False: it has not."""
        return await self._gate.add(self._mount(name, digest, source))

    async def _mount(self, name: str, digest: Digest, source: str) -> bool:
        try:
            await self._promise(source, digest)
            await self._storage.touch(paths.blob(digest))  # its new link comes after the collector may have looked (gc.py)
        except (RegistryError, Missing):
            return False
        await self._storage.write(paths.layer(name, digest), paths.link_of(digest))
        return True

    async def delete(self, name: str, digest: Digest) -> None:
        """Raises RegistryError BLOB_UNKNOWN."""
        key = paths.layer(name, digest)
        try:
            await self._storage.stat(key)
        except Missing:
            raise RegistryError("BLOB_UNKNOWN", {"digest": digest}) from None
        await self._storage.remove(key)


class Manifests:
    """Manifests, tags and referrers of repositories."""

    def __init__(self, storage: Storage, gate: Gate) -> None:
        self._storage = storage
        self._gate = gate
        self._watching: list[tuple[str, set[str]]] = []
        """Of deletions under way: repository, and the tags that have been pushed to it since they began to look."""

    async def resolve(self, name: str, reference: str) -> Digest:
        """A tag's digest, or a digest that the repository has. Raises RegistryError MANIFEST_UNKNOWN, NAME_UNKNOWN."""
        try:
            if is_digest(reference):
                digest = Digest(reference)
            else:
                found = paths.digest_in(await self._storage.read(paths.tag(name, reference)))
                if found is None:
                    raise Missing(reference)
                digest = found
            await self._storage.stat(paths.revision(name, digest))
        except Missing:
            raise await self._unknown(name, reference) from None
        return digest

    async def _unknown(self, name: str, reference: str) -> RegistryError:
        return RegistryError("MANIFEST_UNKNOWN" if await self.exists(name) else "NAME_UNKNOWN", {"name": name, "reference": reference})

    async def get(self, name: str, reference: str) -> Manifest:
        """By tag or digest. Raises RegistryError."""
        digest = await self.resolve(name, reference)
        try:
            body = await self._storage.read(paths.blob(digest))
        except Missing:
            raise RegistryError("MANIFEST_UNKNOWN", {"name": name, "reference": reference}) from None
        return Manifest(digest, documents.media_type(body), body)

    async def promise(self, name: str, digest: Digest) -> Manifest:
        """By digest. Whoever is told that it is there may push an index that names it: it is kept as a new one is. Raises RegistryError."""
        async with self._gate.shared():
            found = await self.get(name, digest)
            await self._storage.touch(paths.revision(name, digest))
        return found

    async def put(
        self, name: str, digest: Digest, tags: tuple[str, ...], body: bytes, contents: Contents, *, complete: bool = True
    ) -> None:
        """Have a manifest, and tags that mean it. complete=False: what it names need not be there, as in a mirror.

        Raises RegistryError MANIFEST_BLOB_UNKNOWN.
        """

        async def whole() -> None:
            if complete:
                await self._check(name, contents)
            if not await kept(self._storage, digest, len(body)):
                await self._storage.write(paths.blob(digest), body)
            await self._storage.write(paths.revision(name, digest), paths.link_of(digest))
            if contents.subject is not None:
                await self._storage.write(paths.referrer(name, contents.subject, digest), paths.link_of(digest))
            for tag in tags:
                for repository, pushed in self._watching:
                    if repository == name:
                        pushed.add(tag)
                await self._storage.write(paths.tag(name, tag), paths.link_of(digest))

        await self._gate.add(whole())

    async def _check(self, name: str, contents: Contents) -> None:
        for digest, size in contents.blobs:
            try:
                await self._storage.stat(paths.layer(name, digest))
                found = (await self._storage.stat(paths.blob(digest))).size
            except Missing:
                raise RegistryError("MANIFEST_BLOB_UNKNOWN", {"digest": digest}, message="blob unknown to registry") from None
            if found != size:
                raise RegistryError("MANIFEST_INVALID", f"{digest} has {found} bytes, not {size}")
        for digest in contents.manifests:
            try:
                await self._storage.stat(paths.revision(name, digest))
            except Missing:
                raise RegistryError("MANIFEST_BLOB_UNKNOWN", {"digest": digest}) from None

    async def delete(self, name: str, digest: Digest) -> list[str]:
        """A manifest, damaged or not, and the tags that mean it (returned). Raises RegistryError MANIFEST_UNKNOWN, NAME_UNKNOWN."""
        await self.resolve(name, digest)
        subject = None
        with suppress(RegistryError):
            subject = documents.read((await self.get(name, digest)).body).subject
        gone: list[str] = []
        with self._tags_pushed_to(name) as pushed:  # a tag that is pushed meanwhile would mean what goes
            meaning = [tag for tag, meant in (await self.tags_with_digests(name)).items() if meant == digest]
            for tags in steps(meaning):
                gone += await self._gate.remove(self._untag(name, tags, digest))
            gone += await self._gate.remove(self._take_away(name, digest, subject, pushed))
        return list(dict.fromkeys(gone))

    async def _take_away(self, name: str, digest: Digest, subject: Digest | None, pushed: set[str]) -> list[str]:
        """A manifest's links, and the tags that mean it after all; these. Behind the gate."""
        gone = await self._untag(name, sorted(pushed), digest)
        if subject is not None:
            await self._storage.remove(paths.referrer(name, subject, digest))
        await self._storage.remove(paths.revision(name, digest))
        return gone

    @contextmanager
    def _tags_pushed_to(self, name: str) -> Iterator[set[str]]:
        """The tags of a repository that are pushed from now on."""
        pushed: set[str] = set()
        self._watching.append((name, pushed))
        try:
            yield pushed
        finally:
            self._watching = [watch for watch in self._watching if watch[1] is not pushed]

    async def _untag(self, name: str, tags: Sequence[str], digest: str) -> list[str]:
        """Remove those tags that mean a manifest; these. Behind the gate."""
        links = await self._storage.read_all(paths.tag(name, tag) for tag in tags)
        meaning = [tag for tag, link in zip(tags, links, strict=True) if link is not None and paths.digest_in(link) == digest]
        for tag in meaning:
            await self._storage.remove_all(paths.tag_directory(name, tag))
        return meaning

    async def delete_tag(self, name: str, tag: str) -> None:
        """The manifest stays, if the tag means one. Raises RegistryError MANIFEST_UNKNOWN, NAME_UNKNOWN."""
        if not await self._storage.names(paths.tag_directory(name, tag)):
            raise await self._unknown(name, tag)
        await self._storage.remove_all(paths.tag_directory(name, tag))

    async def exists(self, name: str) -> bool:
        """Whether there is such a repository: one with a manifest or a blob."""
        return await self.has_any(name) or await self._storage.has_links(paths.layers(name))

    async def has_any(self, name: str) -> bool:
        """Whether a repository has a manifest."""
        return await self._storage.has_links(paths.revisions(name))

    async def tags(self, name: str) -> list[str]:
        """In order of their bytes. Raises RegistryError NAME_UNKNOWN."""
        found = await self._storage.names(paths.tags(name))
        if not found and not await self.exists(name):
            raise RegistryError("NAME_UNKNOWN", {"name": name})
        return found

    async def tags_with_digests(self, name: str) -> dict[str, Digest | None]:
        """Every tag and what it means; None: nothing."""
        names = await self._storage.names(paths.tags(name))
        links = await self._storage.read_all(paths.tag(name, tag) for tag in names)
        return {tag: paths.digest_in(link) for tag, link in zip(names, links, strict=True) if link is not None}

    async def revisions(self, name: str) -> list[str]:
        """The digests of all manifests."""
        return await self._storage.links(paths.revisions(name))

    async def referrers(self, name: str, subject: Digest, artifact_type: str = "", after: str = "") -> tuple[list[Referrer], str]:
        """(manifests with this subject, the digest that the next ones are asked for after or ""). artifact_type: only those of it."""
        parts_of(subject)
        digests = await self._storage.links(paths.referrers(name, subject))
        found: list[Referrer] = []
        size = 0
        async for digest, body in bodies_of(self._storage, digests[bisect_right(digests, after) :]):
            entry = _referrer(digest, body or b"")
            if entry is None or artifact_type not in ("", entry.artifact_type):
                continue
            size += len(msgspec.json.encode(entry))
            if found and (len(found) >= REFERRERS_MAX or size > REFERRERS_BYTES):
                return found, found[-1].digest
            found.append(entry)
        return found, ""

    async def repositories(self) -> list[str]:
        """The names of those that have a manifest."""
        return [name for name in await self._storage.repositories() if await self.has_any(name)]
