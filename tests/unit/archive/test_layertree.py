"""The tree of a layer, beyond what the property tests hold against real file systems."""

import io

import pytest

from sampan.archive import writer
from sampan.archive.erofs import BLOCK, HEAD_SIZE, encode, place_data
from sampan.archive.layertree import LayerTree
from sampan.archive.reader import DIRECTORY, REGULAR, InvalidArchive, TarReader
from sampan.archive.room import NoRoom
from sampan.archive.source import Source
from tests.support.tars import tar


def tree_of(archive: bytes, **options: int) -> LayerTree:
    source = Source(io.BytesIO(archive).read)
    tree = LayerTree(**options)
    for entry in TarReader(source):
        tree.add(entry, source.consumed)
    return tree


def test_too_many_entries_are_refused() -> None:
    archive = tar(("f", "a"), ("f", "b"), ("f", "c"))
    assert len(tree_of(archive, entries_max=3).finish()) == 4
    with pytest.raises(NoRoom, match="more than 2 entries"):
        tree_of(archive, entries_max=2)


def test_files_point_into_the_tar() -> None:
    archive = tar(("f", "a", "1"), ("d", "d"), ("f", "d/b", "2" * 600))
    order = (tree := tree_of(archive)).finish()
    end = place_data(order, tree.copied_blocks, len(archive))
    assert end == (HEAD_SIZE + len(archive)) // BLOCK
    places = {node.size: node.block * BLOCK - HEAD_SIZE for node in order if node.size}
    assert {size: archive[at : at + size] for size, at in places.items()} == {1: b"1", 600: b"2" * 600}


def test_more_than_two_tebibytes_are_refused() -> None:
    payload = writer.pax_record(b"GNU.sparse.map", b"0,1") + writer.pax_record(b"GNU.sparse.size", b"%d" % (1 << 42))
    archive = writer.header(b"x", b"x", mode=0, size=len(payload)) + payload + writer.padding(len(payload))
    archive += writer.header(b"huge", REGULAR, mode=0o644, size=1) + b"1" + writer.padding(1) + writer.END
    tree = tree_of(archive)
    with pytest.raises(InvalidArchive, match="2 TiB"):
        place_data(tree.finish(), tree.copied_blocks, len(archive))


def test_the_same_tree_is_the_same_metadata() -> None:
    archive = writer.header(b"d", DIRECTORY, mode=0o700, xattrs={b"user.b": b"2", b"user.a": b"1"}) + tar(
        ("l", "d/s", "t" * 600), ("p", "p")
    )
    images = []
    for _ in range(2):
        tree = tree_of(archive)
        order = tree.finish()
        images.append(encode(order, place_data(order, 0, len(archive)), bytes(16), len(archive)))
    assert images[0] == images[1]


@pytest.mark.parametrize("way", [1, -1])
def test_a_long_chain_of_links_to_what_comes_later(way: int) -> None:
    count = 20_000  # by a pass for each link: minutes
    chain = [("h", f"l{number}", f"l{number + 1}") for number in range(count)][::way]
    order = tree_of(tar(*chain, ("f", f"l{count}", "1"))).finish()
    assert max(node.nlink for node in order[1:]) == count + 1


def test_a_ring_of_links_is_refused() -> None:
    with pytest.raises(InvalidArchive, match="no such file or directory"):
        tree_of(tar(("h", "a", "b"), ("h", "b", "a"))).finish()


def test_missing_parents_count_as_entries() -> None:
    archive = tar(*(("f", f"{number}/" + "a/" * 1000 + "f") for number in range(10)))
    with pytest.raises(NoRoom, match="more than 5000 entries"):
        tree_of(archive, entries_max=5000)
    assert len(tree_of(archive).finish()) == 10 * 1002 + 1


def test_missing_parents_below_symlinks() -> None:
    order = tree_of(tar(("d", "d"), ("l", "l", "d/./../d"), ("f", "l/a/b/f", "1"))).finish()
    assert sum(node.children is not None for node in order) == 4
    for end in ("nowhere", "d/nowhere/at/all"):
        with pytest.raises(InvalidArchive, match="File exists"):
            tree_of(tar(("d", "d"), ("l", "l", end), ("f", "l/a/f")))
