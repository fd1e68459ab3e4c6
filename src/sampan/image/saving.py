"""The members of an image archive as docker 28 writes it: an OCI layout with docker's manifest.json and repositories beside it. Pure.

Always the same bytes for the same images: members sorted, all times 1970. Left out is only the legacy `json` that docker 28 still puts
among the blobs, which nothing refers to.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from sampan.archive import writer
from sampan.archive.reader import DIRECTORY, REGULAR
from sampan.digest import ChainId, sha256_of
from sampan.errors import InvalidArgument
from sampan.image.archives import is_child
from sampan.image.store import Image
from sampan.reference import Reference
from sampan.spec.oci_layout import CONFIG, IMAGE_NAME, LAYER, LAYOUT, MANIFEST, REF_NAME, ArchiveItem, Descriptor, Index, Manifest

END = writer.END
_BLOBS = "blobs/sha256/"


class SavedImage(NamedTuple):
    """An image to be saved, under some of its names or none."""

    image: Image
    names: tuple[Reference, ...]


class SavedMember(NamedTuple):
    """A file of the archive: its bytes, or the layer whose tar they are."""

    name: str
    content: bytes
    layer: ChainId | None
    size: int

    def header(self) -> bytes:
        """The tar header before it."""
        return writer.header(self.name.encode(), REGULAR, mode=0o644, size=self.size)

    def end(self) -> bytes:
        """What follows its bytes."""
        return writer.padding(self.size)


def directories() -> Iterator[bytes]:
    """The headers that begin the archive."""
    for name in ("blobs/", _BLOBS):
        yield writer.header(name.encode(), DIRECTORY, mode=0o755)


def members(images: Sequence[SavedImage], layer_size: Callable[[ChainId], int]) -> list[SavedMember]:
    """All files, in order. layer_size: bytes of a layer's tar. Raises InvalidArgument for an image without layers."""
    files: dict[str, SavedMember] = {}
    entries: list[Descriptor] = []
    items: list[ArchiveItem] = []
    repositories: dict[str, dict[str, str]] = {}
    for image, names in images:
        diff_ids = image.config.rootfs.diff_ids or []
        if not diff_ids:
            raise InvalidArgument("empty export - not implemented")
        layers = {}
        for diff_id, chain in zip(diff_ids, image.chain, strict=True):
            path, size = _path(diff_id), layer_size(chain)
            files.setdefault(path, SavedMember(path, b"", chain, size))
            layers[diff_id] = Descriptor(media_type=LAYER, size=size, digest=diff_id)
        _put(files, _path(image.id), image.document)
        config = Descriptor(media_type=CONFIG, digest=image.id, size=len(image.document))
        manifest = msgspec.json.encode(Manifest(config=config, layers=[layers[diff_id] for diff_id in diff_ids]))
        digest = sha256_of(manifest)
        _put(files, _path(digest), manifest)
        entries += _entries(names, Descriptor(media_type=MANIFEST, digest=digest, size=len(manifest)))
        for name in names:
            repositories.setdefault(name.familiar_name, {})[name.tag or ""] = diff_ids[-1].removeprefix("sha256:")
        items.append(
            ArchiveItem(
                config=_path(image.id),
                repo_tags=[name.familiar for name in names] or None,
                layers=[_path(diff_id) for diff_id in diff_ids],
                parent=_parent(image, images),
                layer_sources=layers,
            )
        )
    _put(files, "index.json", msgspec.json.encode(Index(manifests=entries or None)))
    _put(files, "manifest.json", _manifest_json(items))
    _put(files, "oci-layout", LAYOUT)
    if repositories:
        _put(files, "repositories", msgspec.json.encode(repositories, order="sorted") + b"\n")
    return [files[name] for name in sorted(files)]


def _path(digest: str) -> str:
    return _BLOBS + digest.removeprefix("sha256:")


def _put(files: dict[str, SavedMember], name: str, content: bytes) -> None:
    files[name] = SavedMember(name, content, None, len(content))


def _entries(names: Sequence[Reference], manifest: Descriptor) -> list[Descriptor]:
    named = [
        msgspec.structs.replace(manifest, annotations={IMAGE_NAME: name.canonical, REF_NAME: name.tag or ""})
        for name in names
    ]  # fmt: skip
    return named or [manifest]


def _parent(image: Image, images: Sequence[SavedImage]) -> str:
    """The ID of the image it was made from, where that is saved as well."""
    for other, _ in images:
        if other.id == image.parent and is_child(image, other):
            return other.id
    return ""


def _manifest_json(items: list[ArchiveItem]) -> bytes:
    """As docker writes it: RepoTags is there even when it is null, the size before the digest."""
    documents = []
    for item in items:
        document = {"Config": item.config, "RepoTags": item.repo_tags, **msgspec.to_builtins(item)}
        sources = (item.layer_sources or {}).values()
        document["LayerSources"] = {
            source.digest: {"mediaType": source.media_type, "size": source.size, "digest": source.digest}
            for source in sorted(sources, key=lambda source: source.digest)
        }
        documents.append(document)
    return msgspec.json.encode(documents or None) + b"\n"
