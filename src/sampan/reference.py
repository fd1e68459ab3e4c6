"""Image references: grammar, normal form and docker's error texts (distribution/reference v0.6: reference.go, normalize.go). Pure."""

import re
from functools import lru_cache
from typing import NamedTuple

from sampan.errors import InvalidArgument

DEFAULT_DOMAIN = "docker.io"
OFFICIAL_PREFIX = "library/"
DEFAULT_TAG = "latest"
NAME_MAX = 255

_ALNUM = r"[a-z0-9]+"
_COMPONENT = rf"{_ALNUM}(?:(?:\.|_|__|-+){_ALNUM})*"
_DOMAIN_COMPONENT = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_DOMAIN_COMPONENT}(?:\.{_DOMAIN_COMPONENT})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?"
_TAG = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
_DIGEST = r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(rf"((?:{_DOMAIN}/)?{_COMPONENT}(?:/{_COMPONENT})*)(?::({_TAG}))?(?:@({_DIGEST}))?", re.ASCII)
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*", re.ASCII)
_SPLIT = re.compile(rf"(?:({_DOMAIN})/)?(.+)", re.ASCII)
_HEX64 = re.compile(r"[a-f0-9]{64}")
_DIGEST_SIZES = {"sha256": 64, "sha384": 96, "sha512": 128}


class InvalidReference(InvalidArgument):
    """The text is not an image reference. The message is docker's."""


class Reference(NamedTuple):
    """A normalised reference: domain and path always there, tag and digest perhaps."""

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None

    @property
    def name(self) -> str:
        """`docker.io/library/busybox`"""
        return f"{self.domain}/{self.path}" if self.domain else self.path

    @property
    def familiar_name(self) -> str:
        """`busybox`: without what docker puts there by default."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(OFFICIAL_PREFIX)
        return self.path if "/" in short or short == self.path or not short else short

    @property
    def canonical(self) -> str:
        """`docker.io/library/busybox:1@sha256:...`"""
        return self.name + self._suffix

    @property
    def familiar(self) -> str:
        """`busybox:1@sha256:...`, what docker shows."""
        return self.familiar_name + self._suffix

    @property
    def _suffix(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        return f"{tag}@{self.digest}" if self.digest is not None else tag

    def __str__(self) -> str:
        return self.familiar

    def with_tag(self, tag: str) -> "Reference":
        """The same repository with another tag. Raises InvalidReference."""
        if not is_tag(tag):
            raise InvalidReference("invalid tag format")
        return self._replace(tag=tag)

    def with_default_tag(self) -> "Reference":
        """With `latest` where there is neither tag nor digest (reference.TagNameOnly)."""
        return self if self.tag is not None or self.digest is not None else self._replace(tag=DEFAULT_TAG)

    def repository(self) -> "Reference":
        """Without tag and digest."""
        return Reference(self.domain, self.path)


def is_repository_path(text: str) -> bool:
    """Whether text may be a repository's path at its registry: `library/busybox`."""
    return _PATH.fullmatch(text) is not None


def is_domain(text: str) -> bool:
    """Whether text may be a registry's name: `registry.example:5000`."""
    return re.fullmatch(_DOMAIN, text, re.ASCII) is not None


def is_tag(text: str) -> bool:
    """Whether text may be a tag."""
    return re.fullmatch(_TAG, text, re.ASCII) is not None


def _split_domain(text: str) -> tuple[str, str]:
    """Domain and remainder of a familiar name, defaults added (normalize.go: splitDockerDomain)."""
    first, slash, rest = text.partition("/")
    if not slash or ("." not in first and ":" not in first and first != "localhost" and first.lower() == first):
        domain, remainder = DEFAULT_DOMAIN, text
    else:
        domain, remainder = first, rest
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = OFFICIAL_PREFIX + remainder
    return domain, remainder


@lru_cache(maxsize=256)
def parse(text: str) -> Reference:
    """Parse what a user wrote, `busybox`, `x/y:1`, `localhost:5000/z@sha256:...` (ParseNormalizedNamed).

    Raises InvalidReference with docker's text.
    """
    if _HEX64.fullmatch(text):
        raise InvalidReference(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, remainder = _split_domain(text)
    # only the path must be lower case: the tag and the digest may have capitals
    path = remainder.partition("@")[0] if ":" not in remainder else remainder[: remainder.index(":")]
    if path.lower() != path:
        raise InvalidReference(f"invalid reference format: repository name ({path}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if match is None:
        raise InvalidReference("invalid reference format")
    name, tag, digest = match.groups()
    if len(name.removeprefix(f"{domain}/")) > NAME_MAX:
        raise InvalidReference(f"repository name must not be more than {NAME_MAX} characters")
    if digest is not None:
        algorithm, _, encoded = digest.partition(":")
        if algorithm not in _DIGEST_SIZES:
            raise InvalidReference("unsupported digest algorithm")
        if len(encoded) != _DIGEST_SIZES[algorithm] or encoded.lower() != encoded:
            raise InvalidReference("invalid checksum digest length" if encoded.lower() == encoded else "invalid checksum digest format")
    parts = _SPLIT.fullmatch(name)
    assert parts is not None
    return Reference(parts[1] or "", parts[2], tag, digest)
