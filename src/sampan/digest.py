"""Digests of content, one type for each meaning, so that mypy tells them apart (OCI image-spec descriptor.md, config.md)."""

import hashlib
import re
from typing import NewType

from sampan.errors import InvalidArgument

Digest = NewType("Digest", str)
"""Of a blob as stored or sent (`sha256:<hex>`)."""
DiffId = NewType("DiffId", str)
"""Of a layer's uncompressed tar."""
ChainId = NewType("ChainId", str)
"""Of a stack of layers."""
ImageId = NewType("ImageId", str)
"""Of an image's config document."""

_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


def is_sha256(text: str) -> bool:
    """Whether text is `sha256:` and 64 lower-case hex digits."""
    return _SHA256.fullmatch(text) is not None


def sha256_of(data: bytes) -> str:
    """`sha256:<hex>` of data."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def chain_id(parent: ChainId | None, diff_id: DiffId) -> ChainId:
    """The ChainID of a layer on its parent's stack (OCI image-spec config.md, "Layer ChainID")."""
    if parent is None:
        return ChainId(diff_id)
    return ChainId(sha256_of(f"{parent} {diff_id}".encode()))


def verify(actual: Digest, length: int, expected: Digest | None, size: int | None) -> None:
    """Raise InvalidArgument when a blob of length bytes is not the one that was asked for; None: anything will do."""
    if size is not None and length != size:
        raise InvalidArgument(f"unexpected blob size: got {length} bytes, expected {size}")
    if expected is not None and actual != expected:
        raise InvalidArgument(f"unexpected blob digest: got {actual}, expected {expected}")
