"""Where an image may be fetched from: the mirrors of its registry in their order, then the registry (moby registry/service_v2.go)."""

import ipaddress
from collections.abc import Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

from sampan.reference import DEFAULT_DOMAIN

HUB = "registry-1.docker.io"


class Endpoint(NamedTuple):
    """One base URL, without the slash at its end."""

    url: str
    insecure: bool = False
    """Any certificate will do."""
    mirror: bool = False
    namespace: str = ""
    """The registry that a mirror of several is asked for (`?ns=`, containerd docs/hosts.md)."""


def endpoints_of(
    domain: str, mirrors: Sequence[str] = (), insecure_registries: Sequence[str] = (), own_mirrors: Sequence[str] = ()
) -> list[Endpoint]:
    """In the order they are tried. Insecure registries, and all on loopback, are tried by https first, then in the clear.

    mirrors: of docker.io, whatever the domain. own_mirrors: of this domain, told so by `?ns=`.
    """
    found: list[Endpoint] = []
    for mirror, namespace in [*((url, "") for url in mirrors if domain == DEFAULT_DOMAIN), *((url, domain) for url in own_mirrors)]:
        insecure = is_insecure(urlsplit(mirror).netloc, insecure_registries)
        found.append(Endpoint(mirror.rstrip("/"), insecure, mirror=True, namespace=namespace))
    if domain == DEFAULT_DOMAIN:
        return [*found, Endpoint(f"https://{HUB}")]
    insecure = is_insecure(domain, insecure_registries)
    found.append(Endpoint(f"https://{domain}", insecure))
    if insecure:
        found.append(Endpoint(f"http://{domain}", insecure))
    return found


def without_scheme(listed: str) -> str:
    """An insecure registry as daemon.json names it, without the http:// that dockerd lets pass (moby registry/config.go)."""
    scheme, separator, rest = listed.partition("://")
    return rest if separator and scheme.lower() in ("http", "https") else listed


def is_insecure(host: str, insecure_registries: Sequence[str]) -> bool:
    """Whether a registry (HOST[:PORT]) may be spoken to without TLS: loopback, or listed as it is written, or by network (CIDR)."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
    name = name.strip("[]")
    listed = [without_scheme(item) for item in insecure_registries]
    if host in listed or name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return False
    if address.is_loopback:
        return True
    for item in listed:
        try:
            if "/" in item and address in ipaddress.ip_network(item, strict=False):
                return True
        except ValueError:
            continue
    return False
