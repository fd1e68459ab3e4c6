"""What is an image's manifest, and what only looks like one."""

import json
from typing import Any

import pytest

from sampan.errors import InvalidArgument
from sampan.image.pulling import manifest_of
from sampan.spec import oci_layout

DIGEST = "sha256:" + "a" * 64
HELM = "application/vnd.cncf.helm.config.v1+json"
PLUGIN = "application/vnd.docker.plugin.v1+json"


def manifest(config: str = oci_layout.CONFIG, layer: str = oci_layout.LAYER, **more: Any) -> bytes:
    parts = [{"mediaType": kind, "digest": DIGEST, "size": 5, **more} for kind in (config, layer)]
    return json.dumps({"schemaVersion": 2, "config": parts[0], "layers": parts[1:]}).encode()


@pytest.mark.parametrize(
    ("media_type", "body", "message"),
    [
        (oci_layout.MANIFEST, manifest(HELM, "application/vnd.cncf.helm.chart.content.v1.tar+gzip"), f"unsupported media type {HELM}"),
        (oci_layout.MANIFEST, manifest(layer="application/vnd.oci.images"), "unsupported media type application/vnd.oci.images"),
        (oci_layout.MANIFEST, manifest("application/vnd.docker.ai.model"), "AI models are not yet supported by the Engine"),
        (oci_layout.DOCKER_MANIFEST, manifest(HELM), rf'^Encountered remote "{HELM}"\(unknown\) when fetching$'.replace("+", r"\+")),
        (oci_layout.DOCKER_MANIFEST, manifest(PLUGIN), r'"\(plugin\) when fetching$'),
        (oci_layout.MANIFEST, manifest(digest="sha256:x"), "unsupported digest algorithm: sha256:x"),
        (oci_layout.MANIFEST, manifest(size=-1), "a layer without a size"),
        (oci_layout.MANIFEST, json.dumps({"layers": [{}] * 501}).encode(), "501 layers, at most 500"),
    ],
)
def test_what_is_no_image(media_type: str, body: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message if media_type == oci_layout.DOCKER_MANIFEST else message.replace("+", r"\+")):
        manifest_of(body, media_type)


@pytest.mark.parametrize("kind", ["", "text/html", "application/octet-stream", oci_layout.DOCKER_CONFIG, oci_layout.CONFIG])
def test_what_is_one(kind: str) -> None:
    for media_type in (oci_layout.MANIFEST, oci_layout.DOCKER_MANIFEST):
        assert manifest_of(manifest(kind, oci_layout.DOCKER_LAYER + ".gzip"), media_type).config.media_type == kind
