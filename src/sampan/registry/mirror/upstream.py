"""A registry that is mirrored: asked by the same client that sampand pulls with, left alone for a while when it fails."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from sampan.distribution.auth import Authorizer
from sampan.distribution.endpoints import Endpoint
from sampan.distribution.registry import MANIFEST_TYPES, Refused, Repository, is_outage, seconds_of
from sampan.distribution.transport import Transport
from sampan.errors import EngineError, SystemFailure
from sampan.reference import DEFAULT_DOMAIN, OFFICIAL_PREFIX, is_repository_path
from sampan.registry.config import MirrorConfig, place_of_mirror
from sampan.registry.documents import Referrer
from sampan.registry.errors import RegistryError
from sampan.registry.names import is_digest
from sampan.registryhosts import HUB
from sampan.spec.docker_api.auth import AuthConfig

REPOSITORIES_MAX = 500
"""Whose tokens are remembered."""
REST_SECONDS = 15.0
"""How long an upstream that does not answer is not asked again."""
REST_MAX = 3600.0
FETCHES_AT_ONCE = 16
TAG_ENCODED_MAX = 64
"""Of a digest, in a tag that stands for it: tags end."""
UNKNOWN_CODES = ("manifest unknown", "name unknown")


class Outage(Exception):
    """The upstream does not answer, answers nonsense, or asks us to wait: a stale copy is better than nothing."""


class Unknown(RegistryError):
    """The upstream says itself that it has no such thing; other refusals may be a token server's, a proxy's, or pass."""


class Asked(NamedTuple):
    """What HEAD says of a blob or a tag; digest: "" if it does not say."""

    size: int
    digest: str


class _Index(msgspec.Struct):
    manifests: list[Referrer] = []


class Upstream:
    """name: as images have it. now: monotonic seconds."""

    def __init__(
        self, name: str, config: MirrorConfig, transport: Transport, password: str, now: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.prefix = config.prefix or (name if is_repository_path(name) else "")
        self.stored_under = place_of_mirror(name, config)
        self.fresh_seconds = config.fresh_seconds
        url = config.url or (f"https://{HUB}" if name == DEFAULT_DOMAIN else f"https://{name}")
        self._endpoint = Endpoint(url.rstrip("/"), config.insecure, mirror=True)
        self._transport = transport
        self._credentials = AuthConfig(config.username, password)
        self._repositories: OrderedDict[str, Repository] = OrderedDict()
        self._now = now
        self._resting_until = 0.0
        self.fetching = asyncio.Semaphore(FETCHES_AT_ONCE)

    def path_of(self, name: str) -> str:
        """A repository's name there: `busybox` of Docker Hub is `library/busybox`."""
        return OFFICIAL_PREFIX + name if self.name == DEFAULT_DOMAIN and "/" not in name else name

    def repository(self, path: str) -> Repository:
        """With its tokens."""
        found = self._repositories.pop(path, None)
        if found is None:
            authorizer = Authorizer(self._transport, self._credentials, self._endpoint)
            found = Repository(self._transport, self._endpoint, path, authorizer, is_digest=is_digest)
        self._repositories[path] = found
        while len(self._repositories) > REPOSITORIES_MAX:
            self._repositories.popitem(last=False)
        return found

    @asynccontextmanager
    async def asked(self) -> AsyncIterator[None]:
        """Around whatever is asked of it. Raises Outage for its failures; RegistryError for its refusals, of which one is Unknown."""
        if self._now() < self._resting_until:
            raise Outage(f"{self.name} did not answer a moment ago")
        try:
            yield
        except Refused as error:
            if error.status == 429 or error.status >= 500:
                self._resting_until = self._now() + min(max(error.retry_after, REST_SECONDS), REST_MAX)
                raise Outage(error.message) from error
            # Docker Hub says 401 of what is not there; whoever asks us has other places to ask.
            detail = {"upstream": self.name, "status": error.status, "message": error.message}
            kind = Unknown if error.status == 404 and error.code in UNKNOWN_CODES else RegistryError
            raise kind("MANIFEST_UNKNOWN" if error.status in (401, 403, 404) else "UNAVAILABLE", detail) from error
        except EngineError as error:
            if is_outage(error):
                self._resting_until = self._now() + REST_SECONDS
                raise Outage(error.message) from error
            raise self.unavailable(message=error.message) from error

    def unavailable(self, **detail: object) -> RegistryError:
        """What is told where there is no copy."""
        return RegistryError("UNAVAILABLE", {"upstream": self.name, **detail})

    async def head(self, path: str, what: str) -> Asked:
        """what: `blobs/DIGEST`, `manifests/TAG`. Raises as asked() does."""
        async with self.asked():
            repository = self.repository(path)
            headers = {"Accept": ", ".join(MANIFEST_TYPES)} if what.startswith("manifests/") else {}
            async with repository.request("HEAD", f"/v2/{path}/{what}", headers) as answer:
                if answer.status != 200:
                    raise Refused(answer.status, f"{what}: status {answer.status}", "", seconds_of(answer.headers.get("Retry-After", "")))
                if answer.length is None and what.startswith("blobs/"):
                    raise SystemFailure(f"{what}: no Content-Length")
                return Asked(answer.length or 0, answer.headers.get("Docker-Content-Digest", ""))

    async def referrers(self, path: str, digest: str) -> list[Referrer]:
        """Those of one manifest, unfiltered; [] where it knows of none. Raises as asked() does."""
        async with self.asked():
            repository = self.repository(path)
            async with repository.request("GET", f"/v2/{path}/referrers/{digest}") as answer:
                body = b"" if answer.status in (400, 404, 405) else await repository.body(answer)
        if not body:
            body = await self._tagged_referrers(path, digest)
        try:
            return msgspec.json.decode(body, type=_Index).manifests if body else []
        except msgspec.DecodeError:
            raise Outage(f"the list of referrers of {self.name} cannot be read") from None

    async def _tagged_referrers(self, path: str, digest: str) -> bytes:
        """The index that clients keep under a tag where there is no such list (distribution-spec, "Referrers Tag Schema"); b"": none."""
        algorithm, _, encoded = digest.partition(":")
        try:
            async with self.asked():
                return (await self.repository(path).manifest(f"{algorithm}-{encoded[:TAG_ENCODED_MAX]}")).body
        except RegistryError as error:
            if error.code == "MANIFEST_UNKNOWN":
                return b""
            raise


class Place(NamedTuple):
    """A repository of an upstream. namespace: what `?ns=` said."""

    upstream: Upstream
    path: str
    namespace: str

    @property
    def name(self) -> str:
        """What access rules call it."""
        return f"{self.upstream.stored_under}/{self.path}"
