"""Storage in a bucket of S3 or what speaks its API, by obstore (an optional dependency: `pip install 'sampan[s3]'`).

The keys are docker-registry's, below a prefix. Uploads and the lock are in the local directory: one bucket has one registry. What S3 lacks:

- touch: an object's time cannot be changed. A small object beside it, KEY.touched, has the later time; it comes and goes with its object.
- a directory: lists are by prefix, and what is empty is not there.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import aclosing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampan.errors import SystemFailure
from sampan.registry import paths
from sampan.registry.names import ALGORITHMS, is_digest
from sampan.registry.storage import Missing, Stat

if TYPE_CHECKING:
    from obstore.store import S3Store

PIECE = 64 * 1024
"""Given out at once."""
SMALL, LARGE = 128 * 1024, 1 << 20
"""Fetched at once: a slow client's is in memory for long, however many there are."""
LARGE_AT_ONCE, FETCHES_AT_ONCE = 4, 8
QUICK_SECONDS = 1.0
"""A client that takes a piece in less may get a large one next."""
PART, PARTS_MAX = 5 << 20, 10_000
"""S3's limits: bytes of a part, but for the last one, at least; parts of an object at most."""
PARTS_AT_ONCE = INGESTS_AT_ONCE = 2
AT_ONCE = 32
"""Requests under way for one list of things."""
TOUCHED = ".touched"


class StoredObject:
    """See storage.Stored. fetching, large: how many pieces may be on their way, and how many large ones in memory, of all objects."""

    def __init__(self, store: "S3Store", key: str, size: int, fetching: asyncio.Semaphore, large: asyncio.Semaphore) -> None:
        self._store, self._key, self.size, self._fetching, self._large = store, key, size, fetching, large

    def file(self) -> int | None:
        """See storage.Stored: there is none."""
        return None

    async def pieces(self, start: int, length: int) -> AsyncIterator[bytes]:
        """See storage.Stored. Raises OSError when the object ends early. By ranges: a stream would read ahead for every client."""
        quick = False
        while length > 0:
            large = quick and not self._large.locked()
            async with self._large if large else nullcontext():
                whole = await self._range(start, min(length, LARGE if large else SMALL))
                start, length = start + len(whole), length - len(whole)
                began = time.monotonic()
                for offset in range(0, len(whole), PIECE):
                    yield bytes(whole[offset : offset + PIECE])
                quick = time.monotonic() - began < QUICK_SECONDS

    async def _range(self, start: int, length: int) -> memoryview:
        """Raises OSError."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            async with self._fetching:
                found = memoryview(await obstore.get_range_async(self._store, self._key, start=start, length=length))
        except (BaseError, FileNotFoundError) as error:
            raise OSError(f"{self._key}: {error}") from error
        if len(found) != length:
            raise OSError(f"{self._key} ended early")
        return found

    def close(self) -> None:
        """See storage.Stored."""


class S3:
    """See storage.Storage. store: obstore's; prefix: of all keys, without a slash at its end."""

    def __init__(self, store: "S3Store", prefix: str = "") -> None:
        self._store = store
        self._prefix = f"{prefix}/" if prefix else ""
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._ingests = asyncio.Semaphore(INGESTS_AT_ONCE)
        self._fetching = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._large = asyncio.Semaphore(LARGE_AT_ONCE)

    @classmethod
    def connect(cls, bucket: str, *, prefix: str, settings: Mapping[str, str]) -> "S3":
        """settings: region, endpoint, access_key_id and others of obstore's S3Store. Raises SystemFailure: obstore is not installed."""
        try:
            from obstore.store import S3Store
        except ImportError:
            raise SystemFailure("s3: the library obstore is not installed: pip install 'sampan[s3]'") from None
        options: dict[str, Any] = dict(settings)
        options["client_options"] = {"allow_http": settings.get("endpoint", "").startswith("http://")}
        return cls(S3Store(bucket, **options), prefix.strip("/"))

    async def _ask(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        """Raises Missing, OSError."""
        from obstore.exceptions import BaseError

        async with self._slots:
            try:
                return await call(self._store, *arguments, **options)
            except FileNotFoundError as error:  # obstore.exceptions.NotFoundError is one, too
                raise Missing(str(arguments[0])) from error
            except BaseError as error:
                raise OSError(f"S3: {error}") from error

    async def read(self, key: str) -> bytes:
        """See storage.Storage."""
        import obstore

        answer = await self._ask(obstore.get_async, self._prefix + key)
        return bytes(await answer.bytes_async())

    async def read_all(self, keys: Iterable[str]) -> list[bytes | None]:
        """See storage.Storage."""

        async def one(key: str) -> bytes | None:
            try:
                return await self.read(key)
            except Missing:
                return None

        return list(await asyncio.gather(*map(one, keys)))

    async def write(self, key: str, content: bytes) -> None:
        """See storage.Storage."""
        import obstore

        await self._ask(obstore.put_async, self._prefix + key, content)

    async def ingest(self, file: Path, key: str) -> None:
        """See storage.Storage. In parts, when it is large; nothing is seen of it before the last one."""
        import obstore

        part = max(PART, -(-file.stat().st_size // PARTS_MAX))
        async with self._ingests:  # parts are in memory
            await self._ask(obstore.put_async, self._prefix + key, file, chunk_size=part, max_concurrency=PARTS_AT_ONCE)
        await asyncio.to_thread(file.unlink)

    async def _own_stat(self, key: str) -> Stat:
        import obstore

        meta = await self._ask(obstore.head_async, self._prefix + key)
        return Stat(meta["size"], meta["last_modified"].timestamp())

    async def stat(self, key: str) -> Stat:
        """See storage.Storage."""
        found = await self._own_stat(key)
        try:
            return Stat(found.size, max(found.modified, float(await self.read(key + TOUCHED))))
        except (Missing, ValueError):
            return found

    async def touch(self, key: str) -> None:
        """See storage.Storage. The time is written in it: S3's own has whole seconds, and the collector must see a second touch."""
        await self._own_stat(key)
        await self.write(key + TOUCHED, str(time.time()).encode())

    async def open(self, key: str) -> StoredObject:
        """See storage.Storage."""
        return StoredObject(self._store, self._prefix + key, (await self._own_stat(key)).size, self._fetching, self._large)

    async def remove(self, key: str) -> None:
        """See storage.Storage."""
        import obstore

        await self._ask(obstore.delete_async, [self._prefix + key, self._prefix + key + TOUCHED])

    async def _below(self, key: str) -> AsyncGenerator[tuple[str, Stat], None]:
        """(key, state) of every object below a directory. Close it, if it is not read to the end."""
        import obstore
        from obstore.exceptions import BaseError

        async with self._slots:
            try:
                async for chunk in obstore.list(self._store, prefix=f"{self._prefix}{key}/"):
                    for meta in chunk:
                        yield meta["path"].removeprefix(self._prefix), Stat(meta["size"], meta["last_modified"].timestamp())
            except BaseError as error:
                raise OSError(f"S3: {error}") from error

    async def remove_all(self, key: str) -> None:
        """See storage.Storage. Whoever looks meanwhile may see a part: in a bucket a directory does not go at once."""
        import obstore

        found = [self._prefix + below async for below, _ in self._below(key)]
        for start in range(0, len(found), 1000):
            await self._ask(obstore.delete_async, found[start : start + 1000])

    async def names(self, key: str) -> list[str]:
        """See storage.Storage."""
        import obstore

        answer = await self._ask(obstore.list_with_delimiter_async, f"{self._prefix}{key}/")
        found = [*answer["common_prefixes"], *(meta["path"] for meta in answer["objects"])]
        return sorted({os.path.basename(path.rstrip("/")) for path in found if not path.endswith(TOUCHED)})

    async def links(self, key: str) -> list[str]:
        """See storage.Storage."""
        found = [f"{algorithm}:{name}" for algorithm in ALGORITHMS for name in await self.names(f"{key}/{algorithm}")]
        return [digest for digest in found if is_digest(digest)]

    async def has_links(self, key: str) -> bool:
        """See storage.Storage."""
        async with aclosing(self._below(key)) as found:
            async for below, _ in found:
                algorithm, _, rest = below.removeprefix(key + "/").partition("/")
                if is_digest(f"{algorithm}:{rest.removesuffix('/link')}"):
                    return True
        return False

    async def repositories(self) -> list[str]:
        """See storage.Storage."""
        found = set()
        async for key, _ in self._below(paths.REPOSITORIES):
            parts = key.removeprefix(paths.REPOSITORIES + "/").split("/")
            name = parts[: next((at for at, part in enumerate(parts) if part.startswith("_")), 0)]
            if name:
                found.add("/".join(name))
        return sorted(found)

    async def blobs(self) -> list[tuple[str, Stat]]:
        """See storage.Storage."""
        found: dict[str, Stat] = {}
        touched = []
        async for key, stat in self._below(paths.BLOBS):
            parts = key.split("/")
            digest = f"{parts[-4]}:{parts[-2]}" if len(parts) > 4 else ""
            if is_digest(digest):
                if key.endswith(TOUCHED):
                    touched.append(digest)
                else:
                    found[digest] = stat
        for digest in touched:
            if digest in found:
                found[digest] = await self.stat(paths.blob(digest))
        return list(found.items())
