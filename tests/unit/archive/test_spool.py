"""What an image archive's members may be called: sampand keeps their names."""

import os
from pathlib import Path

import pytest

from sampan.archive import spool, writer
from sampan.archive.reader import SYMLINK, InvalidArchive
from sampan.archive.room import Room
from sampan.archive.spool import Member, SpoolSource
from tests.support.tars import pipe_of, tar


def spooled(archive: bytes, tmp_path: Path) -> list[Member]:
    output = os.open(tmp_path / "spool", os.O_RDWR | os.O_CREAT)
    archive_fd = pipe_of(archive)
    try:
        return list(spool.spool(SpoolSource(archive_fd, output, Room(output))))
    finally:
        os.close(output)
        os.close(archive_fd)


def test_a_long_target_is_refused(tmp_path: Path) -> None:
    for length in (4095, 4096):
        archive = writer.header(b"l", SYMLINK, mode=0o777, link=b"x" * length) + writer.END
        if length == 4095:
            assert len(spooled(archive, tmp_path)[0].link) == 4095
        else:
            with pytest.raises(InvalidArchive, match="target of a symlink is too long: 4096 bytes"):
                spooled(archive, tmp_path)


def test_a_long_name_is_refused(tmp_path: Path) -> None:
    (member,) = spooled(tar(("f", "a/" * 2047 + "b")), tmp_path)
    assert len(member.name) == 4095
    with pytest.raises(InvalidArchive, match="the name of a member is too long: 4096 bytes"):
        spooled(tar(("f", "a/" * 2047 + "bc")), tmp_path)


def test_all_names_together_have_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "TEXT_MAX", 100)
    assert len(spooled(tar(("f", "a" * 40), ("l", "b" * 30, "c" * 30)), tmp_path)) == 2
    with pytest.raises(InvalidArchive, match="names of the archive's members take more than 100 bytes"):
        spooled(tar(("f", "a" * 40), ("l", "b" * 30, "c" * 31)), tmp_path)
