"""Where content lies below the data root. No other module builds these paths.

<data root>/content/
    ingest/<random>             being written: invisible, removed at start
    blobs/sha256/<64 hex>       complete and verified, never changed
    partial/<64 hex>            the first bytes of a blob that is being fetched, not verified
"""

from pathlib import Path

from sampan.digest import Digest


def ingest_dir(root: Path) -> Path:
    """Directory of blobs being written."""
    return root / "content" / "ingest"


def partial_dir(root: Path) -> Path:
    """Directory of blobs being fetched."""
    return root / "content" / "partial"


def blobs_dir(root: Path) -> Path:
    """Directory of complete blobs."""
    return root / "content" / "blobs" / "sha256"


def blob_path(root: Path, digest: Digest) -> Path:
    """A complete blob."""
    return blobs_dir(root) / digest.removeprefix("sha256:")
