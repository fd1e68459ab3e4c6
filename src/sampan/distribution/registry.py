"""One repository at one endpoint, as the OCI distribution spec has it: manifests and blobs. Errors are docker's."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import msgspec

from sampan.digest import Digest, is_sha256, sha256_of, verify
from sampan.distribution.auth import Authorizer
from sampan.distribution.endpoints import Endpoint
from sampan.distribution.transport import Answer, Transport
from sampan.errors import InvalidArgument, SystemFailure
from sampan.spec import oci_layout

MANIFEST_TYPES = (oci_layout.DOCKER_MANIFEST, oci_layout.DOCKER_INDEX, oci_layout.MANIFEST, oci_layout.INDEX)
SCHEMA1_TYPES = ("application/vnd.docker.distribution.manifest.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws")
MANIFEST_MAX = 4 << 20
ERROR_MAX = 64 * 1024
PAGES_MAX = 1000
_ATTEMPTS = 3
"""Unknown yet what is wanted; with a token that has just run out; with a fresh one."""


class Manifest(NamedTuple):
    """A manifest or index as the registry has it."""

    digest: Digest
    media_type: str
    body: bytes


class _Detail(msgspec.Struct):
    code: str = ""
    message: str = ""


class _Errors(msgspec.Struct):
    errors: list[_Detail] = []


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class Refused(SystemFailure):
    """The registry answered with an error; `code` is one of the spec's, lower case with blanks, or the HTTP status in words."""

    def __init__(self, status: int, code: str, message: str, retry_after: int = 0) -> None:
        """retry_after: seconds that the registry asks us to wait."""
        super().__init__(f"{code}: {message}" if message else code)
        self.status, self.code, self.retry_after = status, code, retry_after


class Repository:
    """Reads a repository. Used within the life of its transport."""

    def __init__(self, transport: Transport, endpoint: Endpoint, path: str, authorizer: Authorizer) -> None:
        """path: `library/busybox`."""
        self._transport = transport
        self.endpoint = endpoint
        self.path = path
        self._authorizer = authorizer
        self._scope = f"repository:{path}:pull"

    async def ping(self) -> None:
        """Ask whether a registry answers here. Raises Unreachable, SystemFailure."""
        async with self._request("GET", "/v2/") as answer:
            if answer.status not in (200, 401):
                raise SystemFailure(f'Get "{answer.url}": unexpected status {answer.status}: no registry answers there')

    async def manifest(self, reference: str) -> Manifest:
        """By tag or digest; a digest is verified. Raises Refused, Unreachable, InvalidArgument."""
        headers = {"Accept": ", ".join(MANIFEST_TYPES)}
        async with self._request("GET", f"/v2/{self.path}/manifests/{reference}", headers) as answer:
            body = await self._body(answer)
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        digest = Digest(sha256_of(body))
        if is_sha256(reference) and digest != reference:
            raise InvalidArgument(f"manifest verification failed for digest {reference}")
        if media_type in SCHEMA1_TYPES:
            raise InvalidArgument(
                f'not implemented: media type "{media_type}" is no longer supported: the image is in the format of before 2017, and '
                "must be pushed anew by a newer docker"
            )
        return Manifest(digest, media_type, body)

    async def document(self, descriptor: oci_layout.Descriptor, limit: int) -> bytes:
        """A small blob, verified. Raises as manifest does."""
        if descriptor.size > limit:
            raise InvalidArgument(f"blob {descriptor.digest} is larger than {limit} bytes")
        async with self.blob(descriptor.digest, 0) as answer:
            body = await answer.read(limit)
        verify(Digest(sha256_of(body)), len(body), Digest(descriptor.digest), None)
        return body

    @asynccontextmanager
    async def blob(self, digest: str, offset: int) -> AsyncIterator[Answer]:
        """A blob from an offset on: status 206, or 200 and the whole of it. Raises Refused, Unreachable."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._request("GET", f"/v2/{self.path}/blobs/{digest}", headers) as answer:
            if answer.status not in (200, 206):
                await self._body(answer)
            yield answer

    @asynccontextmanager
    async def _request(self, method: str, path: str, headers: dict[str, str] | None = None) -> AsyncIterator[Answer]:
        """Send, with what the registry wants to see once it has refused us."""
        url = self.endpoint.url + path
        for attempt in range(_ATTEMPTS):
            merged = {**(headers or {}), **await self._authorizer.headers(self._scope)}
            async with self._transport.request(method, url, headers=merged, insecure=self.endpoint.insecure) as answer:
                refused = answer.status == 401 and attempt < _ATTEMPTS - 1
                if not refused or not self._authorizer.learn(answer.headers.get("WWW-Authenticate", ""), self._scope):
                    yield answer
                    return

    async def _body(self, answer: Answer) -> bytes:
        """The body of a success. Raises Refused in the registry's words."""
        if answer.status == 200:
            return await answer.read(MANIFEST_MAX)
        code, message = "", ""
        body = await answer.read(ERROR_MAX)
        try:
            for item in msgspec.json.decode(body, type=_Errors).errors[:1]:
                code, message = item.code.lower().replace("_", " "), item.message
        except msgspec.DecodeError:
            pass
        asked = answer.headers.get("Retry-After", "")
        raise Refused(answer.status, code or f"unexpected status {answer.status}", message, int(asked[:6]) if asked.isdecimal() else 0)

    async def tags(self) -> list[str]:
        """All tags, following the pages. Raises as manifest does."""
        found: list[str] = []
        path = f"/v2/{self.path}/tags/list"
        for _ in range(PAGES_MAX):
            async with self._request("GET", path) as answer:
                body = await self._body(answer)
                link = answer.headers.get("Link", "")
            try:
                found += msgspec.json.decode(body, type=_Tags).tags or []
            except msgspec.DecodeError as error:
                raise SystemFailure(f"the registry's list of tags cannot be read: {error}") from error
            target, _, relation = link.partition(">")
            if not target.startswith("<") or "next" not in relation:
                break
            following = urlsplit(urljoin(self.endpoint.url + path, target[1:]))
            path = f"{following.path}?{following.query}"
        return found
