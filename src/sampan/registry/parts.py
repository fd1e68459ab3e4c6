"""What the handlers work with."""

from dataclasses import dataclass, field

from sampan.registry.store import Blobs, Manifests
from sampan.registry.uploads import Uploads

MANIFEST_MAX = 4 << 20
"""distribution-spec: a registry should take at least 4 MiB."""


@dataclass(frozen=True)
class Limits:
    """Bytes; 0: any number."""

    manifest: int = MANIFEST_MAX
    blob: int = 0


@dataclass(frozen=True)
class Parts:
    """Of one registry."""

    blobs: Blobs
    manifests: Manifests
    uploads: Uploads
    limits: Limits = field(default_factory=Limits)
    delete: bool = True
    """Whether anything can be deleted."""
