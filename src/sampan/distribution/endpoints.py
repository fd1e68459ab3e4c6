"""Where an image may be fetched from: the mirrors of its registry in their order, then the registry (moby registry/service_v2.go)."""

from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from sampan.reference import DEFAULT_DOMAIN
from sampan.registryhosts import HUB, is_insecure


class Endpoint(NamedTuple):
    """One base URL, without the slash at its end."""

    url: str
    insecure: bool = False
    """Any certificate will do."""
    mirror: bool = False
    namespace: str = ""
    """The registry that a mirror of several is asked for (`?ns=`, containerd docs/hosts.md)."""
    insecure_registries: tuple[str, ...] = ()
    """Those of daemon.json, by which a token server on another host is judged."""


def endpoints_of(
    domain: str, mirrors: Sequence[str] = (), insecure_registries: Sequence[str] = (), own_mirrors: Sequence[str] = ()
) -> list[Endpoint]:
    """In the order they are tried. Insecure registries, and all on loopback, are tried by https first, then in the clear.

    mirrors: of docker.io, whatever the domain. own_mirrors: of this domain, told so by `?ns=`.
    """
    found: list[Endpoint] = []
    listed = tuple(insecure_registries)
    for mirror, namespace in [*((url, "") for url in mirrors if domain == DEFAULT_DOMAIN), *((url, domain) for url in own_mirrors)]:
        insecure = is_insecure(urlsplit(mirror).netloc, listed)
        found.append(Endpoint(mirror.rstrip("/"), insecure, mirror=True, namespace=namespace, insecure_registries=listed))
    if domain == DEFAULT_DOMAIN:
        return [*found, Endpoint(f"https://{HUB}", insecure_registries=listed)]
    insecure = is_insecure(domain, listed)
    found.append(Endpoint(f"https://{domain}", insecure, insecure_registries=listed))
    if insecure:
        found.append(Endpoint(f"http://{domain}", insecure, insecure_registries=listed))
    return found
