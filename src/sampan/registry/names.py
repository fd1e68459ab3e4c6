"""Names of repositories, tags and digests, as requests have them (distribution-spec, "Pulling manifests"; image-spec descriptor.md)."""

import re
from typing import NamedTuple

from sampan.digest import Digest
from sampan.reference import NAME_MAX, is_repository_path, is_tag
from sampan.registry.errors import RegistryError

ALGORITHMS = {"sha256": 64, "sha512": 128}
"""Those we compute, and how many hex digits they have."""
_HEX = re.compile(r"[0-9a-f]+")


class DigestParts(NamedTuple):
    """A digest taken apart."""

    algorithm: str
    encoded: str


def parts_of(digest: str) -> DigestParts:
    """Raises RegistryError DIGEST_INVALID for what is no digest of an algorithm that we compute."""
    algorithm, _, encoded = digest.partition(":")
    if ALGORITHMS.get(algorithm) != len(encoded) or not _HEX.fullmatch(encoded):
        raise RegistryError("DIGEST_INVALID", {"digest": digest[:200]}, message="invalid digest")
    return DigestParts(algorithm, encoded)


def checked_digest(text: str) -> Digest:
    """Raises RegistryError DIGEST_INVALID."""
    parts_of(text)
    return Digest(text)


def is_digest(text: str) -> bool:
    """Whether text is a digest of an algorithm that we compute."""
    algorithm, _, encoded = text.partition(":")
    return ALGORITHMS.get(algorithm) == len(encoded) and _HEX.fullmatch(encoded) is not None


def checked_name(text: str) -> str:
    """A repository's name. Raises RegistryError NAME_INVALID."""
    if len(text) > NAME_MAX or not is_repository_path(text):
        raise RegistryError("NAME_INVALID", {"name": text[:NAME_MAX]})
    return text


def checked_tag(text: str) -> str:
    """Raises RegistryError TAG_INVALID."""
    if not is_tag(text):
        raise RegistryError("TAG_INVALID", {"tag": text[:200]}, message="invalid tag")
    return text
