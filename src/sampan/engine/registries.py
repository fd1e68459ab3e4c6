"""What pull, push and login have in common: the registries of a name, how they are reached, their refusals in docker's words."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from sampan.clock import Clock
from sampan.content.partial import PartialBlobs
from sampan.distribution.auth import Authorizer
from sampan.distribution.endpoints import Endpoint, endpoints_of
from sampan.distribution.proxies import Proxies
from sampan.distribution.registry import Refused, Repository
from sampan.distribution.transport import Transport
from sampan.errors import InvalidArgument, NotFound, SystemFailure
from sampan.reference import Reference
from sampan.spec.docker_api.auth import AuthConfig
from sampan.state.blobs import BlobSource, BlobSourceRepository
from sampan.version import ENGINE_VERSION

T = TypeVar("T")
R = TypeVar("R")


class RegistrySettings(msgspec.Struct, frozen=True):
    """What daemon.json says about registries."""

    mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    max_concurrent_downloads: int = 3
    """0: as many as there are"""
    max_concurrent_uploads: int = 5
    """0: as many as there are"""
    max_download_attempts: int = 5
    proxies: Proxies = Proxies()


class Slots:
    """So many at a time, by a number that may change; 0: no limit (moby distribution/xfer/transfer.go). Use with `async with`."""

    def __init__(self, number: Callable[[], int]) -> None:
        self._number = number
        self._taken = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def locked(self) -> bool:
        """Whether the next one has to wait."""
        return 0 < self._number() <= self._taken

    async def __aenter__(self) -> None:
        while self.locked():
            self._waiting.add(waiter := asyncio.get_running_loop().create_future())
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)
        self._taken += 1

    async def __aexit__(self, *_: object) -> None:
        self._taken -= 1
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)


class Registries:
    """All registries, as this daemon's settings have them; what it fetches from them, and what it knows of their blobs."""

    def __init__(self, settings: RegistrySettings, partials: PartialBlobs, sources: BlobSourceRepository, clock: Clock) -> None:
        self.settings = settings
        self.partials = partials
        self.sources = sources
        self._clock = clock

    def trusting(self, domain: str) -> "Registries":
        """The same, but that any certificate of one registry will do, or none, for once."""
        settings = msgspec.structs.replace(self.settings, insecure_registries=(*self.settings.insecure_registries, domain))
        return Registries(settings, self.partials, self.sources, self._clock)

    def transport(self) -> Transport:
        """Connections for one use case. Use as a context manager."""
        return Transport(f"docker/{ENGINE_VERSION} sampan", self.settings.proxies)

    def readable(self, transport: Transport, reference: Reference, credentials: AuthConfig) -> Sequence[Repository]:
        """Where a repository can be read, in the order to try."""
        found = []
        for endpoint in self.endpoints(reference.domain, mirrors=True):
            # a mirror is not the registry the user logged in to
            authorizer = Authorizer(transport, AuthConfig() if endpoint.mirror else credentials, endpoint)
            found.append(Repository(transport, endpoint, reference.path, authorizer))
        return found

    def writable(self, transport: Transport, reference: Reference, credentials: AuthConfig) -> Sequence[Repository]:
        """Where a repository can be written: never a mirror."""
        found = []
        for endpoint in self.endpoints(reference.domain):
            authorizer = Authorizer(transport, credentials, endpoint)
            found.append(Repository(transport, endpoint, reference.path, authorizer, actions="pull,push"))
        return found

    def endpoints(self, domain: str, *, mirrors: bool = False) -> Sequence[Endpoint]:
        """The endpoints of a registry, in the order to try."""
        return endpoints_of(domain, self.settings.mirrors if mirrors else (), self.settings.insecure_registries)

    async def first(
        self,
        transport: Transport,
        reference: Reference,
        credentials: AuthConfig,
        ask: Callable[[Repository], Awaitable[T]],
        made: Callable[[Sequence[Repository], T], R],
    ) -> R:
        """What the first endpoint says that has it, made of it and those behind it. Raises what the last, or the registry itself, says."""
        tried: list[str] = []
        failure: Exception | None = None
        found = self.readable(transport, reference, credentials)
        for at, repository in enumerate(found):
            try:
                await repository.ping()
                return made(found[at:], await ask(repository))
            except Refused as error:
                failure = translated(error, reference)
                if not repository.endpoint.mirror:
                    raise failure from error
            except (SystemFailure, InvalidArgument) as error:
                if isinstance(error, InvalidArgument) and not repository.endpoint.mirror:
                    raise
                failure = error
            tried.append(f"{repository.endpoint.url}: {failure}")
        assert failure is not None
        if len(tried) > 1 and found[0].endpoint.mirror:
            raise SystemFailure("no mirror and no registry gave the image:\n  " + "\n  ".join(tried)) from failure
        raise failure

    def note(self, sources: Sequence[BlobSource]) -> None:
        """Remember that repositories have blobs."""
        self.sources.add(sources, self._clock.now_ns())


def translated(error: Refused, reference: Reference) -> NotFound | SystemFailure:
    """The registry's refusal of a pull as dockerd words it (moby distribution/errors.go)."""
    match error.code:
        case "denied":
            name = reference.familiar_name
            return NotFound(f"pull access denied for {name}, repository does not exist or may require 'docker login': {error.message}")
        case "manifest unknown":
            return NotFound(f"manifest for {reference.familiar} not found: {error.message}")
        case "name unknown":
            return NotFound(f"repository {reference.familiar_name} not found: {error.message}")
    return error
