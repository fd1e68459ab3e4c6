"""Manifests of images that come in, judged before anything of them is fetched or shown. Pure."""

from sampan.digest import is_sha256
from sampan.errors import InvalidArgument
from sampan.image import platforms
from sampan.image.store import LAYERS_MAX, Image, image_of
from sampan.spec import oci_layout
from sampan.spec.oci_documents import decode

_UNNAMED = ("application/octet-stream", "application/json", "text/html", "")
"""What old registries said of images (moby daemon/internal/distribution/registry.go)"""
_FAMILIES = ("application/vnd.oci.image", "application/vnd.docker")
_PLUGIN = "application/vnd.docker.plugin.v1+json"


def manifest_of(body: bytes, media_type: str) -> oci_layout.Manifest:
    """An image's manifest, whose digests are such, and whose parts are an image's. Raises InvalidArgument in docker's words."""
    manifest = decode(body, oci_layout.Manifest, "the registry's manifest cannot be read")
    kind = manifest.config.media_type
    if media_type == oci_layout.DOCKER_MANIFEST and kind not in (oci_layout.DOCKER_CONFIG, oci_layout.CONFIG, *_UNNAMED):
        raise InvalidArgument(f'Encountered remote "{kind}"({"plugin" if kind == _PLUGIN else "unknown"}) when fetching')
    if len(manifest.layers) > LAYERS_MAX:
        raise InvalidArgument(f"the manifest has {len(manifest.layers)} layers, at most {LAYERS_MAX}")
    for part in (manifest.config, *manifest.layers):
        _check_kind(part.media_type)
        if not is_sha256(part.digest):
            raise InvalidArgument(f"unsupported digest algorithm: {part.digest}")
    if any(layer.size < 0 for layer in manifest.layers):
        raise InvalidArgument("the manifest has a layer without a size")
    return manifest


def _check_kind(media_type: str) -> None:
    kind = media_type.lower()
    if kind.startswith("application/vnd.docker.ai."):
        raise InvalidArgument('AI models are not yet supported by the Engine, please use "docker model pull/run" instead')
    if kind not in _UNNAMED and not any(kind == family or kind.startswith(f"{family}.") for family in _FAMILIES):
        raise InvalidArgument(f"unsupported media type {media_type}")


def image_for(manifest: oci_layout.Manifest, document: bytes) -> Image:
    """The image of a config, if it fits its manifest and this machine. Raises InvalidArgument."""
    image = image_of(document)
    if len(manifest.layers) != len(image.chain):
        raise InvalidArgument(f"the manifest has {len(manifest.layers)} layers, the image's config {len(image.chain)}")
    if image.config.os not in ("linux", ""):
        raise InvalidArgument(f"operating system is not supported: an image for {platforms.shown(platforms.of(image))}")
    return image
