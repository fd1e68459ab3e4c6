"""What a registry reads of a manifest: its type, what it names, its subject. Pure. (image-spec manifest.md, image-index.md)"""

from typing import NamedTuple

import msgspec

from sampan.digest import Digest
from sampan.errors import InvalidArgument
from sampan.registry.errors import RegistryError
from sampan.registry.names import is_digest
from sampan.spec import oci_documents
from sampan.spec.oci_layout import DOCKER_INDEX, DOCKER_MANIFEST, INDEX, MANIFEST

INDEXES = frozenset((INDEX, DOCKER_INDEX))
TYPES = frozenset((MANIFEST, DOCKER_MANIFEST)) | INDEXES


class _Descriptor(msgspec.Struct, rename="camel"):
    media_type: str = ""
    digest: str = ""
    size: int = -1
    urls: list[str] | None = None


class _Document(msgspec.Struct, rename="camel"):
    schema_version: int = 0
    media_type: str = ""
    artifact_type: str = ""
    config: _Descriptor | None = None
    layers: list[_Descriptor] | None = None
    manifests: list[_Descriptor] | None = None
    subject: _Descriptor | None = None
    annotations: dict[str, str] | None = None


class _Layer1(msgspec.Struct, rename="camel"):
    blob_sum: str


class _Document1(msgspec.Struct, rename="camel"):
    """Schema 1 (docker-registry, docs/spec/manifest-v2-1.md): nothing is done with it but that its layers are kept."""

    schema_version: int
    fs_layers: list[_Layer1]


class Referrer(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One entry of a list of referrers."""

    media_type: str
    digest: str
    size: int
    artifact_type: str = ""
    annotations: dict[str, str] | None = None


class Contents(msgspec.Struct, frozen=True):
    """A manifest or index, read."""

    media_type: str
    blobs: tuple[tuple[Digest, int], ...]
    """(digest, size) of what must be in the repository as blobs: config and layers, but those that lie elsewhere.

    Each once, however often a manifest has it: each is looked for."""
    named: frozenset[Digest]
    """All blobs it names, wherever they are said to lie: what must not be collected."""
    manifests: tuple[Digest, ...]
    """What an index names."""
    subject: Digest | None
    artifact_type: str
    """Its own, or the type of its config."""
    annotations: dict[str, str] | None

    def referrer(self, digest: str, size: int) -> Referrer:
        """How a list of referrers has it."""
        return Referrer(self.media_type, digest, size, self.artifact_type, self.annotations)


class References(NamedTuple):
    """What must not be collected as long as a manifest is there, and what it refers to itself."""

    blobs: tuple[Digest, ...]
    manifests: tuple[Digest, ...]
    subject: Digest | None


def read(body: bytes, sent_as: str = "") -> Contents:
    """sent_as: the Content-Type it came with, whose parameters do not count; "": its own word is taken.

    Raises RegistryError MANIFEST_INVALID.
    """
    try:
        document = oci_documents.decode(body, _Document, "manifest")
    except InvalidArgument as error:
        raise RegistryError("MANIFEST_INVALID", error.message) from None
    said = sent_as.partition(";")[0].strip().lower()
    media_type = document.media_type or said or _guess(document)
    if said and said != media_type:
        raise RegistryError("MANIFEST_INVALID", f"mediaType in manifest should be '{said}' not '{media_type}'")
    if media_type not in TYPES:
        raise RegistryError("MANIFEST_INVALID", f"unsupported manifest media type {media_type[:200]!r}")
    if document.schema_version != 2:
        raise RegistryError("MANIFEST_INVALID", f"unrecognized manifest schema version {document.schema_version}")
    if media_type in INDEXES:
        if document.manifests is None or document.config is not None or document.layers is not None:
            raise RegistryError("MANIFEST_INVALID", "an index has manifests, and neither config nor layers")
        blobs: list[_Descriptor] = []
    else:
        if document.config is None or document.layers is None or document.manifests is not None:
            raise RegistryError("MANIFEST_INVALID", "a manifest has config and layers, and no manifests")
        blobs = [document.config, *(layer for layer in document.layers if not layer.urls)]
    named = [*blobs, *(document.layers or ()), *(document.manifests or ()), *([document.subject] if document.subject else [])]
    for descriptor in named:
        if not is_digest(descriptor.digest) or descriptor.size < 0:
            raise RegistryError("MANIFEST_INVALID", f"a descriptor has digest {descriptor.digest[:200]!r} and size {descriptor.size}")
    artifact_type = document.artifact_type or (document.config.media_type if document.config is not None else "")
    return Contents(
        media_type,
        tuple(dict.fromkeys((Digest(item.digest), item.size) for item in blobs)),
        frozenset(Digest(item.digest) for item in (*blobs, *(document.layers or ()))),
        tuple(dict.fromkeys(Digest(item.digest) for item in document.manifests or ())),
        Digest(document.subject.digest) if document.subject is not None else None,
        artifact_type,
        document.annotations,
    )


def references(body: bytes) -> References:
    """Of a manifest in the store, of schema 1 as well. Raises RegistryError MANIFEST_INVALID."""
    try:
        contents = read(body)
    except RegistryError:
        return _references1(body)
    return References(tuple(contents.named), contents.manifests, contents.subject)


def _references1(body: bytes) -> References:
    try:
        document = oci_documents.decode(body, _Document1, "manifest")
    except InvalidArgument as error:
        raise RegistryError("MANIFEST_INVALID", error.message) from None
    if document.schema_version != 1 or not all(is_digest(layer.blob_sum) for layer in document.fs_layers):
        raise RegistryError("MANIFEST_INVALID", "it is no manifest")
    return References(tuple(Digest(layer.blob_sum) for layer in document.fs_layers), (), None)


def _guess(document: _Document) -> str:
    """OCI documents need not say what they are."""
    return INDEX if document.manifests is not None else MANIFEST


def media_type(body: bytes) -> str:
    """Of a manifest in the store, which was read when it came. Raises RegistryError MANIFEST_INVALID: it came by another way."""
    return read(body).media_type
