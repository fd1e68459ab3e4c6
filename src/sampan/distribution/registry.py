"""One repository at one endpoint, as the OCI distribution spec has it: manifests and blobs. Errors are docker's."""

import hashlib
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from math import ceil
from typing import NamedTuple
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from sampan.digest import Digest, is_sha256, sha256_of, verify
from sampan.distribution.auth import Authorizer, parse_challenges
from sampan.distribution.endpoints import Endpoint
from sampan.distribution.transport import (
    CONNECT_SECONDS,
    MIRROR_CONNECT_SECONDS,
    MIRROR_READ_SECONDS,
    READ_SECONDS,
    Answer,
    Body,
    Transport,
    Unreachable,
    is_at,
)
from sampan.errors import InvalidArgument, SystemFailure, printable
from sampan.reference import is_tag
from sampan.spec import oci_layout
from sampan.spec.docker_api.auth import AuthConfig
from sampan.spec.oci_documents import decode

MANIFEST_TYPES = (oci_layout.DOCKER_MANIFEST, oci_layout.DOCKER_INDEX, oci_layout.MANIFEST, oci_layout.INDEX)
SCHEMA1_TYPES = ("application/vnd.docker.distribution.manifest.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws")
MANIFEST_MAX = 4 << 20
ERROR_MAX = 64 * 1024
ERROR_SHOWN = 1000
"""Characters of a registry's own words that we pass on."""
TAGS_MAX = 100_000
CONFIG_MAX = 1 << 20
"""Every image's config is kept in memory. Real ones have some tens of KiB."""
WAIT_MAX = 999_999
_PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))
_BEARER_ERRORS = {
    "insufficient_scope": ("denied", "requested access to the resource is denied"),
    "invalid_token": ("unauthorized", "authentication required"),
}
"""A Bearer challenge's error → code and message (github.com/distribution/distribution registry/client/errors.go)."""
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


class _Kind(msgspec.Struct, rename="camel"):
    media_type: str = ""
    config: msgspec.Raw = msgspec.Raw()
    layers: msgspec.Raw = msgspec.Raw()
    manifests: msgspec.Raw = msgspec.Raw()


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class Refused(SystemFailure):
    """The registry answered with an error; `code` is one of the spec's, lower case with blanks, or the HTTP status in words."""

    def __init__(self, status: int, code: str, message: str, retry_after: int = 0) -> None:
        """retry_after: seconds that the registry asks us to wait."""
        super().__init__(f"{code}: {message}" if message else code)
        self.status, self.code, self.retry_after = status, code, retry_after

    @property
    def passing(self) -> bool:
        """Whether the same may be granted later."""
        return self.status in _PASSING


class NoRegistry(SystemFailure):
    """What answers there is no registry, or one that is broken."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(f'Get "{answer.url}": unexpected status {answer.status}: no registry answers there')


def is_outage(error: Exception) -> bool:
    """Whether an endpoint as a whole fails, and not what was asked of it."""
    return isinstance(error, (Unreachable, NoRegistry)) or (isinstance(error, Refused) and error.status >= 500)


class NoCredentials(Refused):
    """The registry wants a password, and the user has not logged in."""

    WORDS = "no basic auth credentials"

    def __init__(self, answer: Answer) -> None:
        super().__init__(401, f'{answer.method.title()} "{answer.url}": {self.WORDS}', "")


class Repository:
    """Reads a repository; upload.py writes to it. Used within the life of its transport."""

    def __init__(
        self,
        transport: Transport,
        endpoint: Endpoint,
        path: str,
        authorizer: Authorizer,
        *,
        actions: str = "pull",
        is_digest: Callable[[str], bool] = is_sha256,
    ) -> None:
        """path: `library/busybox`. actions: what we want to do there, `pull` or `pull,push`. is_digest: of what we can verify."""
        self._is_digest = is_digest
        self._transport = transport
        self.endpoint = endpoint
        self.path = path
        self._authorizer = authorizer
        self.scope = f"repository:{path}:{actions}"

    def _check_digest(self, digest: str) -> None:
        """Raises InvalidArgument for what nothing can be verified against."""
        if not self._is_digest(digest):
            raise InvalidArgument(f"unsupported digest algorithm: {digest}")

    async def ping(self) -> None:
        """Ask whether a registry answers here. Raises Unreachable, NoRegistry, SystemFailure."""
        async with self.request("GET", "/v2/") as answer:
            if answer.status not in (200, 401):
                raise NoRegistry(answer)

    async def manifest(self, reference: str) -> Manifest:
        """By tag or digest; a digest is verified. Raises Refused, Unreachable, InvalidArgument."""
        if ":" in reference:
            self._check_digest(reference)
        headers = {"Accept": ", ".join(MANIFEST_TYPES)}
        async with self.request("GET", f"/v2/{self.path}/manifests/{reference}", headers) as answer:
            body = await self.body(answer)
            media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        algorithm = reference.partition(":")[0] if ":" in reference else "sha256"
        digest = Digest(f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}")
        if ":" in reference and digest != reference:
            raise InvalidArgument(f"manifest verification failed for digest {reference}")
        if media_type in SCHEMA1_TYPES:
            raise InvalidArgument(
                f'not implemented: media type "{media_type}" is no longer supported: the image is in the format of before 2017, and '
                "must be pushed anew by a newer docker"
            )
        return Manifest(digest, _kind(body, media_type), body)

    async def head(self, reference: str) -> str:
        """The digest that a tag has there, as the registry says; "" when it does not. Raises Unreachable, SystemFailure."""
        async with self.request("HEAD", f"/v2/{self.path}/manifests/{reference}", {"Accept": ", ".join(MANIFEST_TYPES)}) as answer:
            return answer.headers.get("Docker-Content-Digest", "") if answer.status == 200 else ""

    async def document(self, descriptor: oci_layout.Descriptor, limit: int) -> bytes:
        """A small blob, verified. Raises as manifest does."""
        if descriptor.size > limit:
            raise InvalidArgument(f"blob {descriptor.digest} is larger than {limit} bytes")
        async with self.blob(descriptor.digest, 0) as answer:
            body = await answer.read(limit)
        verify(Digest(sha256_of(body)), len(body), Digest(descriptor.digest), descriptor.size)
        return body

    @asynccontextmanager
    async def blob(self, digest: str, offset: int) -> AsyncIterator[Answer]:
        """A blob from an offset on: status 206, or 200 and the whole of it. Raises Refused, Unreachable, InvalidArgument."""
        self._check_digest(digest)
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self.request("GET", f"/v2/{self.path}/blobs/{digest}", headers) as answer:
            if answer.status not in (200, 206):
                await self.body(answer)
            yield answer

    @asynccontextmanager
    async def request(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        *,
        data: Body | None = None,
        scope: str | None = None,
        patience: float = READ_SECONDS,
    ) -> AsyncIterator[Answer]:
        """Send, with what the registry wants to see once it has refused us. Any status may come; who we are only this endpoint learns.

        path: below the endpoint, or a whole URL (the Location of an upload). scope: instead of this repository's own.
        """
        scope = self.scope if scope is None else scope
        url = self.endpoint.url + path if path.startswith("/") else path  # a mirror's URL may have a path of its own
        ours = is_at(url, self.endpoint.url)
        if ours and self.endpoint.namespace:
            url = _for_namespace(url, self.endpoint.namespace)
        for attempt in range(_ATTEMPTS):
            merged = {**(headers or {}), **(await self._authorizer.headers(scope) if ours else {})}
            request = self._transport.request(
                method, url, headers=merged, data=data, home=self.endpoint.url, insecure=self.endpoint.insecure,
                patience=MIRROR_READ_SECONDS if self.endpoint.mirror else patience,
                connect=MIRROR_CONNECT_SECONDS if self.endpoint.mirror else CONNECT_SECONDS,
            )  # fmt: skip
            async with request as answer:
                # where a redirect leads is not asked who is to be told our password
                refused = ours and answer.status == 401 and attempt < _ATTEMPTS - 1 and is_at(answer.url, self.endpoint.url)
                offered = answer.headers.get("WWW-Authenticate", "")
                if not refused or not self._authorizer.learn(offered, scope, merged.get("Authorization", "")):
                    yield answer
                    return

    async def body(self, answer: Answer, *good: int) -> bytes:
        """The body of a success: status 200, or one of good. Raises Refused in the registry's words."""
        if answer.status in (good or (200,)):
            return await answer.read(MANIFEST_MAX)
        if answer.status == 401 and self._authorizer.wants_login:
            raise NoCredentials(answer)
        # the first of several reasons is docker's: that of the challenge (RFC 6750 §3), then those of the body
        code, message = _of_challenge(answer.headers.get("WWW-Authenticate", "")) if 400 <= answer.status < 500 else ("", "")
        with suppress(InvalidArgument, SystemFailure):  # no JSON, or broken off, or long: the status says enough
            for item in decode(await answer.read(ERROR_MAX), _Errors, "").errors[: 0 if code else 1]:
                code, message = item.code.lower().replace("_", " "), item.message
        if answer.status == 401 and not code:
            code, message = _BEARER_ERRORS["invalid_token"]
        code, message = (printable(text[:ERROR_SHOWN]) for text in (code, message))
        raise Refused(
            answer.status,
            code or f"received unexpected HTTP status: {_status_text(answer.status)}",
            message,
            seconds_of(answer.headers.get("Retry-After", "")),
        )

    async def tags(self) -> list[str]:
        """All tags, following the pages. Raises as manifest does; InvalidArgument: there are too many."""
        found: dict[str, None] = {}
        path = f"/v2/{self.path}/tags/list"
        while True:
            async with self.request("GET", path) as answer:
                body = await self.body(answer)
                link, base = answer.headers.get("Link", ""), answer.url
            page = decode(body, _Tags, "the registry's list of tags cannot be read").tags or []
            before = len(found)
            found.update(dict.fromkeys(tag for tag in page[: TAGS_MAX + 1] if is_tag(tag)))
            if len(found) > TAGS_MAX:
                raise InvalidArgument(f"the repository {self.path} has more than {TAGS_MAX} tags: pull those that you want by name")
            target, _, relation = link.partition(">")
            if not target.startswith("<") or "next" not in relation or len(found) == before:
                return list(found)
            try:
                following = urlsplit(urljoin(base, target[1:]))
            except ValueError as error:
                raise SystemFailure(f"the registry's list of tags goes on at {target[1:]!r}: {error}") from error
            path = urlsplit(self.endpoint.url)._replace(path=following.path, query=following.query).geturl()


def _kind(body: bytes, said: str) -> str:
    """The media type of a manifest or index: what the registry says, where it says one.

    A digest pins bytes, not the header beside them: what could be read as the one or the other is refused (CVE-2021-41190).
    Raises InvalidArgument, in the words of github.com/distribution/distribution manifest/.
    """
    found = decode(body, _Kind, "the registry's manifest cannot be read")
    kind = said if said in MANIFEST_TYPES else found.media_type or said
    if found.media_type and found.media_type != kind:
        raise InvalidArgument(f"mediaType in manifest should be '{kind}' not '{found.media_type}'")
    if kind in (oci_layout.INDEX, oci_layout.DOCKER_INDEX):
        if _given(found.config) or _given(found.layers):
            raise InvalidArgument("expected index but found manifest")
    elif _given(found.manifests):
        raise InvalidArgument("expected manifest but found index")
    return kind


def _given(value: msgspec.Raw) -> bool:
    return bytes(value) not in (b"", b"null")


async def log_in(transport: Transport, endpoint: Endpoint, credentials: AuthConfig) -> str:
    """Whether a registry takes somebody's credentials. Returns the identity token it gives for them, or "".

    Raises WrongCredentials, SystemFailure.
    """
    authorizer = Authorizer(transport, credentials, endpoint, offline=True)
    async with Repository(transport, endpoint, "", authorizer).request("GET", "/v2/", scope="") as answer:
        if answer.status != 200:
            raise SystemFailure(f"login attempt to {endpoint.url}/v2/ failed with status: {_status_text(answer.status)}")
    return authorizer.refresh_token


def _for_namespace(url: str, namespace: str) -> str:
    """The URL with `?ns=` in its query, which the next page of a list may have already."""
    parts = urlsplit(url)
    others = [item for item in parts.query.split("&") if item and not item.startswith("ns=")]
    return parts._replace(query="&".join((*others, "ns=" + quote(namespace, safe=":[]")))).geturl()


def seconds_of(retry_after: str) -> int:
    """How long the header wants us to wait, in seconds or by a date (RFC 9110 §10.2.3), at most WAIT_MAX; 0 for what is neither."""
    if retry_after.isdecimal() and retry_after.isascii():
        return min(int(retry_after[:10]), WAIT_MAX)
    try:
        until = parsedate_to_datetime(retry_after)
        return min(max(0, ceil(until.timestamp() - time.time())), WAIT_MAX)
    except (ValueError, OverflowError):
        return 0


def _of_challenge(header: str) -> tuple[str, str]:
    """The code and message of a Bearer challenge that says why (RFC 6750 §3.1), or ("", "")."""
    for challenge in parse_challenges(header):
        if challenge.scheme == "bearer" and challenge.parameters.get("error", "") in _BEARER_ERRORS:
            code, message = _BEARER_ERRORS[challenge.parameters["error"]]
            return code, challenge.parameters.get("error_description", "") or message
    return "", ""


def _status_text(status: int) -> str:
    """`502 Bad Gateway`"""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
