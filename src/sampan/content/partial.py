"""Blobs on their way in, by digest. What has come stays, whoever is killed, so that the next fetch goes on from there.

A registry never fills the disk: what a manifest promises must fit, beside what is due soon of all that is under way, before the first byte
is fetched, and the free space is looked at again while the bytes come (archive.room keeps the same reserve). What nobody fetches any more
gives way.
"""

import asyncio
import hashlib
import os
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from sampan.archive.room import NoRoom, Room
from sampan.digest import Digest, is_sha256, verify
from sampan.errors import InvalidArgument, SystemFailure
from sampan.findings import Finding

if TYPE_CHECKING:
    from hashlib import _Hash

KEEP_SECONDS = 7 * 86400
KEEP_PART = 8
"""What nobody fetches now may take this part of the disk (one eighth); the oldest go first."""
AHEAD_BYTES = 1 << 30
"""Of what a manifest promises, so much is kept free beside other blobs, however much it is: promises cost nothing"""
_ALONE = "alone-"
SLOW_SECONDS = 30.0
SLOW_BYTES = 1 << 15
"""Whoever has a blob and gets less than this of it in SLOW_SECONDS keeps nobody else from it; an endpoint that gives less gives way"""
_BLOCK = 1 << 20


class PartialBlob:
    """One blob's file. One writer appends, readers follow; close() keeps the file unless the disk is full."""

    def __init__(
        self,
        path: Path,
        digest: Digest,
        length: int,
        *,
        keep: bool = True,
        closed: Callable[["PartialBlob"], None],
        spare: Callable[[], int],
    ) -> None:
        """Open or make it. length: of the whole blob, in bytes. Raises OSError.

        keep: whether it stays after close(). closed: told when the file has been let go. spare: makes room on the disk, and returns
        how much.
        """
        self.digest, self.length = digest, length
        self.size = 0
        """Bytes that are there and hashed."""
        self.arrived = 0
        """All that have ever been, also those that turned out to be wrong"""
        self.spoilt = 0
        """How often what followers were given turned out to be wrong"""
        self.last_chance = False
        """Whether nothing is fetched in place of this, should it turn out not to be the blob"""
        self._path = path
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._room = Room(self.fd)
        self._keep = keep
        self._closed, self._spare = closed, spare
        self._hash = self._new_hash()
        self._grown, self._completed = asyncio.Event(), asyncio.Event()

    def _new_hash(self) -> "_Hash":
        return hashlib.new(self.digest.partition(":")[0])

    @property
    def path(self) -> Path:
        """The file: whoever has completed it may move it elsewhere before close()."""
        return self._path

    async def load(self) -> None:
        """Hash what an earlier fetch left."""
        while self.size < self.length:
            block = os.pread(self.fd, min(_BLOCK, self.length - self.size), self.size)
            if not block:
                break
            self._hash.update(block)
            self.size += len(block)
            self.arrived += len(block)
            await asyncio.sleep(0)
        self._wake()

    @property
    def missing(self) -> int:
        """Bytes that are still to come; before load() too."""
        return max(0, self.length - os.fstat(self.fd).st_size)

    def append(self, data: bytes) -> None:
        """The next bytes. Raises InvalidArgument when they are more than the blob can have, SystemFailure when the disk is full."""
        if self.size + len(data) > self.length:
            raise InvalidArgument(f"unexpected blob size: got more than the {self.length} bytes of {self.digest}")
        self._take_room(len(data))
        view = memoryview(data)
        at = self.size
        try:
            while view:
                written = os.pwrite(self.fd, view, at)
                view, at = view[written:], at + written
        except OSError as error:  # others write to this disk as well
            self._keep = False
            raise SystemFailure(f"write {self._path}: {(error.strerror or '').lower()}") from error
        self._hash.update(data)
        self.size = at
        self.arrived += len(data)
        self._wake()

    def _take_room(self, size: int) -> None:
        """See that the disk has room; what nobody fetches gives way, and at the end this blob. Raises SystemFailure."""
        try:
            try:
                self._room.take(size, 0)
            except NoRoom:
                if not self._spare():
                    raise
                self._room.take(size, 0)
        except NoRoom as error:
            self._keep = False
            raise SystemFailure(str(error)) from error

    def spoil(self) -> None:
        """Begin again, because what came was not the blob, or cannot be continued: followers are told to do so too."""
        os.ftruncate(self.fd, 0)
        self._hash = self._new_hash()
        self.size = 0
        self.spoilt += 1
        self._wake()

    def abandon(self) -> None:
        """No more will come: followers are told (`spoilt` changes), what is there stays for the next fetch."""
        self.spoilt += 1
        self._wake()

    def finish(self) -> None:
        """All has come: verify it. Raises InvalidArgument; then spoil() is to follow."""
        verify(Digest(f"{self._hash.name}:{self._hash.hexdigest()}"), self.size, self.digest, self.length)
        self._completed.set()
        self._wake()

    @property
    def complete(self) -> bool:
        """Whether all is there, and verified."""
        return self._completed.is_set()

    async def completed(self) -> None:
        """Wait until all is there."""
        await self._completed.wait()

    async def judged(self, spoilt: int) -> bool:
        """Wait until what came since `spoilt` had this value is known to be the blob (True), or to be wrong."""
        while not self.complete and self.spoilt == spoilt:
            await self._grown.wait()
        return self.spoilt == spoilt

    async def follow(self, give: Callable[[int, int], Awaitable[int]]) -> None:
        """Give out the bytes as they come, by calls of give(offset, count) → how many it took (0: enough).

        At the end all are verified; it ends early when what was given was wrong (`spoilt` has changed then).
        """
        at, spoilt = 0, self.spoilt
        while (at < self.length or not self.complete) and spoilt == self.spoilt:
            if at < self.size:
                taken = await give(at, self.size - at)
                if not taken:
                    return
                at += taken
            else:
                await self._grown.wait()

    def _wake(self) -> None:
        """Wake every follower; the next event is for those who wait from now on."""
        self._grown.set()
        self._grown = asyncio.Event()

    def close(self) -> None:
        """Let go of the file; an empty one, and one that found the disk full, is removed."""
        if self.fd >= 0:
            empty = not os.fstat(self.fd).st_size
            os.close(self.fd)
            self.fd = -1
            if empty or not self._keep:
                self.remove()
            self._closed(self)

    def remove(self) -> None:
        """Drop the file."""
        with suppress(FileNotFoundError):
            self._path.unlink()


class PartialBlobs:
    """The directory of partial blobs. Used from the event loop's thread only."""

    def __init__(self, root: Path, is_digest: Callable[[str], bool] = is_sha256) -> None:
        """root: the data root. is_digest: of what we can verify. What nobody went on with for a week is dropped. Raises OSError."""
        self._is_digest = is_digest
        self._directory = root / "content" / "partial"
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open: list[PartialBlob] = []
        self._holders: dict[str, PartialBlob] = {}
        """By digest: what those who hold the locks fetch"""
        self._held: Counter[str] = Counter()
        """By digest: what pulls under way have use for, also when it has come"""
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """By digest, for as long as somebody holds or awaits one."""
        self.drop_old()

    def _idle(self) -> list[Path]:
        """What nobody fetches now."""
        busy = {blob.path for blob in self._open}
        return [file for file in self._directory.iterdir() if file not in busy]

    def look(self) -> list[Finding]:
        """What is no blob on its way in, or has been on it for too long."""
        found: list[Finding] = []
        for file in self._idle():
            if not is_sha256(f"sha256:{file.name}"):
                found.append(Finding("file", str(file), "is no partial blob", "remove it", partial(_remove, file)))
            elif time.time() - file.stat().st_mtime > KEEP_SECONDS:
                found.append(Finding("file", str(file), "is part of a blob that nobody fetches any more", "remove it", self.drop_old))
        return found

    def drop_old(self) -> None:
        """Remove what nobody went on with for a week."""
        for file in self._idle():
            if file.name.startswith(_ALONE) or time.time() - file.stat().st_mtime > KEEP_SECONDS:
                file.unlink()

    def disk_usage(self) -> int:
        """Bytes on disk of all that has come."""
        return sum(_on_disk(file) for file in self._directory.iterdir())

    def lock(self, digest: str) -> asyncio.Lock:
        """Held by the one who fetches a blob: whoever wants the same one waits for it. Take several in the order of their digests."""
        return self._locks.setdefault(digest, asyncio.Lock())

    @asynccontextmanager
    async def turn(self, digest: str) -> AsyncIterator[bool]:
        """Wait for the blob's lock, and hold it (True). False: who has it gets next to nothing; go on with a file of your own."""
        lock = self.lock(digest)
        ours = await self._taken(lock, digest)
        try:
            yield ours
        finally:
            if ours:
                lock.release()

    async def _taken(self, lock: asyncio.Lock, digest: str) -> bool:
        while True:
            holder = self._holders.get(digest)
            before = 0 if holder is None else holder.arrived
            try:
                async with asyncio.timeout(SLOW_SECONDS):
                    await lock.acquire()
                return True
            except TimeoutError:
                same = holder is not None and holder is self._holders.get(digest) and not holder.complete
                if same and holder is not None and holder.arrived - before < SLOW_BYTES:
                    return False

    def open(self, digest: str, length: int, *, alone: bool = False) -> PartialBlob:
        """The blob's file, made if missing; its lock is held. Raises InvalidArgument for no digest, SystemFailure: no room; OSError.

        alone: a file of one's own, without a lock; it does not survive its closing. So it is, too, where the file has more than this length
        already: somebody is wrong, and what has come is not to be lost to a false promise.
        """
        if not self._is_digest(digest):
            raise InvalidArgument(f"unsupported digest algorithm: {digest}")
        own = alone or self._size(digest) > length
        path = self._directory / f"{_ALONE}{os.urandom(8).hex()}" if own else self._path(digest)
        blob = PartialBlob(path, Digest(digest), length, keep=not own, closed=self._let_go, spare=self.drop_idle)
        try:
            self._make_room(blob.missing)
        except NoRoom as error:
            self._open.append(blob)
            blob.close()
            raise SystemFailure(f"{digest}: {error}") from error
        self._open.append(blob)
        if not alone:
            self._holders[digest] = blob
        return blob

    def check(self, blobs: Mapping[str, int], more: int = 0) -> None:
        """Raise SystemFailure when blobs of these lengths, and more bytes, do not fit on the disk all together, whatever gives way."""
        try:
            wanted = more + sum(max(0, length - self._size(digest)) for digest, length in blobs.items())
            self._take(wanted - self._idle_bytes() if blobs else wanted)
        except NoRoom as error:
            raise SystemFailure(str(error)) from error

    def drop(self, digest: str) -> None:
        """Remove a blob that has come, unless somebody is at work with it."""
        if not self.lock(digest).locked():
            self._path(digest).unlink(missing_ok=True)

    @contextmanager
    def held(self, digests: Sequence[str]) -> Iterator[None]:
        """Have these stay when they have come and are closed, as long as there is room: the rest of their image has not."""
        self._held.update(digests)
        try:
            yield
        finally:
            self._held -= Counter(digests)

    def drop_idle(self) -> int:
        """Remove what nobody fetches now. Returns the bytes that this freed."""
        return self._drop_idle(0)

    def _path(self, digest: str) -> Path:
        return self._directory / digest.removeprefix("sha256:")

    def _size(self, digest: str) -> int:
        """Bytes that have come of a blob."""
        try:
            return self._path(digest).stat().st_size
        except FileNotFoundError:
            return 0

    def _idle_bytes(self) -> int:
        """What drop_idle() would free."""
        return sum(_on_disk(file) for file in self._idle())

    def _make_room(self, wanted: int) -> None:
        """See that so much fits beside what is due soon of all that is open. Raises NoRoom, and drops nothing then."""
        wanted += sum(min(AHEAD_BYTES, blob.missing) for blob in self._open)
        try:
            self._take(wanted)
        except NoRoom:
            self._take(wanted - self._idle_bytes())
            self.drop_idle()
            self._take(wanted)

    def _take(self, size: int) -> None:
        fd = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            Room(fd).take(size, 0)
        finally:
            os.close(fd)

    def _let_go(self, blob: PartialBlob) -> None:
        self._open.remove(blob)
        if self._holders.get(blob.digest) is blob:
            del self._holders[blob.digest]
        stat = os.statvfs(self._directory)
        self._drop_idle(stat.f_blocks * stat.f_frsize // KEEP_PART, {self._path(digest) for digest in self._held})

    def _drop_idle(self, kept: int, held: Collection[Path] = ()) -> int:
        """Remove the oldest of what nobody fetches or holds, until it has no more than kept bytes. Returns the bytes that this freed."""
        idle = sorted((stat.st_mtime, stat.st_size, file) for file in self._idle() if file not in held for stat in [file.stat()])
        total, freed = sum(size for _, size, _ in idle), 0
        for _, size, file in idle:
            if total - freed <= kept:
                break
            file.unlink()
            freed += size
        return freed


def _on_disk(file: Path) -> int:
    """Bytes; of one that has gone meanwhile none (any thread)."""
    try:
        return file.lstat().st_blocks * 512
    except FileNotFoundError:
        return 0


def _remove(file: Path) -> None:
    """A file or a directory that somebody else has put there."""
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file, ignore_errors=True)
    else:
        file.unlink(missing_ok=True)
