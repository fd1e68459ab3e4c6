"""What is read of manifests."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.registry import documents
from sampan.registry.errors import RegistryError
from sampan.spec.oci_layout import CONFIG, INDEX, MANIFEST
from tests.support.registryserver import descriptor, digest_of, manifest_of


def test_everything_of_a_manifest() -> None:
    subject = descriptor(b"subject", MANIFEST)
    body = manifest_of(b"config", b"one", b"two", subject=subject, annotations={"a": "b"})
    assert documents.read(body, MANIFEST) == documents.Contents(
        MANIFEST,
        tuple((digest_of(blob), len(blob)) for blob in (b"config", b"one", b"two")),  # type: ignore[misc]
        frozenset(digest_of(blob) for blob in (b"config", b"one", b"two")),  # type: ignore[arg-type]
        (),
        digest_of(b"subject"),  # type: ignore[arg-type]
        CONFIG,
        {"a": "b"},
    )


def test_the_artifact_type_is_the_documents_own() -> None:
    assert documents.read(manifest_of(b"c", artifactType="x/y")).artifact_type == "x/y"


def test_what_is_named_again_and_again_is_looked_for_once() -> None:
    found = documents.read(manifest_of(b"config", *[b"layer"] * 20_000))
    assert len(found.blobs) == 2
    entries = [descriptor(b"manifest", MANIFEST)] * 20_000
    assert len(documents.read(json.dumps({"schemaVersion": 2, "manifests": entries}).encode(), INDEX).manifests) == 1


@pytest.mark.parametrize("more", [{"config": descriptor(b"", CONFIG)}, {"layers": []}])
def test_no_document_is_both(more: dict[str, object]) -> None:
    """CVE-2021-41190: what one reader takes for a manifest, and another for an index."""
    with pytest.raises(RegistryError):
        documents.read(json.dumps({"schemaVersion": 2, "manifests": [], **more}).encode(), INDEX)


@pytest.mark.parametrize("more", [{}, {"fsLayers": [{"blobSum": "sha256:x"}]}, {"schemaVersion": 3, "fsLayers": []}, {"fsLayers": [{}]}])
def test_what_is_not_even_of_schema_1(more: dict[str, object]) -> None:
    with pytest.raises(RegistryError):
        documents.references(json.dumps({"schemaVersion": 1, **more}).encode())


@settings(max_examples=50, deadline=None)
@given(
    st.binary(max_size=200) | st.text(max_size=50).map(lambda text: json.dumps({"schemaVersion": 2, "config": {"digest": text}}).encode())
)
def test_hostile_bytes(body: bytes) -> None:
    with pytest.raises(RegistryError):
        documents.read(body, MANIFEST)
    with pytest.raises(RegistryError):
        documents.references(body)
