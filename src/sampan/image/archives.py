"""What an image archive holds: docker's manifest.json (old and new), an OCI layout, or both at once. Pure: the bytes lie elsewhere.

Sources: moby image/tarexport/load.go; OCI image-spec image-layout.md; containerd core/images/archive/reference.go (names in annotations).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from sampan.archive.spool import Member
from sampan.digest import DiffId, is_sha256, sha256_of
from sampan.errors import InvalidArgument
from sampan.image.busybox import machine_platform
from sampan.image.store import Image, image_of
from sampan.reference import InvalidReference, Reference, parse
from sampan.spec.oci_layout import (
    DOCKER_INDEX,
    DOCKER_MANIFEST,
    IMAGE_NAME,
    INDEX,
    MANIFEST,
    REF_NAME,
    REFERENCE_TYPE,
    ArchiveItem,
    Descriptor,
    Index,
    Manifest,
    Platform,
)

DOCUMENT_MAX: Final = 8 << 20
"""Bytes of one JSON document: configs and manifests are some kilobytes; registries take 4 MiB at most."""
_LINKS_MAX = 16
_INDEX_DEPTH_MAX = 4
_IMAGES_MAX = 4096

T = TypeVar("T")


class PlannedLayer(NamedTuple):
    """A layer as the archive has it."""

    diff_id: DiffId
    member: Member


class PlannedImage(NamedTuple):
    """One image of an archive, not checked against the layers' bytes yet."""

    image: Image
    layers: tuple[PlannedLayer, ...]
    names: tuple[Reference, ...]
    parent: str
    """ID of another image that it says it was made from, or empty."""


class Archive:
    """The members of an archive by name, and reading the small ones."""

    def __init__(self, members: Sequence[Member], read: Callable[[Member], bytes]) -> None:
        """read gives the bytes of a member of at most DOCUMENT_MAX. The last of several members with one name counts."""
        self._members: dict[str, Member] = {member.name: member for member in members}
        self._read = read

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return name in self._members

    def directories(self) -> list[str]:
        """Names of the directories at the top that hold something."""
        return list({name.partition("/")[0] for name in self._members if "/" in name})

    def find(self, name: str) -> Member:
        """The file of a name, links followed inside the archive. Raises InvalidArgument."""
        seen = name
        for _ in range(_LINKS_MAX):
            member = self._members.get(_normal(seen))
            if member is None:
                raise InvalidArgument(f"invalid archive: {name}: no such file or directory")
            if not member.link:
                if member.offset < 0:
                    raise InvalidArgument(f"invalid archive: {name} is stored as a sparse file")
                return member
            seen = f"{member.name.rpartition('/')[0]}/{member.link}" if member.symlink else member.link
        raise InvalidArgument(f"invalid archive: {name}: too many levels of symbolic links")

    def document(self, name: str) -> bytes:
        """A JSON file's bytes. Raises InvalidArgument."""
        member = self.find(name)
        if member.size > DOCUMENT_MAX:
            raise InvalidArgument(f"invalid archive: {name} is too large: {member.size} bytes, at most {DOCUMENT_MAX}")
        return self._read(member)

    def decode(self, name: str, kind: type[T]) -> T:
        """A JSON file. Raises InvalidArgument."""
        return _decoded(self.document(name), name, kind)

    def blob(self, descriptor: Descriptor) -> Member:
        """The file of a descriptor of an OCI layout. Raises InvalidArgument."""
        if not is_sha256(descriptor.digest):
            raise InvalidArgument(f"invalid archive: digest {descriptor.digest!r} is not a sha256 digest")
        name = f"blobs/sha256/{descriptor.digest.removeprefix('sha256:')}"
        member = self.find(name)
        if descriptor.size not in (-1, member.size):
            raise InvalidArgument(f"invalid archive: unexpected size of {name}: {member.size} bytes, expected {descriptor.size}")
        return member

    def blob_document(self, descriptor: Descriptor) -> bytes:
        """A JSON blob, its digest checked: so no index can hold itself. Raises InvalidArgument."""
        member = self.blob(descriptor)
        data = self.document(member.name)
        if sha256_of(data) != descriptor.digest:
            raise InvalidArgument(
                f"invalid archive: unexpected digest of {member.name}: got {sha256_of(data)}, expected {descriptor.digest}"
            )
        return data


def _normal(name: str) -> str:
    parts: list[str] = []
    for part in name.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):  # above the root is the root, as in a chroot
            parts.append(part)
    return "/".join(parts)


def _decoded(data: bytes, name: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(data, type=kind, strict=False)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InvalidArgument(f"invalid archive: {name}: {error}") from error


def plan(archive: Archive, platform: Platform | None, own: Platform) -> Iterator[PlannedImage]:
    """The images of an archive, parents before children. Raises InvalidArgument.

    platform: only images for it; None: all of docker's manifest.json, and of an index the one for `own`, this machine.
    """
    if archive.has("manifest.json"):
        found = _from_docker(archive, platform)
    elif archive.has("index.json"):
        found = _from_oci(archive, platform, own)
    else:
        raise InvalidArgument("invalid archive: it has no manifest.json, index.json or repositories: this is not an image archive")
    empty = True
    for planned in found:
        empty = False
        yield planned
    if platform is not None and empty:
        raise InvalidArgument(f"no image for the platform {platform_text(platform)} in the archive")


# docker's manifest.json


def _from_docker(archive: Archive, platform: Platform | None) -> Iterator[PlannedImage]:
    items = archive.decode("manifest.json", list[ArchiveItem] | None)  # type: ignore[arg-type]
    if items is None:
        raise InvalidArgument("invalid manifest, manifest cannot be null (but can be [])")
    if len(items) > _IMAGES_MAX:
        raise InvalidArgument(f"invalid manifest, more than {_IMAGES_MAX} images")
    planned: list[PlannedImage] = []
    for item in items:
        image = loadable(archive.document(item.config))
        if platform is not None and not matches(platform, platform_of(image)):
            continue
        names = item.layers or []
        diff_ids = image.config.rootfs.diff_ids or []
        if len(names) != len(diff_ids):
            raise InvalidArgument(f"invalid manifest, layers length mismatch: expected {len(names)}, got {len(diff_ids)}")
        layers = tuple(PlannedLayer(DiffId(diff_id), archive.find(name)) for diff_id, name in zip(diff_ids, names, strict=True))
        references = tuple(map(_tagged, item.repo_tags or ()))
        planned.append(PlannedImage(image, layers, references, item.parent))
    yield from _parents_first(planned)


def _tagged(text: str) -> Reference:
    reference = parse(text)
    if reference.tag is None or reference.digest is not None:
        raise InvalidReference(f"invalid tag {text!r}".replace("'", '"'))
    return reference


def _parents_first(planned: list[PlannedImage]) -> Iterator[PlannedImage]:
    """In order, but a parent of the same archive before its child; a parent elsewhere, or of a ring, is forgotten."""
    by_id: Mapping[str, PlannedImage] = {item.image.id: item for item in planned}
    done: set[str] = set()
    given: set[int] = set()
    for item in planned:
        line = [item]
        while line[-1].parent in by_id and line[-1].parent not in done and by_id[line[-1].parent] not in line:
            line.append(by_id[line[-1].parent])
        for one in reversed(line):
            if id(one) in given:
                continue
            given.add(id(one))
            parent = one.parent if one.parent in done and is_child(one.image, by_id[one.parent].image) else ""
            done.add(one.image.id)
            yield one._replace(parent=parent)


def is_child(image: Image, parent: Image) -> bool:
    """Whether an image's history is its parent's and one step more (moby image/tarexport checkValidParent)."""
    history, former = image.config.history or [], parent.config.history or []
    return (not history and not former) or (len(history) == len(former) + 1 and history[:-1] == former)


# an OCI layout


def _from_oci(archive: Archive, platform: Platform | None, own: Platform) -> Iterator[PlannedImage]:
    index = archive.decode("index.json", Index)
    found: dict[str, PlannedImage] = {}
    for descriptor in index.manifests or ():
        if (descriptor.annotations or {}).get(REFERENCE_TYPE):
            continue
        if descriptor.platform is not None and platform is not None and not matches(platform, descriptor.platform):
            continue
        manifest = _manifest(archive, descriptor, platform or own, 0)
        planned = None if manifest is None else _oci_image(archive, manifest)
        if planned is None or (platform is not None and not matches(platform, platform_of(planned.image))):
            continue
        names = found[planned.image.id].names if planned.image.id in found else ()
        name = _name_of(descriptor.annotations or {})
        found[planned.image.id] = planned._replace(names=names if name is None or name in names else (*names, name))
        if len(found) > _IMAGES_MAX:
            raise InvalidArgument(f"invalid archive: index.json names more than {_IMAGES_MAX} images")
    if not found and index.manifests and platform is None:
        raise InvalidArgument(f"no image for the platform {platform_text(own)} in the archive")
    yield from found.values()


def _manifest(archive: Archive, descriptor: Descriptor, platform: Platform, depth: int) -> Manifest | None:
    """The manifest of a descriptor; of an index the one for a platform, or None when it has none. Raises InvalidArgument."""
    if depth > _INDEX_DEPTH_MAX:
        raise InvalidArgument(f"invalid archive: indexes within indexes, more than {_INDEX_DEPTH_MAX} deep")
    if descriptor.media_type not in (INDEX, DOCKER_INDEX):
        if descriptor.media_type not in (MANIFEST, DOCKER_MANIFEST):
            raise InvalidArgument(f"invalid archive: {descriptor.digest} is no image: media type {descriptor.media_type!r}")
        return _decoded(archive.blob_document(descriptor), descriptor.digest, Manifest)
    chosen = for_platform(_decoded(archive.blob_document(descriptor), descriptor.digest, Index), platform)
    return None if chosen is None else _manifest(archive, chosen, platform, depth + 1)


def _oci_image(archive: Archive, manifest: Manifest) -> PlannedImage:
    image = loadable(archive.blob_document(manifest.config))
    diff_ids = image.config.rootfs.diff_ids or []
    if len(manifest.layers) != len(diff_ids):
        raise InvalidArgument(f"invalid manifest, layers length mismatch: expected {len(manifest.layers)}, got {len(diff_ids)}")
    layers = tuple(PlannedLayer(DiffId(diff_id), archive.blob(layer)) for diff_id, layer in zip(diff_ids, manifest.layers, strict=True))
    return PlannedImage(image, layers, (), "")


def _name_of(annotations: Mapping[str, str]) -> Reference | None:
    """The name an OCI layout's annotations give: containerd's is whole; OCI's own may be no more than a tag, which names nothing."""
    text = annotations.get(IMAGE_NAME, "")
    if not text:
        text = annotations.get(REF_NAME, "")
        if "/" not in text and ":" not in text:
            return None
    reference = parse(text).with_default_tag()
    return None if reference.digest is not None else reference


# both


def own_platform() -> Platform:
    """This machine's."""
    architecture, variant = machine_platform()
    return Platform(architecture, "linux", variant)


def platform_text(platform: Platform) -> str:
    """`linux/arm64/v8`."""
    return "/".join(part for part in (platform.os, platform.architecture, platform.variant) if part)


def loadable(document: bytes) -> Image:
    """The image of a config document. Raises InvalidArgument for one that cannot run here, too."""
    image = image_of(document)
    if image.config.os not in ("linux", ""):
        raise InvalidArgument(f"cannot load {image.config.os} image on linux")
    return image


def platform_of(image: Image) -> Platform:
    """What an image runs on."""
    return Platform(image.config.architecture, image.config.os, image.config.variant)


def for_platform(index: Index, platform: Platform) -> Descriptor | None:
    """The first of an index's manifests that is an image's and for that platform, or says nothing of platforms."""
    entries = [entry for entry in index.manifests or () if not (entry.annotations or {}).get(REFERENCE_TYPE)]
    return next((entry for entry in entries if entry.platform is None or matches(platform, entry.platform)), None)


def matches(wanted: Platform, offered: Platform) -> bool:
    """Whether an image for `offered` is one for `wanted`; a variant left out is any."""
    return (
        wanted.os == offered.os
        and wanted.architecture in ("", offered.architecture)
        and (not wanted.variant or not offered.variant or wanted.variant == offered.variant)
    )
