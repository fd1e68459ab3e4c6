"""What the extraction of hostile layers costs, and whose fault its errors are."""

import errno
import io
import os
import resource
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sampan.archive import apply, writer
from sampan.archive.apply import LayerApplier
from sampan.archive.reader import REGULAR, InvalidArchive, TarReader
from sampan.archive.room import NoRoom, Room
from sampan.archive.source import Source, TrailingData
from sampan.archive.trees import remove_tree
from tests.support.tars import tar

pytestmark = pytest.mark.root


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def extract(root: int, archive: bytes, room: Room | None = None) -> None:
    with LayerApplier(root, room) as applier:
        applier.apply(TarReader(Source(io.BytesIO(archive).read)))


@pytest.mark.parametrize("way", [1, -1])
def test_a_long_chain_of_links_to_what_comes_later(root: int, way: int) -> None:
    count = 4000
    chain = [("h", f"l{number}", f"l{number + 1}") for number in range(count)][::way]
    before = resource.getrusage(resource.RUSAGE_SELF)
    extract(root, tar(*chain, ("f", f"l{count}", "1")))
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert os.stat("l0", dir_fd=root).st_nlink == count + 1
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 8  # by a pass for each link: 18 s


def test_missing_parents_are_asked_for(root: int) -> None:
    archive = tar(*(("f", f"{number}/" + "a/" * 100 + "f") for number in range(5)))
    with pytest.raises(NoRoom, match="more than 400 entries"):
        extract(root, archive, Room(root, entries_max=400))


def test_a_file_that_the_whole_disk_cannot_hold_is_no_archive(root: int) -> None:
    with pytest.raises(InvalidArchive, match="f: no space left on device: 1000000000000000000 bytes"):
        extract(root, writer.header(b"f", REGULAR, mode=0o644, size=10**18), Room(root))


def test_missing_parents_are_made_in_one_descent(root: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = apply.openat2, 0

    def counted(*args: Any, **options: Any) -> int:
        nonlocal calls
        calls += 1
        return real(*args, **options)

    monkeypatch.setattr(apply, "openat2", counted)
    extract(root, tar(("d", "a/" * 20), ("f", "a/" * 1000 + "f", "x")))
    assert calls < 1000 + 20 + 50
    assert os.path.exists(f"/proc/self/fd/{root}/" + "a/" * 1000 + "f")
    remove_tree(root, b"a")  # too deep for pytest, which would complain in some later run


def test_missing_parents_below_a_symlink(root: int) -> None:
    extract(root, tar(("d", "d"), ("l", "l", "/d"), ("f", "l/a/b/f", "1")))
    assert os.listdir(f"/proc/self/fd/{root}/d/a/b") == ["f"]
    with pytest.raises(InvalidArchive, match="File exists"):
        extract(root, tar(("l", "x", "nowhere"), ("f", "x/a/f", "1")))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.EACCES, errno.EPERM])
def test_what_the_machine_refuses_is_not_the_archives_fault(root: int, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refusing(*_args: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "mkdir", refusing)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        extract(root, tar(("d", "d")))
    assert caught.value.filename == b"d/" or caught.value.filename == b"d"


def test_names_in_messages_do_nothing_to_a_terminal() -> None:
    assert apply.printable("ä b\u65e5".encode()) == "ä b\u65e5"
    assert apply.printable(b"\x1b]0;x\x07\n\xff\xc2\x9b") == r"\x1b]0;x\x07\n\xff\x9b"
    assert apply.printable("\u202e".encode()) == r"\u202e"
    spaces = "".join(char for char in map(chr, range(0x110000)) if unicodedata.category(char) == "Zs")
    assert apply.printable(f"{spaces}\u2028\u2029\x85".encode()) == rf"{spaces}\u2028\u2029\x85"


def test_what_follows_an_archive() -> None:
    for rest in (bytes(40 << 20), b"x" * (1 << 20)):
        source = Source(io.BytesIO(tar(("f", "f")) + rest).read)
        list(TarReader(source))
        source.drain_padding()
        assert source.consumed == len(tar(("f", "f")) + rest)
    source = Source(io.BytesIO(tar(("f", "f")) + b"x" * (6 << 20)).read)
    list(TarReader(source))
    with pytest.raises(TrailingData, match="follow the archive's end"):
        source.drain_padding()


def test_extended_headers_without_an_entry() -> None:
    one = writer.header(b"x", b"x", mode=0, size=0)
    assert len(list(TarReader(Source(io.BytesIO(one * 32 + tar(("f", "f"), ("f", "g"))).read)))) == 2
    with pytest.raises(InvalidArchive, match="more than 32 extended headers"):
        list(TarReader(Source(io.BytesIO(one * 33 + tar(("f", "f"))).read)))


def test_entries_behind_a_single_block_of_zeros() -> None:
    one = tar(("f", "f"))[:-1024]
    for end in (b"", bytes(512), bytes(700), bytes(1024) + one):
        assert len(list(TarReader(Source(io.BytesIO(one + end).read)))) == 1
    with pytest.raises(InvalidArchive, match="invalid tar header"):
        list(TarReader(Source(io.BytesIO(one + bytes(512) + tar(("f", "hidden"))).read)))
