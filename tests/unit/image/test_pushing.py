"""Manifests of images that go out."""

import json

from sampan.image.pushing import compression_of, layers_of, manifest_for
from sampan.image.store import Image, image_of
from sampan.spec.oci_layout import CONFIG, DOCKER_CONFIG, DOCKER_LAYER, DOCKER_MANIFEST, LAYER, MANIFEST, Descriptor
from sampan.state.blobs import ManifestRow
from tests.support.imagetars import config

DIGESTS = ["sha256:" + letter * 64 for letter in "ab"]


def image() -> Image:
    return image_of(config(b"one", b"two"))


def gzipped(*digests: str) -> list[Descriptor]:
    return [Descriptor(DOCKER_LAYER + ".gzip", digest, 10) for digest in digests]


def written(media_type: str, *layers: Descriptor) -> ManifestRow:
    """A manifest in a form of its own, which must not change."""
    items = [{"digest": layer.digest, "size": layer.size, "mediaType": layer.media_type} for layer in layers]
    body = {"layers": items, "config": {"digest": image().id, "size": 5}, "mediaType": media_type, "annotations": {"a": "b"}}
    return ManifestRow(media_type, json.dumps(body, indent=7).encode())


def test_as_dockerd_writes_it() -> None:
    found = manifest_for(image(), gzipped(*DIGESTS), None)
    assert found.media_type == DOCKER_MANIFEST
    assert (
        found.body.decode()
        == f"""{{
   "schemaVersion": 2,
   "mediaType": "{DOCKER_MANIFEST}",
   "config": {{
      "mediaType": "{DOCKER_CONFIG}",
      "size": {len(image().document)},
      "digest": "{image().id}"
   }},
   "layers": [
      {{
         "mediaType": "{DOCKER_LAYER}.gzip",
         "size": 10,
         "digest": "{DIGESTS[0]}"
      }},
      {{
         "mediaType": "{DOCKER_LAYER}.gzip",
         "size": 10,
         "digest": "{DIGESTS[1]}"
      }}
   ]
}}"""
    )


def test_the_one_by_which_it_came() -> None:
    former = written(DOCKER_MANIFEST, *gzipped(*DIGESTS))
    assert manifest_for(image(), gzipped(*DIGESTS), former) is former
    other = manifest_for(image(), gzipped(*reversed(DIGESTS)), former)
    assert (other.media_type, b"annotations" in other.body) == (DOCKER_MANIFEST, False)


def test_oci_stays_oci() -> None:
    layers = [Descriptor(LAYER + "+gzip", digest, 10) for digest in DIGESTS]
    found = manifest_for(image(), gzipped(*reversed(DIGESTS)), written(MANIFEST, *layers))
    document = json.loads(found.body)
    assert (found.media_type, document["mediaType"], document["config"]["mediaType"]) == (MANIFEST, MANIFEST, CONFIG)
    assert [layer["mediaType"] for layer in document["layers"]] == [LAYER + "+gzip"] * 2


def test_a_layer_of_zstd_needs_oci() -> None:
    layers = [Descriptor(LAYER + "+zstd", DIGESTS[0], 10), *gzipped(DIGESTS[1])]
    document = json.loads(manifest_for(image(), layers, None).body)
    assert [layer["mediaType"] for layer in document["layers"]] == [LAYER + "+zstd", LAYER + "+gzip"]


def test_the_blobs_by_which_it_came() -> None:
    assert layers_of(None, image()) == [None, None]
    assert layers_of(ManifestRow(MANIFEST, b"{}"), image()) == [None, None]
    assert layers_of(ManifestRow(MANIFEST, b"nothing"), image()) == [None, None]
    assert layers_of(written(DOCKER_MANIFEST, *gzipped(*DIGESTS)), image()) == gzipped(*DIGESTS)


def test_compressions() -> None:
    assert [compression_of(DOCKER_LAYER + end) for end in ("", ".gzip", ".zstd", "+gzip")] == ["", "gzip", "zstd", None]
    assert [compression_of(LAYER + end) for end in ("", "+gzip", "+zstd", "+gzip+encrypted")] == ["", "gzip", "zstd", None]
