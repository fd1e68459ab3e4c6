"""The table of images."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.errors import InvalidArgument, NotFound
from sampan.image.store import ImageStore, image_of
from sampan.reference import parse
from sampan.state.database import Database
from tests.support.imagetars import config

PINNED = parse("busybox@sha256:" + "a" * 64)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ImageStore]:
    database = Database(tmp_path / "state.db")
    yield ImageStore(database)
    database.close()


def test_a_digest_is_no_name(store: ImageStore) -> None:
    """Whoever may choose names (an archive does) cannot choose what a digest means."""
    image = image_of(config(b"hostile"))
    with pytest.raises(InvalidArgument, match="refusing to create a tag with a digest reference"):
        store.add(image, now=1, names=[PINNED])
    with pytest.raises(InvalidArgument, match="a repository digest has a digest and no tag"):
        store.add(image, now=1, repo_digest=parse("busybox:1"))
    assert store.all() == []
    with pytest.raises(NotFound):
        store.find(PINNED.canonical)


def test_a_digest_that_a_registry_proved(store: ImageStore) -> None:
    image = store.add(image_of(config(b"good")), now=1, names=[parse("busybox:1")], repo_digest=PINNED)
    assert store.find(PINNED.canonical) == image
    assert [name.familiar for name in store.references(image.id)] == ["busybox:1", PINNED.familiar]
