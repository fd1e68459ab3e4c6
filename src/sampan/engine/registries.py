"""What pull, push and login have in common: the registries of a name, how they are reached, their refusals in docker's words."""

import asyncio
import sys
from collections.abc import Sequence

import msgspec

from sampan.distribution.auth import Authorizer
from sampan.distribution.endpoints import endpoints_of
from sampan.distribution.proxies import Proxies
from sampan.distribution.registry import Refused, Repository
from sampan.distribution.transport import Transport
from sampan.errors import NotFound, SystemFailure
from sampan.reference import Reference
from sampan.spec.docker_api.auth import AuthConfig
from sampan.version import ENGINE_VERSION


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


def slots(number: int) -> asyncio.Semaphore:
    """So many at a time; 0: no limit (moby distribution/xfer/transfer.go)."""
    return asyncio.Semaphore(number or sys.maxsize)


def transport(settings: RegistrySettings) -> Transport:
    """Connections for one use case. Use as a context manager."""
    return Transport.make(f"docker/{ENGINE_VERSION} sampan", settings.proxies)


def repositories(settings: RegistrySettings, transport: Transport, reference: Reference, credentials: AuthConfig) -> Sequence[Repository]:
    """Where a repository can be read, in the order to try."""
    found = []
    for endpoint in endpoints_of(reference.domain, settings.mirrors, settings.insecure_registries):
        # a mirror is not the registry the user logged in to
        authorizer = Authorizer(transport, AuthConfig() if endpoint.mirror else credentials, endpoint)
        found.append(Repository(transport, endpoint, reference.path, authorizer))
    return found


def targets(settings: RegistrySettings, transport: Transport, reference: Reference, credentials: AuthConfig) -> Sequence[Repository]:
    """Where a repository can be written: never a mirror."""
    found = []
    for endpoint in endpoints_of(reference.domain, (), settings.insecure_registries):
        authorizer = Authorizer(transport, credentials, endpoint)
        found.append(Repository(transport, endpoint, reference.path, authorizer, actions="pull,push"))
    return found


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
