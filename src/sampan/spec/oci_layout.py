"""Documents of image archives: OCI's layout, index and manifest, docker's manifest.json.

Sources: image-spec image-layout.md, image-index.md, manifest.md; moby image/tarexport/tarexport.go.
Unknown fields are ignored; those that are left empty are not written, as Go's omitempty does.
"""

import msgspec

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
LAYOUT = b'{"imageLayoutVersion": "1.0.0"}'
"""The oci-layout file, byte for byte as docker writes it."""
REF_NAME = "org.opencontainers.image.ref.name"
IMAGE_NAME = "io.containerd.image.name"
REFERENCE_TYPE = "vnd.docker.reference.type"


class Platform(msgspec.Struct, frozen=True, omit_defaults=True):
    """Where an image runs."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A reference to a blob."""

    media_type: str = ""
    digest: str = ""
    size: int = -1
    annotations: dict[str, str] | None = None
    platform: Platform | None = None


class Manifest(msgspec.Struct, frozen=True, rename="camel"):
    """One image: its config and its layers, bottom first."""

    schema_version: int = 2
    media_type: str = MANIFEST
    config: Descriptor = Descriptor()
    layers: list[Descriptor] = []


class Index(msgspec.Struct, frozen=True, rename="camel"):
    """Several manifests or further indexes."""

    schema_version: int = 2
    media_type: str = INDEX
    manifests: list[Descriptor] | None = None


class ArchiveItem(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal"):
    """One image in docker's manifest.json."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None
    parent: str = ""
    layer_sources: dict[str, Descriptor] | None = None
