"""Manifests of images that go out. Pure."""

import json
from collections.abc import Sequence

import msgspec

from sampan.image.store import Image
from sampan.spec import oci_layout
from sampan.spec.oci_layout import Descriptor
from sampan.state.blobs import ManifestRow

_COMPRESSIONS = {"gzip": ("+gzip", ".gzip"), "zstd": ("+zstd", ".zstd"), "": ("", "")}
"""How OCI and docker write a layer's compression at the end of its media type"""
GZIPPED = oci_layout.DOCKER_LAYER + ".gzip"


def compression_of(media_type: str) -> str | None:
    """`gzip`, `zstd`, or "" for a layer's media type; None: not a layer that we could push."""
    for name, ends in _COMPRESSIONS.items():
        if media_type in (oci_layout.LAYER + ends[0], oci_layout.DOCKER_LAYER + ends[1]):
            return name
    return None


def layers_of(manifest: ManifestRow | None, image: Image) -> list[Descriptor | None]:
    """For each layer the blob by which the image came, bottom first; None where that is not known."""
    known: list[Descriptor] = []
    if manifest is not None:
        try:
            known = msgspec.json.decode(manifest.body, type=oci_layout.Manifest).layers
        except msgspec.DecodeError:
            known = []
    if len(known) != len(image.chain):
        return [None] * len(image.chain)
    return list(known)


def manifest_for(image: Image, layers: Sequence[Descriptor], former: ManifestRow | None) -> ManifestRow:
    """The manifest of an image whose layers a registry has as these blobs, bottom first.

    The one by which it came if that fits, so that its digest stays; else docker's v2s2, byte for byte as dockerd writes it; OCI's if
    the image came by that or has a layer that docker's cannot name.
    """
    if former is not None:
        known = msgspec.json.decode(former.body, type=oci_layout.Manifest)
        if known.config.digest == image.id and [item.digest for item in known.layers] == [item.digest for item in layers]:
            return former
    kinds = [compression_of(layer.media_type) or "" for layer in layers]
    oci = (former is not None and former.media_type == oci_layout.MANIFEST) or "zstd" in kinds
    base, column = (oci_layout.LAYER, 0) if oci else (oci_layout.DOCKER_LAYER, 1)
    media_type = oci_layout.MANIFEST if oci else oci_layout.DOCKER_MANIFEST
    config = Descriptor(oci_layout.CONFIG if oci else oci_layout.DOCKER_CONFIG, image.id, len(image.document))
    entries = [Descriptor(base + _COMPRESSIONS[kind][column], item.digest, item.size) for kind, item in zip(kinds, layers, strict=True)]
    document = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": _written(config),
        "layers": [_written(entry) for entry in entries],
    }
    return ManifestRow(media_type, json.dumps(document, indent=3).encode())


def _written(item: Descriptor) -> dict[str, str | int]:
    """A descriptor in the order of moby's vendored distribution v2 (blobs.go)."""
    return {"mediaType": item.media_type, "size": item.size, "digest": item.digest}
