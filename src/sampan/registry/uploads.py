"""Blobs on their way in: one file each, which becomes the blob or goes.

    OPEN ──write──> WRITING ──the end of the body, or the client is gone──> OPEN
      └──finish: it becomes the blob; cancel; idle for too long──> GONE

What came before a connection broke stays, and the client goes on from there. After a restart of the registry, too: the digest of what is
there is then computed again.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from sampan.archive.room import NoRoom, Room
from sampan.digest import Digest
from sampan.registry.errors import RegistryError
from sampan.registry.names import ALGORITHMS, parts_of
from sampan.waiting import to_the_end

if TYPE_CHECKING:
    from hashlib import _Hash

BATCH = 1 << 20
"""Bytes that are handed to a thread at once, to be hashed and written."""
UPLOADS_MAX = 10_000


class State(Enum):
    """See the module's docstring."""

    OPEN = "open"
    WRITING = "writing"
    GONE = "gone"


class _Record(msgspec.Struct):
    """upload.json"""

    repository: str
    algorithm: str = "sha256"
    owner: str = ""


class Upload:
    """One upload. size: bytes that are in the file."""

    def __init__(self, directory: Path, repository: str, algorithm: str, owner: str) -> None:
        self.id = directory.name
        self.directory = directory
        self.repository = repository
        self.algorithm = algorithm
        self.owner = owner
        self.state = State.OPEN
        self.used = time.monotonic()
        self.size = 0
        self._hash: _Hash | None = hashlib.new(algorithm)

    @property
    def file(self) -> Path:
        """The bytes that have come."""
        return self.directory / "data"

    def recover(self) -> None:
        """Take up a file of a life before this one."""
        self.size = self.file.stat().st_size
        self._hash = None

    @contextlib.contextmanager
    def _writer(self) -> Iterator[int]:
        if self.state is not State.OPEN:
            raise RegistryError("BLOB_UPLOAD_INVALID", f"the upload is {self.state.value}")
        self.state = State.WRITING
        fd = os.open(self.file, os.O_WRONLY | os.O_CLOEXEC | os.O_APPEND)
        try:
            yield fd
        finally:
            os.close(fd)
            self.used = time.monotonic()
            if self.state is State.WRITING:
                self.state = State.OPEN

    @staticmethod
    def _take_room(room: Room, size: int) -> None:
        """See that the disk keeps its reserve: for manifests, deletions and the host. Raises OSError."""
        try:
            room.take(size, 0)
        except NoRoom as error:
            raise OSError(errno.ENOSPC, str(error)) from None

    async def write(self, pieces: AsyncIterator[bytes], limit: int) -> None:
        """Append a body. limit: bytes that the blob may have in all; 0: any number.

        Raises RegistryError TOOLARGE, and what pieces raises; what came until then stays.
        """
        with self._writer() as fd:
            room = Room(fd)
            waiting: list[bytes] = []
            count = 0
            under_way: asyncio.Task[None] | None = None
            try:
                async for piece in pieces:
                    waiting.append(piece)
                    count += len(piece)
                    if count >= BATCH:
                        if under_way is not None:
                            await to_the_end(under_way)
                        if limit and self.size + count > limit:
                            raise RegistryError("TOOLARGE", f"blobs may have {limit} bytes")
                        under_way = asyncio.create_task(asyncio.to_thread(self._append, fd, room, waiting))
                        waiting, count = [], 0
            finally:
                if under_way is not None:
                    await to_the_end(under_way)
                fits = not limit or self.size + count <= limit
                if fits:
                    await to_the_end(asyncio.to_thread(self._append, fd, room, waiting))
            if not fits:
                raise RegistryError("TOOLARGE", f"blobs may have {limit} bytes")

    def _append(self, fd: int, room: Room, pieces: list[bytes]) -> None:
        self._take_room(room, sum(map(len, pieces)))
        try:
            for piece in pieces:
                view = memoryview(piece)
                while view:
                    view = view[os.write(fd, view) :]
                if self._hash is not None:
                    self._hash.update(piece)
                self.size += len(piece)
        except OSError:  # what is left of a piece is neither hashed nor counted: the client would go on behind it
            os.ftruncate(fd, self.size)
            raise

    async def cut(self, size: int) -> None:
        """Give up what came after size bytes."""
        self._hash = None
        await asyncio.to_thread(os.truncate, self.file, size)
        self.size = size

    async def digest(self, algorithm: str) -> str:
        """Of all that came."""
        if self._hash is None or self._hash.name != algorithm:

            def compute() -> "_Hash":
                with self.file.open("rb") as file:
                    return hashlib.file_digest(file, algorithm)

            self._hash = await asyncio.to_thread(compute)
        return f"{algorithm}:{self._hash.hexdigest()}"


class Uploads:
    """All uploads, in a directory. lifetime: seconds that one may be idle. at_once, each: of all, and of one user."""

    def __init__(self, directory: Path, *, lifetime: float, at_once: int = UPLOADS_MAX, each: int = UPLOADS_MAX) -> None:
        self._directory = directory
        self._lifetime = lifetime
        self._at_once, self._each = at_once, each
        self._known: dict[str, Upload] = {}
        directory.mkdir(parents=True, exist_ok=True)
        for entry in directory.iterdir():
            try:
                record = msgspec.json.decode((entry / "upload.json").read_bytes(), type=_Record)
                upload = Upload(entry, record.repository, record.algorithm, record.owner)
                upload.recover()
            except (OSError, msgspec.DecodeError, ValueError):
                shutil.rmtree(entry, ignore_errors=True)
            else:
                self._known[entry.name] = upload

    def __len__(self) -> int:
        return len(self._known)

    async def begin(self, repository: str, algorithm: str = "sha256", owner: str = "") -> Upload:
        """owner: a user, or the address of who is none. Raises RegistryError TOOMANYREQUESTS; DIGEST_INVALID: we do not compute it."""
        if algorithm not in ALGORITHMS:
            raise RegistryError("DIGEST_INVALID", {"algorithm": algorithm[:100]}, message="unsupported digest algorithm")
        theirs = sum(upload.owner == owner for upload in self._known.values())
        if len(self._known) >= self._at_once or theirs >= self._each:
            whose = f"{self._at_once} uploads" if theirs < self._each else f"{self._each} uploads of yours"
            raise RegistryError("TOOMANYREQUESTS", f"{whose} are under way", headers={"Retry-After": "60"})
        upload = Upload(self._directory / str(uuid.uuid4()), repository, algorithm, owner)
        self._known[upload.id] = upload
        try:
            upload.directory.mkdir()
            upload.file.touch(0o644)
            (upload.directory / "upload.json").write_bytes(msgspec.json.encode(_Record(repository, algorithm, owner)))
        except OSError:
            await self.forget(upload)
            raise
        return upload

    def find(self, repository: str, id: str) -> Upload:
        """Raises RegistryError BLOB_UPLOAD_UNKNOWN."""
        upload = self._known.get(id)
        if upload is None or upload.repository != repository:
            raise RegistryError("BLOB_UPLOAD_UNKNOWN", {"id": id[:100]})
        upload.used = time.monotonic()
        return upload

    async def finish(self, upload: Upload, digest: Digest) -> Path:
        """Check what came against its digest; the file is the caller's then, and forget() is to follow.

        Raises RegistryError DIGEST_INVALID, BLOB_UPLOAD_INVALID, after which the upload is gone.
        """
        if upload.state is not State.OPEN:
            raise RegistryError("BLOB_UPLOAD_INVALID", f"the upload is {upload.state.value}")
        upload.state = State.GONE
        found = upload.file.stat().st_size
        if found != upload.size:  # the digest is of what was counted
            await self.forget(upload)
            raise RegistryError("BLOB_UPLOAD_INVALID", f"the upload has {found} bytes, not {upload.size}")
        computed = await upload.digest(parts_of(digest).algorithm)
        if computed != digest:
            await self.forget(upload)
            raise RegistryError("DIGEST_INVALID", {"digest": digest, "computed": computed})
        return upload.file

    async def forget(self, upload: Upload) -> None:
        """Cancel, or end: nothing of it is left."""
        upload.state = State.GONE
        self._known.pop(upload.id, None)
        await asyncio.to_thread(shutil.rmtree, upload.directory, ignore_errors=True)

    async def expire(self, now: Callable[[], float] = time.monotonic) -> int:
        """Forget those that nobody has gone on with; how many."""
        old = [upload for upload in self._known.values() if upload.state is State.OPEN and now() - upload.used > self._lifetime]
        for upload in old:
            await self.forget(upload)
        return len(old)
