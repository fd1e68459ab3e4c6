"""What pull, push, login and search have in common: the endpoints of a name, in their order, and what refusals mean, in docker's words."""

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from sampan.clock import Clock
from sampan.content.partial import PartialBlobs
from sampan.distribution.auth import Authorizer
from sampan.distribution.endpoints import Endpoint, endpoints_of
from sampan.distribution.registry import Refused, Repository, is_outage
from sampan.distribution.transport import Transport
from sampan.engine import asking
from sampan.engine.asking import Answers, SetAside, patient, unreachable, within
from sampan.engine.registrysettings import RegistrySettings
from sampan.errors import InvalidArgument, NotFound, SystemFailure
from sampan.reference import DEFAULT_DOMAIN, Reference
from sampan.spec.docker_api.auth import AuthConfig
from sampan.state.blobs import BlobSource, BlobSourceRepository
from sampan.version import ENGINE_VERSION

T = TypeVar("T")


class Registries:
    """All registries, as this daemon's settings have them; what it fetches from them, and what it knows of their blobs."""

    def __init__(
        self,
        settings: RegistrySettings,
        partials: PartialBlobs,
        sources: BlobSourceRepository,
        clock: Clock,
        aside: SetAside | None = None,
        *,
        verify: bool = True,
    ) -> None:
        """verify: endpoints must be who they say, unless the settings know better."""
        self.settings = settings
        self.partials = partials
        self.sources = sources
        self.aside = aside or SetAside(clock)
        self._clock = clock
        self._verify = verify

    def trusting(self, domain: str) -> "Registries":
        """The same, but that any certificate of one registry and of its mirrors will do, or none of the registry's, for once."""
        settings = msgspec.structs.replace(self.settings, insecure_registries=(*self.settings.insecure_registries, domain))
        return Registries(settings, self.partials, self.sources, self._clock, self.aside, verify=False)

    def transport(self) -> Transport:
        """Connections for one use case. Use as a context manager."""
        return Transport(f"docker/{ENGINE_VERSION} sampan", self.settings.proxies)

    def readable(self, transport: Transport, reference: Reference, credentials: AuthConfig) -> Sequence[Repository]:
        """Where a repository can be read, in the order to try: mirrors that have failed of late come last."""
        found = []
        endpoints = self._trusted(self.settings.endpoints_of(reference.domain))
        for endpoint in sorted(endpoints, key=lambda endpoint: self.aside.reason(endpoint.url) != ""):
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

    def endpoints(self, domain: str) -> Sequence[Endpoint]:
        """The endpoints of a registry itself, in the order to try."""
        return self._trusted(endpoints_of(domain, (), self.settings.insecure_registries))

    def _trusted(self, endpoints: Sequence[Endpoint]) -> Sequence[Endpoint]:
        return endpoints if self._verify else [endpoint._replace(insecure=True) for endpoint in endpoints]

    def warnings(self) -> list[str]:
        """A line for `docker info` about each mirror that is set aside."""
        domains = dict.fromkeys((DEFAULT_DOMAIN, *self.settings.mirrors_by_registry))
        found = [(domain, url) for domain in domains for url in self.settings.mirrors_of(domain)]
        return [
            f"WARNING: the mirror {url}/ of {domain} is not asked for {self.aside.seconds(url)} s: {self.aside.reason(url)}"
            for domain, url in found
            if self.aside.reason(url)
        ]

    def usable(self, repositories: Sequence[Repository]) -> Sequence[Repository]:
        """Those of them that have not failed of late; all if there are none."""
        return [one for one in repositories if not self.aside.reason(one.endpoint.url)] or repositories

    def note_failure(self, endpoint: Endpoint, error: Exception) -> None:
        """Set a mirror aside if the error says that it fails as a whole."""
        if endpoint.mirror and is_outage(error):
            self.aside.put(endpoint.url, str(error))

    async def first(
        self,
        transport: Transport,
        reference: Reference,
        credentials: AuthConfig,
        ask: Callable[[Repository], Awaitable[T]],
    ) -> tuple[Sequence[Repository], T]:
        """The first endpoint that has it with those behind it, and what it says. Raises what the last, or the registry itself, says."""
        tried: list[tuple[Endpoint, Exception]] = []
        found = self.readable(transport, reference, credentials)
        async with Answers(found, reference.domain) as answers:
            for at, repository in enumerate(found):
                endpoint = repository.endpoint
                try:
                    await answers.of(at)
                    done = await answers.what(at, ask(repository) if endpoint.mirror else patient(lambda: ask(repository)))  # noqa: B023
                    self.aside.forget(endpoint.url)
                    return found[at:], done
                except (SystemFailure, InvalidArgument) as error:
                    self.note_failure(endpoint, error)
                    failure = translated(error, reference) if isinstance(error, Refused) else error
                    final = isinstance(error, (Refused, InvalidArgument)) or (reference.domain == DEFAULT_DOMAIN and not is_outage(error))
                    if final and not endpoint.mirror:
                        raise failure from error
                    tried.append((endpoint, failure))
        raise unreachable(reference, tried) from tried[-1][1]

    async def any_of(self, repositories: Sequence[Repository], ask: Callable[[Repository], Awaitable[T]]) -> T:
        """What the first of them says in time, or when a mirror fails, those behind it. Raises what the last one raises."""
        candidates = self.usable(repositories)
        for repository in candidates[:-1]:
            try:
                return await within(ask(repository), asking.DOCUMENT_SECONDS, repository.endpoint)
            except (SystemFailure, InvalidArgument) as error:
                if not repository.endpoint.mirror:
                    raise
                self.note_failure(repository.endpoint, error)
        return await within(patient(lambda: ask(candidates[-1])), asking.LAST_SECONDS, candidates[-1].endpoint)

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
