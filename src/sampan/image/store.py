"""Images by ID and by name: all in memory, each change written to the state database first."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Final, NamedTuple

from sampan.digest import ChainId, DiffId, ImageId, chain_id, is_sha256, sha256_of
from sampan.errors import InvalidArgument, NotFound
from sampan.findings import Finding
from sampan.ids import is_full_id
from sampan.reference import Reference, parse
from sampan.spec.oci_documents import decode
from sampan.spec.oci_image import ImageConfig
from sampan.state.database import Database
from sampan.state.images import ImageRepository, ImageRow, NameRow

LAYERS_MAX: Final = 500
"""Of one image: what overlayfs stacks (OVL_MAX_STACK); docker's limit is 127."""
HISTORY_MAX: Final = 4000
"""Steps of an image's history: those without a layer as well."""
_HEX = frozenset("0123456789abcdef")


class Image(NamedTuple):
    """An image: its config document and the layers that follow from it."""

    id: ImageId
    document: bytes
    config: ImageConfig
    chain: tuple[ChainId, ...]
    """ChainIDs, bottom first."""
    parent: str
    last_tagged: int
    """ns since the epoch, 0 = never"""

    @property
    def chain_id(self) -> ChainId | None:
        """The top of the stack, parent of containers' writable trees; None for an image without layers."""
        return self.chain[-1] if self.chain else None


def image_of(document: bytes, parent: str = "", last_tagged: int = 0) -> Image:
    """Read a config document. Raises InvalidArgument when it is not one or contradicts itself."""
    config = decode(document, ImageConfig, "invalid image config")
    diff_ids = config.rootfs.diff_ids or []
    if len(diff_ids) > LAYERS_MAX:
        raise InvalidArgument(f"invalid image config: {len(diff_ids)} layers, at most {LAYERS_MAX}")
    if len(config.history or ()) > HISTORY_MAX:
        raise InvalidArgument(f"invalid image config: a history of {len(config.history or ())} steps, at most {HISTORY_MAX}")
    chain: list[ChainId] = []
    for diff_id in diff_ids:
        if not is_sha256(diff_id):
            raise InvalidArgument(f"invalid image config: diff_id {diff_id!r} is not a sha256 digest")
        chain.append(chain_id(chain[-1] if chain else None, DiffId(diff_id)))
    filled = sum(not entry.empty_layer for entry in config.history or ())
    if config.history and filled != len(chain):
        raise InvalidArgument(f"invalid image config: history has {filled} layers, rootfs {len(chain)}")
    return Image(ImageId(sha256_of(document)), document, config, tuple(chain), parent, last_tagged)


def no_such_image(text: str) -> NotFound:
    """docker's error for a name that leads to no image (moby daemon/images/image.go ErrImageDoesNotExist)."""
    if is_sha256(text):
        return NotFound(f"No such image: {text}")
    if is_full_id(text):
        return NotFound(f"No such image: sha256:{text}")
    return NotFound(f"No such image: {parse(text).with_default_tag().familiar}")


class ImageStore:
    """All images of one data root. Used from the event loop's thread only."""

    def __init__(self, database: Database) -> None:
        self._rows = ImageRepository(database)
        self._images: dict[ImageId, Image] = {}
        for row in self._rows.all():
            with suppress(InvalidArgument):  # look() tells of what cannot be read
                image = image_of(row.config, row.parent, row.last_tagged)
                if image.id == row.id:
                    self._images[row.id] = image
        self._names: dict[Reference, ImageId] = {}
        """Canonical references: with a tag or with a digest, never both."""
        for reference, name in self._stored_names():
            if reference is not None and name.image_id in self._images:
                self._names[reference] = name.image_id

    def _stored_names(self) -> Iterator[tuple[Reference | None, NameRow]]:
        """Every name in the database; None for what is none."""
        for mark, rows in ((":", self._rows.tags()), ("@", self._rows.digests())):
            for row in rows:
                try:
                    yield parse(f"{row.repository}{mark}{row.value}"), row
                except InvalidArgument:
                    yield None, row

    def look(self) -> list[Finding]:
        """Where the database is not what is in use here: names of images that are not there, images lost or never known."""
        return [*self._look_at_names(), *self._look_at_images()]

    def _look_at_names(self) -> Iterator[Finding]:
        # By text: to parse thousands of names would keep everybody waiting.
        known = {(name.name, name.tag or name.digest): name for name in self._names}
        stored: dict[Reference, ImageId] = {}
        for row in (*self._rows.tags(), *self._rows.digests()):
            name = known.get((row.repository, row.value))
            if name is not None:
                stored[name] = row.image_id
                continue
            problem = f"points at image {row.image_id}, which is not there" if row.image_id not in self._images else "is in no use"
            yield Finding("reference", f"{row.repository} {row.value}", problem, "remove it", partial(self._rows.remove_name_row, row))
        for name, image_id in self._names.items():
            if stored.get(name) != image_id:
                problem = f"means image {image_id}, but is stored otherwise"
                yield Finding("reference", name.familiar, problem, "store it", partial(self._store_again, name))

    def _look_at_images(self) -> Iterator[Finding]:
        ids = self._rows.ids()
        for key in ids - self._images.keys():
            yield Finding("image", key, "is stored, and is no image that can be read", "remove it", partial(self._rows.delete, key))
        for key in self._images.keys() - ids:
            yield Finding("image", key, "is not stored any more", "store it", partial(self.store_document, key))
        for manifest in self._rows.stray_manifests():
            yield Finding(
                "database", manifest, "has a manifest, and is not there", "remove it", partial(self._rows.drop_manifest, manifest)
            )

    def spoilt(self) -> list[ImageId]:
        """Images whose documents are stored otherwise than they are in use. Any thread."""
        return self._rows.spoilt()

    def store_document(self, image_id: ImageId) -> None:
        """Store an image's document again."""
        if image_id in self._images:
            self._rows.insert(_row_of(self._images[image_id], 0))

    def _store_again(self, reference: Reference) -> None:
        image = self._images.get(self._names.get(reference, ImageId("")))
        if image is not None and reference.digest is None:
            self._rows.tag(image.id, reference.name, _tag_of(reference), image.last_tagged)
        elif image is not None:
            self._rows.insert(_row_of(image, 0), digest=(reference.name, _digest_of(reference)))

    def all(self) -> list[Image]:
        """Every image."""
        return list(self._images.values())

    def get(self, image: ImageId) -> Image | None:
        """The image, or None."""
        return self._images.get(image)

    def references(self, image: ImageId) -> list[Reference]:
        """Its names, sorted: with a tag each, or with a digest each."""
        return sorted((name for name, target in self._names.items() if target == image), key=lambda name: name.canonical)

    def named_ids(self) -> frozenset[ImageId]:
        """The images that have names."""
        return frozenset(self._names.values())

    def parents(self) -> frozenset[str]:
        """The images that others were committed or built from."""
        return frozenset(image.parent for image in self._images.values())

    def named(self, reference: Reference) -> Image | None:
        """The image of a name (with a tag or a digest), or None."""
        found = self._names.get(reference)
        return None if found is None else self._images[found]

    def names_in(self, repository: str) -> list[Reference]:
        """The names with a tag in a repository (`docker.io/library/busybox`), sorted."""
        found = (name for name in self._names if name.name == repository and name.digest is None)
        return sorted(found, key=lambda name: name.canonical)

    def children(self, image: ImageId) -> list[Image]:
        """Images committed or built from it."""
        return [other for other in self._images.values() if other.parent == image]

    def lineage(self, image: Image) -> Iterator[Image]:
        """The image, its parent, and so on as far as they are here."""
        found: Image | None = image
        while found is not None:
            yield found
            found = self._images.get(ImageId(found.parent))

    def find(self, text: str) -> Image:
        """By name, ID or unique ID prefix, as docker does. Raises NotFound, InvalidArgument."""
        if is_sha256(text) or is_full_id(text):
            image = self._images.get(ImageId(text if is_sha256(text) else f"sha256:{text}"))
            if image is None:
                raise no_such_image(text)
            return image
        reference = parse(text).with_default_tag()
        named = self._names.get(reference._replace(tag=None) if reference.digest is not None else reference)
        if named is not None:
            return self._images[named]
        by_prefix = self._by_prefix(text)
        if by_prefix is None:
            raise no_such_image(text)
        return by_prefix

    def _by_prefix(self, text: str) -> Image | None:
        prefix = text.removeprefix("sha256:")
        if not prefix or not _HEX.issuperset(prefix):
            return None
        found = [image for image in self._images.values() if image.id.startswith(f"sha256:{prefix}")]
        return found[0] if len(found) == 1 else None

    def is_id_of(self, image: Image, text: str) -> bool:
        """Whether text means the image by its ID rather than by a name."""
        return image.id.startswith(text if text.startswith("sha256:") else f"sha256:{text}")

    def add(
        self,
        image: Image,
        *,
        now: int,
        parent: str = "",
        names: Sequence[Reference] = (),
        repo_digest: Reference | None = None,
        durable: bool = True,
    ) -> Image:
        """Store an image (nothing happens if it is there) and name it, in one transaction. Its layers are committed already.

        names: with a tag each. repo_digest: repository and digest of its manifest, as a registry has proved it; never what an archive
        says, for it would take over what `name@sha256:...` runs. durable: see ImageRepository.insert.
        Raises InvalidArgument for a name with a digest.
        """
        named = bool(names) or repo_digest is not None
        image = image._replace(parent=parent, last_tagged=now if named else 0)
        row = _row_of(image, now)
        digest = None if repo_digest is None else (repo_digest.name, _digest_of(repo_digest))
        self._rows.insert(row, tags=[(name.name, _tag_of(name)) for name in names], digest=digest, durable=durable)
        known = self._images.get(image.id)
        if known is not None:
            image = known._replace(last_tagged=now) if named else known
        self._images[image.id] = image
        for name in (*names, *(() if repo_digest is None else (repo_digest,))):
            self._names[name] = image.id
        return image

    def tag(self, image: Image, reference: Reference, *, now: int) -> None:
        """Point a name (with a tag) at an image; another image may lose it."""
        if self._names.get(reference) == image.id:
            self._rows.tag_again(image.id, now)
        else:
            self._rows.tag(image.id, reference.name, _tag_of(reference), now)
            self._names[reference] = image.id
        self._images[image.id] = self._images[image.id]._replace(last_tagged=now)

    def add_digest(self, image: Image, reference: Reference) -> None:
        """Point a name (with a digest) at an image: a registry has it there. It does not count as tagged."""
        self._rows.insert(_row_of(image, 0), digest=(reference.name, _digest_of(reference)))
        self._names[reference] = image.id

    def remove_references(self, references: list[Reference]) -> None:
        """Take names off, all or nothing."""
        self._rows.remove_names([(name.name, name.tag, name.digest) for name in references])
        for name in references:
            self._names.pop(name, None)

    def delete(self, image: Image) -> None:
        """Drop an image and what names it still has. Its layers are the caller's to release."""
        self._rows.delete(image.id)
        for name in self.references(image.id):
            del self._names[name]
        del self._images[image.id]
        for child in self.children(image.id):
            self._images[child.id] = child._replace(parent="")


def _row_of(image: Image, added: int) -> ImageRow:
    return ImageRow(image.id, image.document, image.parent, added, image.last_tagged)


def _tag_of(reference: Reference) -> str:
    if reference.tag is None or reference.digest is not None:
        raise InvalidArgument("refusing to create a tag with a digest reference")
    if reference.familiar_name == "sha256":  # it would read like an ID
        raise InvalidArgument("refusing to create an ambiguous tag using digest algorithm as name")
    return reference.tag


def _digest_of(reference: Reference) -> str:
    if reference.digest is None or reference.tag is not None:
        raise InvalidArgument("a repository digest has a digest and no tag")
    return reference.digest
