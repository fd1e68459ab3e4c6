"""Documents that others wrote: whatever the bytes are, the answer is an error of ours, in time and memory with a bound."""

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from sampan.archive.spool import Member
from sampan.errors import InvalidArgument
from sampan.image import archives, legacy, platforms
from sampan.image.archives import Archive, PlannedImage
from sampan.image.store import HISTORY_MAX, LAYERS_MAX, image_of
from sampan.spec.oci_documents import ELEMENTS_MAX, NESTING_MAX, decode
from sampan.spec.oci_layout import Index, Manifest
from tests.support.imagetars import INDEX, MANIFEST, blob, config, descriptor, digest, oci_files, oci_index, oci_manifest

DEADLINE = 10.0
"""Seconds, on a slow machine; without the bounds minutes and gigabytes"""


class Files:
    """An archive in memory that counts what is read of it."""

    def __init__(self, files: Mapping[str, bytes], links: Mapping[str, str] | None = None) -> None:
        """links: hard links by name."""
        self.read = 0
        """Bytes"""
        contents = list(files.values())
        members = [Member(name, number, len(data), "", False, False) for number, (name, data) in enumerate(files.items())]
        members += [Member(name, 0, 0, target, False, False) for name, target in (links or {}).items()]

        def read(member: Member) -> bytes:
            self.read += member.size
            return contents[member.offset]

        self.archive = Archive(members, read)

    def plan(self) -> list[PlannedImage]:
        """Its images, in time."""
        begun = time.process_time()
        try:
            return list(archives.plan(self.archive, None, platforms.own()))
        finally:
            assert time.process_time() - begun < DEADLINE


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """Lists within lists, in a field that nobody knows."""
    return b'{"unknown":' + opening * depth + closing * depth + b"}"


def large(size: int) -> bytes:
    """A config of about that size."""
    return config(b"layer", author="x" * size)


def docker(document: bytes, count: int) -> Files:
    """A manifest.json that names one config so often."""
    items = [{"Config": "c", "Layers": ["l"]}] * count
    return Files({"c": document, "l": b"", "manifest.json": json.dumps(items).encode()})


@pytest.mark.parametrize("kind", [Index, Manifest, dict[str, Any], dict[str, msgspec.Raw]])
@pytest.mark.parametrize(
    "document",
    [
        nested(NESTING_MAX),
        nested(900),
        nested(200_000),
        nested(50_000, b'{"a":', b"}"),
        nested(50_000, b'[{"]":', b"}]"),
        nested(200_000, closing=b""),
        b'{"a":"' + b"[" * 200_000,
        b'"\\"' * 200_000,
        b"",
    ],
    ids=["just", "many", "lists", "objects", "both", "open", "open-text", "quotes", "empty"],
)
def test_what_cannot_be_read(document: bytes, kind: type) -> None:
    begun = time.process_time()
    with pytest.raises(InvalidArgument, match=r"^the thing: "):
        decode(document, kind, "the thing")
    assert time.process_time() - begun < DEADLINE


@pytest.mark.parametrize("document", [b"\xff\xfe", b'{"mediaType":"\xff"}'])
def test_what_is_not_utf_8(document: bytes) -> None:
    with pytest.raises(InvalidArgument, match=r"^the thing: "):
        decode(document, Index, "the thing")


def test_what_can_be_read() -> None:
    """As deep as it may be, and brackets in texts, which are no depth."""
    assert decode(nested(NESTING_MAX - 1), dict[str, Any], "it").keys() == {"unknown"}
    words = ['["\\[{'] * 1000
    assert decode(json.dumps({"a": words}).encode(), dict[str, Any], "it") == {"a": words}
    with pytest.raises(InvalidArgument, match=f"^it: more than {ELEMENTS_MAX} values$"):
        decode(b"[" + b"0," * ELEMENTS_MAX + b"0]", list[int], "it")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (config(b"x", unknown=json.loads(nested(500))), "lists and objects within each other"),
        (config(*[b"x"] * (LAYERS_MAX + 1)), f"{LAYERS_MAX + 1} layers, at most {LAYERS_MAX}"),
        (
            config(b"x", history=[{"empty_layer": True}] * HISTORY_MAX + [{}]),
            f"a history of {HISTORY_MAX + 1} steps, at most {HISTORY_MAX}",
        ),
        (config(b"x", author="\udcff"), "invalid image config: "),
    ],
    ids=["nested", "layers", "history", "surrogate"],
)
def test_a_config_that_is_refused(document: bytes, message: str) -> None:
    with pytest.raises(InvalidArgument, match=message):
        image_of(document)


def test_one_config_4096_times_is_read_once() -> None:
    document = large(4_000_000)
    files = docker(document, archives.IMAGES_MAX)
    planned = files.plan()
    assert len(planned) == archives.IMAGES_MAX
    assert len({id(item.image) for item in planned}) == 1
    assert files.read < len(document) + 1_000_000
    with pytest.raises(InvalidArgument, match=f"more than {archives.IMAGES_MAX} images"):
        docker(document, archives.IMAGES_MAX + 1).plan()


def test_all_documents_together_have_a_bound() -> None:
    """Configs of a large size, and small ones with many values."""
    values = config(b"layer", config={"Env": ["ab"] * 50_000})
    for document in (large(4_000_000), values):
        many = {f"c{number}": document for number in range(200)}
        items = [{"Config": name, "Layers": ["l"]} for name in many]
        files = Files({**many, "l": b"", "manifest.json": json.dumps(items).encode()})
        with pytest.raises(InvalidArgument, match="its documents are too large together"):
            files.plan()
        assert files.read <= archives.DOCUMENTS_MAX + archives.DOCUMENT_MAX


def test_names_have_a_bound() -> None:
    items = [{"Config": "c", "RepoTags": ["a:1"] * (archives.NAMES_MAX + 1), "Layers": ["l"]}]
    with pytest.raises(InvalidArgument, match=f"more than {archives.NAMES_MAX} names"):
        Files({"c": config(b""), "l": b"", "manifest.json": json.dumps(items).encode()}).plan()


def only_index(files: Mapping[str, bytes | str], entries: Sequence[dict[str, Any]]) -> Files:
    """An OCI layout with another index.json."""
    return Files({name: data for name, data in files.items() if isinstance(data, bytes)} | {"index.json": oci_index(*entries)})


def test_an_index_of_one_manifest_80000_times() -> None:
    layer = b"layer"
    files = oci_files(config(layer), [layer])
    entry = {"mediaType": MANIFEST, "digest": digest(oci_manifest(config(layer), [layer]))}
    with pytest.raises(InvalidArgument, match=r"too large|more than"):
        only_index(files, [entry] * 80_000).plan()
    names = [{**entry, "annotations": {"io.containerd.image.name": f"docker.io/a/b:{number}"}} for number in range(archives.NAMES_MAX)]
    (planned,) = only_index(files, names).plan()
    assert len(planned.names) == archives.NAMES_MAX


def test_many_indexes_that_lead_to_a_large_one() -> None:
    other = {"mediaType": MANIFEST, "digest": "sha256:" + "0" * 64, "platform": {"os": "plan9", "architecture": "x"}}
    last = oci_index(*[other] * 20_000)
    files: dict[str, bytes] = {blob(last): last}
    below = descriptor(last, INDEX)
    entries: list[dict[str, Any]] = []
    for number in range(5000):
        data = oci_index({**below, "annotations": {"n": str(number)}})
        files[blob(data)] = data
        entries.append({"mediaType": INDEX, "digest": digest(data)})
    with pytest.raises(InvalidArgument, match="no image for the platform"):
        only_index(files, entries).plan()


def test_links_are_followed_in_time() -> None:
    """Each name of the manifest leads through links whose texts are long."""
    turns = "x/../" * 700
    links = {f"c{number}": f"{turns}c{number + 1}" for number in range(14)} | {"c14": "c"}
    items = [{"Config": f"{'./' * (number % 30)}c0", "Layers": ["l"]} for number in range(archives.IMAGES_MAX)]
    assert len(Files({"c": config(b""), "l": b"", "manifest.json": json.dumps(items).encode()}, links).plan()) == len(items)


def test_hard_links_of_a_legacy_archive_to_one_json() -> None:
    document = json.dumps({"id": "0", "comment": "x" * 4_000_000}).encode()
    layers = {f"{number:04}/layer.tar": b"" for number in range(archives.IMAGES_MAX)}
    links = {f"{number:04}/json": "json" for number in range(archives.IMAGES_MAX)}
    files = Files({"json": document, "repositories": b"{}", **layers}, links)
    begun = time.process_time()
    with pytest.raises(InvalidArgument, match="its documents are too large together"):
        list(legacy.images(files.archive))
    assert files.read <= len(document)
    more = Files({**{f"{number:05}/layer.tar": b"" for number in range(archives.IMAGES_MAX + 1)}, "repositories": b"{}"})
    with pytest.raises(InvalidArgument, match=f"more than {archives.IMAGES_MAX} images"):
        list(legacy.images(more.archive))
    assert time.process_time() - begun < DEADLINE
    assert more.read == 0
