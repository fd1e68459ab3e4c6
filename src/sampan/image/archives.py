"""What an image archive holds: docker's manifest.json (old and new), an OCI layout, or both at once. Pure: the bytes lie elsewhere.

Sources: moby image/tarexport/load.go; OCI image-spec image-layout.md; containerd core/images/archive/reference.go (names in annotations).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar, cast

from sampan.archive.spool import Member
from sampan.digest import DiffId, is_sha256, sha256_of
from sampan.errors import InvalidArgument
from sampan.image import platforms
from sampan.image.store import Image, image_of
from sampan.reference import InvalidReference, Reference, parse
from sampan.spec.oci_documents import decode, elements
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

DOCUMENT_MAX: Final = 4 << 20
"""Bytes of one JSON document: configs and manifests are some kilobytes; registries take 4 MiB at most."""
DOCUMENTS_MAX: Final = 128 << 20
"""Memory for all documents of an archive, as `weight` estimates it: a thousand images take a third."""
IMAGES_MAX: Final = 4096
NAMES_MAX: Final = 16_384
_LINKS_MAX = 16
_INDEX_DEPTH_MAX = 4
_ELEMENT_SIZE = 64
"""Bytes of a small value in memory"""

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


def weight(document: bytes) -> int:
    """About the bytes a document and what is read from it take in memory."""
    return len(document) + _ELEMENT_SIZE * elements(document)


class Archive:
    """The members of an archive by name, and reading the small ones: each once, and all together within DOCUMENTS_MAX."""

    def __init__(self, members: Sequence[Member], read: Callable[[Member], bytes]) -> None:
        """read gives the bytes of a member of at most DOCUMENT_MAX. The last of several members with one name counts."""
        self._members: dict[str, Member] = {member.name: member for member in members}
        self._next: dict[str, str] = {}
        """Where links lead that were followed"""
        self._read = read
        self._left = DOCUMENTS_MAX
        self._documents: dict[int, bytes] = {}
        """By offset, as all below: several names may mean one member"""
        self._digests: dict[int, str] = {}
        self._decoded: dict[tuple[int, object], Any] = {}
        self._images: dict[int, Image] = {}

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return name in self._members

    def directories(self) -> list[str]:
        """Names of the directories at the top that hold something."""
        return list({name.partition("/")[0] for name in self._members if "/" in name})

    def find(self, name: str) -> Member:
        """The file of a name, links followed inside the archive. Raises InvalidArgument."""
        at = _normal(name)
        for _ in range(_LINKS_MAX):
            member = self._members.get(at)
            if member is None:
                raise InvalidArgument(f"invalid archive: {name}: no such file or directory")
            if not member.link:
                if member.offset < 0:
                    raise InvalidArgument(f"invalid archive: {name} is stored as a sparse file")
                return member
            if at not in self._next:
                self._next[at] = _normal(f"{member.name.rpartition('/')[0]}/{member.link}" if member.symlink else member.link)
            at = self._next[at]
        raise InvalidArgument(f"invalid archive: {name}: too many levels of symbolic links")

    def document(self, name: str) -> bytes:
        """A JSON file's bytes. Raises InvalidArgument."""
        member = self.find(name)
        if member.offset not in self._documents:
            if member.size > DOCUMENT_MAX:
                raise InvalidArgument(f"invalid archive: {name} is too large: {member.size} bytes, at most {DOCUMENT_MAX}")
            document = self._read(member)
            self.charge(document)
            self._documents[member.offset] = document
        return self._documents[member.offset]

    def charge(self, document: bytes) -> None:
        """Count a document that is kept. Raises InvalidArgument when they are too large together."""
        self._left -= weight(document)
        if self._left < 0:
            raise InvalidArgument(f"invalid archive: its documents are too large together: at most {DOCUMENTS_MAX} bytes in memory")

    def decode(self, name: str, kind: type[T]) -> T:
        """A JSON file. Raises InvalidArgument."""
        key = self.find(name).offset, kind
        if key not in self._decoded:
            self._decoded[key] = decode(self.document(name), kind, f"invalid archive: {name}")
        return cast("T", self._decoded[key])

    def image(self, name: str) -> Image:
        """The image of a config. Raises InvalidArgument for one that cannot run here, too."""
        offset = self.find(name).offset
        if offset not in self._images:
            self._images[offset] = loadable(self.document(name))
        return self._images[offset]

    def blob(self, descriptor: Descriptor) -> Member:
        """The file of a descriptor of an OCI layout. Raises InvalidArgument."""
        if not is_sha256(descriptor.digest):
            raise InvalidArgument(f"invalid archive: digest {descriptor.digest!r} is not a sha256 digest")
        name = f"blobs/sha256/{descriptor.digest.removeprefix('sha256:')}"
        member = self.find(name)
        if descriptor.size not in (-1, member.size):
            raise InvalidArgument(f"invalid archive: unexpected size of {name}: {member.size} bytes, expected {descriptor.size}")
        return member

    def proved(self, descriptor: Descriptor) -> str:
        """The name of a JSON blob, its digest checked: so no index can hold itself. Raises InvalidArgument."""
        member = self.blob(descriptor)
        if member.offset not in self._digests:
            self._digests[member.offset] = sha256_of(self.document(member.name))
        actual = self._digests[member.offset]
        if actual != descriptor.digest:
            raise InvalidArgument(f"invalid archive: unexpected digest of {member.name}: got {actual}, expected {descriptor.digest}")
        return member.name


def _normal(name: str) -> str:
    parts: list[str] = []
    for part in name.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):  # above the root is the root, as in a chroot
            parts.append(part)
    return "/".join(parts)


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
        raise InvalidArgument(f"no image for the platform {platforms.shown(platform)} in the archive")


# docker's manifest.json


def _from_docker(archive: Archive, platform: Platform | None) -> Iterator[PlannedImage]:
    items = archive.decode("manifest.json", list[ArchiveItem] | None)  # type: ignore[arg-type]
    if items is None:
        raise InvalidArgument("invalid manifest, manifest cannot be null (but can be [])")
    if len(items) > IMAGES_MAX:
        raise InvalidArgument(f"invalid manifest, more than {IMAGES_MAX} images")
    if sum(len(item.repo_tags or ()) for item in items) > NAMES_MAX:
        raise InvalidArgument(f"invalid manifest, more than {NAMES_MAX} names")
    planned: list[PlannedImage] = []
    for item in items:
        image = archive.image(item.config)
        if platform is not None and not platforms.matches(platform, platforms.of(image)):
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
        line, ids = [item], {str(item.image.id)}
        while (parent := line[-1].parent) in by_id and parent not in done and parent not in ids:
            line.append(by_id[parent])
            ids.add(parent)
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
    if len(index.manifests or ()) > NAMES_MAX:  # an image has an entry for each of its names
        raise InvalidArgument(f"invalid archive: index.json has more than {NAMES_MAX} entries")
    manifests = _Manifests(archive, platform or own)
    found: dict[str, PlannedImage] = {}
    names: dict[str, dict[Reference, None]] = {}
    for descriptor in index.manifests or ():
        if (descriptor.annotations or {}).get(REFERENCE_TYPE):
            continue
        if descriptor.platform is not None and platform is not None and not platforms.matches(platform, descriptor.platform):
            continue
        manifest = manifests.find(descriptor, 0)
        image = None if manifest is None else archive.image(archive.proved(manifest.config))
        if manifest is None or image is None or (platform is not None and not platforms.matches(platform, platforms.of(image))):
            continue
        if image.id not in found:
            found[image.id] = _oci_image(archive, manifest, image)
        if (name := _name_of(descriptor.annotations or {})) is not None:
            names.setdefault(image.id, {})[name] = None
        if len(found) > IMAGES_MAX:
            raise InvalidArgument(f"invalid archive: index.json names more than {IMAGES_MAX} images")
    if not found and index.manifests and platform is None:
        raise InvalidArgument(f"no image for the platform {platforms.shown(own)} in the archive")
    yield from (planned._replace(names=tuple(names.get(planned.image.id, ()))) for planned in found.values())


class _Manifests:
    """The manifest that each descriptor comes to on a platform."""

    def __init__(self, archive: Archive, platform: Platform) -> None:
        self._archive = archive
        self._platform = platform
        self._known: dict[str, Manifest | None] = {}
        """By an index's digest: many may lead to one with many entries"""

    def find(self, descriptor: Descriptor, depth: int) -> Manifest | None:
        """Of an index the one for the platform, or None when it has none. Raises InvalidArgument."""
        if depth > _INDEX_DEPTH_MAX:
            raise InvalidArgument(f"invalid archive: indexes within indexes, more than {_INDEX_DEPTH_MAX} deep")
        if descriptor.media_type not in (INDEX, DOCKER_INDEX):
            if descriptor.media_type not in (MANIFEST, DOCKER_MANIFEST):
                raise InvalidArgument(f"invalid archive: {descriptor.digest} is no image: media type {descriptor.media_type!r}")
            return self._archive.decode(self._archive.proved(descriptor), Manifest)
        if descriptor.digest not in self._known:
            chosen = platforms.entry_for(self._archive.decode(self._archive.proved(descriptor), Index), self._platform)
            self._known[descriptor.digest] = None if chosen is None else self.find(chosen, depth + 1)
        return self._known[descriptor.digest]


def _oci_image(archive: Archive, manifest: Manifest, image: Image) -> PlannedImage:
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


def loadable(document: bytes) -> Image:
    """The image of a config document. Raises InvalidArgument for one that cannot run here, too."""
    image = image_of(document)
    if image.config.os not in ("linux", ""):
        raise InvalidArgument(f"cannot load {image.config.os} image on linux")
    return image
