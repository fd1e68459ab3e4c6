"""The identity of a build step: two steps with one key come to the same image. Pure."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from sampan.spec.oci_image import ContainerConfig

VERSION: Final = 1
"""Of the form of keys: those of another one are never met again."""
_encode: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode  # dumps() would make one for each key


def key(parent: str, command: Sequence[str], config: ContainerConfig, more: Sequence[str] = ()) -> str:
    """A step's key.

    parent: the image it stands on, by its ID (which names all steps before it), or for none the platform. command: what it runs, or its
    comment, in which the hash of what it copies is. config: of the image it makes. more: whatever else it reads.
    """
    document: dict[str, Any] = msgspec.to_builtins(config)
    body = _encode([VERSION, parent, list(command), document, list(more)])
    return hashlib.sha256(body.encode("utf-8", "surrogateescape")).hexdigest()
