"""Blobs and manifests into a repository (OCI distribution spec, end-4 to end-7 and end-11), however often the connection breaks."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple
from urllib.parse import quote, urljoin

from sampan.digest import sha256_of
from sampan.distribution.registry import Refused, Repository
from sampan.distribution.retrying import pause
from sampan.distribution.transport import COMMIT_SECONDS, Unreachable
from sampan.errors import SystemFailure

_BLOCK = 1 << 20
_OCTETS = {"Content-Type": "application/octet-stream"}


class BlobFile(NamedTuple):
    """A blob that is to be sent. The descriptor stays the caller's."""

    fd: int
    digest: str
    size: int


class Started(NamedTuple):
    """An upload that has begun: where it goes on."""

    location: str


async def exists(repository: Repository, digest: str) -> bool:
    """Whether the repository says that it has a blob. A HEAD cannot say why not: the upload will. Raises Unreachable."""
    async with repository.request("HEAD", f"/v2/{repository.path}/blobs/{digest}") as answer:
        return answer.status == 200


async def mount(repository: Repository, digest: str, source: str) -> Started | None:
    """Ask for a blob that another repository at the same registry has (source: its path). None: it is there now; else send it.

    Raises Refused, Unreachable.
    """
    scope = f"{repository.scope} repository:{source}:pull"
    path = f"/v2/{repository.path}/blobs/uploads/?mount={quote(digest, safe='')}&from={quote(source, safe='')}"
    async with repository.request("POST", path, scope=scope) as answer:
        await repository.body(answer, 201, 202)
        return None if answer.status == 201 else Started(_location(repository, answer.url, answer.headers.get("Location", "")))


async def send(
    repository: Repository, blob: BlobFile, begun: Started | None, *, attempts: int, progress: Callable[[str, int], None]
) -> None:
    """Upload a blob. begun: an upload to be used. progress: told `Pushing` and the bytes sent, or docker's line before a pause.

    attempts: in a row without a byte more. Raises what the last of them raised.
    """
    upload = _Upload(repository, blob, progress)
    failed = 0
    while True:
        best = upload.offset
        try:
            if begun is None:
                begun = await upload.begin()
            begun = await upload.rest(begun)
            await upload.commit(begun)
            return
        except (Unreachable, Refused) as error:
            failed = 1 if upload.offset > best else failed + 1
            if isinstance(error, Refused) and not error.passing and not upload.lost(error):
                raise
            if failed >= attempts:
                raise
            await pause(failed, error, lambda text: progress(text, upload.offset))
            begun = None if begun is None else await upload.ask(begun)
            if begun is None and upload.committing and await exists(repository, blob.digest):
                return  # only the answer was lost


class _Upload:
    """One blob on its way. offset: bytes that the registry has, as far as we know."""

    def __init__(self, repository: Repository, blob: BlobFile, progress: Callable[[str, int], None]) -> None:
        self._repository = repository
        self._blob = blob
        self._progress = progress
        self.offset = 0
        self.committing = False

    async def begin(self) -> Started:
        self.offset, self.committing = 0, False
        async with self._repository.request("POST", f"/v2/{self._repository.path}/blobs/uploads/") as answer:
            await self._repository.body(answer, 202)
            return Started(_location(self._repository, answer.url, answer.headers.get("Location", "")))

    async def rest(self, begun: Started) -> Started:
        """Send what is missing in one PATCH: what every registry understands; with a range only where the connection broke."""
        left = self._blob.size - self.offset
        if not left:
            return begun
        headers = {**_OCTETS, "Content-Length": str(left)}
        if self.offset:
            headers["Content-Range"] = f"{self.offset}-{self._blob.size - 1}"
        async with self._repository.request("PATCH", begun.location, headers, data=self._pieces, patience=COMMIT_SECONDS) as answer:
            await self._repository.body(answer, 202)
            self.offset = self._blob.size
            return Started(_location(self._repository, answer.url, answer.headers.get("Location", begun.location)))

    async def _pieces(self) -> AsyncIterator[bytes]:
        at = self.offset
        while at < self._blob.size:
            piece = await asyncio.to_thread(os.pread, self._blob.fd, min(_BLOCK, self._blob.size - at), at)
            if not piece:
                raise SystemFailure(f"blob {self._blob.digest}: its file has ended after {at} bytes")
            at += len(piece)
            yield piece
            self._progress("Pushing", at)

    async def commit(self, begun: Started) -> None:
        self.committing = True
        url = begun.location + ("&" if "?" in begun.location else "?") + "digest=" + quote(self._blob.digest, safe="")
        async with self._repository.request("PUT", url, {**_OCTETS, "Content-Length": "0"}, patience=COMMIT_SECONDS) as answer:
            await self._repository.body(answer, 201, 204)

    @staticmethod
    def lost(error: Refused) -> bool:
        """Whether the registry has forgotten the upload, or stands elsewhere than we think: it is to be begun again."""
        return error.status in (404, 416)

    async def ask(self, begun: Started) -> Started | None:
        """Where to go on after a broken connection; None: from the beginning."""
        try:
            async with self._repository.request("GET", begun.location) as answer:
                if answer.status != 204:
                    return None
                first, _, last = answer.headers.get("Range", "").removeprefix("bytes=").partition("-")
                # `0-0` is said of an empty upload too: a single byte more does not matter
                known = int(last) + 1 if first == "0" and last.isdecimal() and len(last) < 20 and last != "0" else 0
                if not 0 < known <= self._blob.size:
                    return None
                self.offset = known
                return Started(_location(self._repository, answer.url, answer.headers.get("Location", begun.location)))
        except (Unreachable, Refused):
            return None


def _location(repository: Repository, url: str, location: str) -> str:
    """Where an upload goes on, absolute; its query is the registry's own and stays as it is. Raises SystemFailure."""
    try:
        found = urljoin(url, location)
    except ValueError:
        found = ""
    if not location or not found.startswith(("http://", "https://")):
        raise SystemFailure(f"{repository.endpoint.url}: the registry does not say where to upload to (Location: {location!r})")
    return found


async def put_document(repository: Repository, document: bytes, *, attempts: int) -> str:
    """A small blob, unless it is there. Returns its digest. Raises as send does."""
    digest = sha256_of(document)
    if await exists(repository, digest):
        return digest
    fd = os.memfd_create("document", os.MFD_CLOEXEC)
    try:
        os.pwrite(fd, document, 0)
        await send(repository, BlobFile(fd, digest, len(document)), None, attempts=attempts, progress=lambda _text, _count: None)
    finally:
        os.close(fd)
    return digest


async def put_manifest(repository: Repository, tag: str, media_type: str, body: bytes, *, attempts: int) -> None:
    """Give a manifest a tag. Raises Refused, Unreachable."""
    path, headers = f"/v2/{repository.path}/manifests/{tag}", {"Content-Type": media_type}
    for attempt in range(1, attempts + 1):
        try:
            async with repository.request("PUT", path, headers, data=body, patience=COMMIT_SECONDS) as answer:
                await repository.body(answer, 201, 202)
            return
        except (Unreachable, Refused) as error:
            if attempt == attempts or (isinstance(error, Refused) and not error.passing):
                raise
            await pause(attempt, error, lambda _text: None)
