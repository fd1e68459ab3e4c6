"""What the cache's eviction leaves of mirrored repositories: links to content that is gone. They are of no use, and cost inodes."""

import os
from collections.abc import AsyncIterator, Sequence

from sampan.registry import paths
from sampan.registry.gate import Gate, steps
from sampan.registry.storage import Missing, Storage


async def _links(storage: Storage, name: str) -> AsyncIterator[str]:
    """The keys of all links of a repository: tags, then what they mean."""
    for tag in await storage.names(paths.tags(name)):
        yield paths.tag(name, tag)
    for subject in await storage.links(paths.subjects(name)):
        for digest in await storage.links(paths.referrers(name, subject)):
            yield paths.referrer(name, subject, digest)
    for digest in await storage.links(paths.revisions(name)):
        yield paths.revision(name, digest)
    for digest in await storage.links(paths.layers(name)):
        yield paths.layer(name, digest)


async def _dangling(storage: Storage, keys: Sequence[str]) -> list[str]:
    found = []
    for key, link in zip(keys, await storage.read_all(keys), strict=True):
        digest = paths.digest_in(link or b"")
        try:
            if digest is not None:
                await storage.stat(paths.blob(digest))
                continue
        except Missing:
            pass
        found.append(key)
    return found


async def drop_dangling_links(storage: Storage, gate: Gate) -> int:
    """How many there were. Whoever fetches meanwhile keeps the links to what is there by then. Raises OSError."""
    dropped = 0

    async def drop(keys: Sequence[str]) -> None:
        nonlocal dropped
        for key in await _dangling(storage, keys):
            if key.endswith("/current/link"):
                await storage.remove_all(os.path.dirname(os.path.dirname(key)))
            else:
                await storage.remove(key)
            dropped += 1

    for name in await storage.repositories():
        found = await _dangling(storage, [key async for key in _links(storage, name)])
        for step in steps(found):
            await gate.remove(drop(step))
    return dropped
