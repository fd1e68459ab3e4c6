"""What the daemon's configuration says about registries."""

from collections.abc import Mapping

import msgspec

from sampan.distribution.endpoints import Endpoint, endpoints_of
from sampan.proxies import Proxies


class RegistrySettings(msgspec.Struct, frozen=True):
    """Of daemon.json, the command line and the environment."""

    mirrors: tuple[str, ...] = ()
    """Of docker.io, which they all are taken to mirror"""
    mirrors_by_registry: Mapping[str, tuple[str, ...]] = {}
    """Of any registry, each asked for it by `?ns=`"""
    insecure_registries: tuple[str, ...] = ()
    max_concurrent_downloads: int = 3
    """0: as many as there are"""
    max_concurrent_uploads: int = 5
    """0: as many as there are"""
    max_download_attempts: int = 5
    proxies: Proxies = Proxies()

    def mirrors_of(self, domain: str) -> list[str]:
        """The URLs of a registry's mirrors, in the order they are asked."""
        return [endpoint.url for endpoint in self.endpoints_of(domain) if endpoint.mirror]

    def endpoints_of(self, domain: str) -> list[Endpoint]:
        """A registry's mirrors, then itself."""
        return endpoints_of(domain, self.mirrors, self.insecure_registries, self.mirrors_by_registry.get(domain, ()))
