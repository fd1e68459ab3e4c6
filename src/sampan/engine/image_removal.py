"""Which names and images a removal takes out, and when it is refused (moby daemon/images/image_delete.go)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sampan.digest import ImageId
from sampan.errors import Conflict
from sampan.ids import short_id
from sampan.image.store import Image, ImageStore
from sampan.reference import Reference, parse


class ImageUser(NamedTuple):
    """A container made from an image."""

    container_id: str
    running: bool


InUse = Callable[[ImageId], Sequence[ImageUser]]


class Step(NamedTuple):
    """One thing done: a name taken off, or (untagged empty) the image deleted."""

    image: Image
    untagged: str = ""


def _is_single(references: list[Reference]) -> bool:
    """Whether all names are one tag and digests of the same repository."""
    if len(references) <= 1:
        return True
    tags = [reference for reference in references if reference.digest is None]
    repositories = {reference.name for reference in references if reference.digest is not None}
    single = tags[0] if tags else references[0]
    return len(tags) <= 1 and repositories == {single.name}


def _refusal(image: Image, reason: str, *, hard: bool) -> Conflict:
    how = "cannot be forced" if hard else "must be forced"
    return Conflict(f"conflict: unable to delete {short_id(image.id)} ({how}) - {reason}")


def _check(image: Image, store: ImageStore, in_use: InUse, *, force: bool, named: bool) -> None:
    """Raise Conflict when the image must stay. named: names are a reason too."""
    if store.children(image.id):
        raise _refusal(image, "image has dependent child images", hard=True)
    users = in_use(image.id)
    for user in users:
        if user.running:
            raise _refusal(image, f"image is being used by running container {short_id(user.container_id)}", hard=True)
    if force:
        return
    if named and store.references(image.id):
        raise _refusal(image, "image is referenced in multiple repositories", hard=False)
    for user in users:
        raise _refusal(image, f"image is being used by stopped container {short_id(user.container_id)}", hard=False)


def _untag(reference: Reference, image: Image, store: ImageStore, steps: list[Step]) -> list[Reference]:
    """Take one name off, and the repository's digests with its last tag. Returns what names are left."""
    gone = [reference]
    rest = [other for other in store.references(image.id) if other != reference]
    if reference.digest is None and not any(other.digest is None and other.name == reference.name for other in rest):
        gone += [other for other in rest if other.name == reference.name]
    store.remove_references(gone)
    steps += [Step(image, other.familiar) for other in gone]
    return [other for other in rest if other not in gone]


def _delete(image: Image, store: ImageStore, in_use: InUse, steps: list[Step], *, force: bool, prune: bool) -> None:
    """Delete an image that has passed the checks; with prune also parents that nothing else needs."""
    while True:
        steps += [Step(image, reference.familiar) for reference in store.references(image.id)]
        store.delete(image)
        steps.append(Step(image))
        parent = store.get(ImageId(image.parent)) if prune else None
        if parent is None:
            return
        try:
            _check(parent, store, in_use, force=False, named=True)
        except Conflict:
            return
        image = parent


def remove(text: str, store: ImageStore, in_use: InUse, *, force: bool, prune: bool) -> list[Step]:
    """`docker rmi text`. Returns all that was done, in order.

    Raises NotFound, or Conflict in docker's words; then nothing was changed but, perhaps, the name given.
    """
    image = store.find(text)
    steps: list[Step] = []
    if not store.is_id_of(image, text):
        users = in_use(image.id)
        if not force and users and _is_single(store.references(image.id)):
            raise Conflict(
                f'conflict: unable to remove repository reference "{text}" (must force) - '
                f"container {short_id(users[0].container_id)} is using its referenced image {short_id(image.id)}"
            )
        reference = parse(text).with_default_tag()
        if reference.digest is not None:
            reference = reference._replace(tag=None)
        if _untag(reference, image, store, steps):
            return steps
        try:
            _check(image, store, in_use, force=force, named=False)
        except Conflict:
            # the name is off; docker keeps the image, dangling, without an error, as long as something uses it
            if any(user.running for user in in_use(image.id)) or store.children(image.id):
                return steps
            raise
        _delete(image, store, in_use, steps, force=force, prune=prune)
        return steps
    references = store.references(image.id)
    _check(image, store, in_use, force=force, named=not _is_single(references))
    _delete(image, store, in_use, steps, force=force, prune=prune)
    return steps
