"""What may stand in daemon.json as a mirror, and of which registry: one rule for sampand and for `sampan mirror`."""

import re
from urllib.parse import urlsplit

from sampan.reference import DEFAULT_DOMAIN

_REGISTRY = re.compile(r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]{1,5})?", re.ASCII)
_PASSWORD = re.compile(r"(//[^/?#:]*:)[^/?#]*@")
_HUBS = ("index.docker.io", "registry-1.docker.io", "registry.hub.docker.com", "hub.docker.com")


def normalised(url: str) -> str:
    """A mirror's URL as `docker info` shows it: with a slash at its end."""
    return url.rstrip("/") + "/"


def problem_of_mirror(url: str) -> str:
    """Why a URL cannot be a mirror, or "". The words are docker's (moby registry/config.go ValidateMirror), without a password."""
    given, url = url, _PASSWORD.sub(r"\1xxxxx@", url)
    try:
        parts = urlsplit(given)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return f'invalid mirror: "{url}" is not a valid URI'
    if parts.scheme not in ("http", "https"):
        return f'invalid mirror: unsupported scheme "{parts.scheme}" in "{url}"'
    if not host or any(char <= " " for char in url):
        return f'invalid mirror: "{url}" is not a valid URI'
    if parts.query or parts.fragment:
        return f'invalid mirror: query or fragment at end of the URI "{url}"'
    if parts.username is not None:
        return f'invalid mirror: username/password not allowed in URI "{url}"'
    return ""


def problem_of_registry(name: str) -> str:
    """Why a name cannot be that of a mirrored registry, or "": it is HOST[:PORT], as at the head of an image's name."""
    if name in _HUBS:
        return f'invalid registry "{name}": images of Docker Hub are those of {DEFAULT_DOMAIN}'
    if "://" in name or not _REGISTRY.fullmatch(name) or not ("." in name or ":" in name or name == "localhost"):
        return f'invalid registry "{name}": it is HOST[:PORT], as in ghcr.io'
    return ""
