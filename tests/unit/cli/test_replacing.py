"""Files that the command line puts in place of others."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampan.cli.http import CliError
from sampan.cli.outfile import write
from sampan.cli.replacing import replace_text


def test_a_file_keeps_its_mode_and_owner_and_a_link_stays_one(tmp_path: Path) -> None:
    file, link = tmp_path / "real" / "file", tmp_path / "link"
    file.parent.mkdir()
    file.write_text("before")
    file.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(file, 1234, 4321)
    link.symlink_to("real/file")
    before = file.stat()
    replace_text(str(link), "after", 0o600)
    after = file.stat()
    assert (link.is_symlink(), file.read_text()) == (True, "after")
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert os.listdir(file.parent) == ["file"]


def test_a_new_file_has_the_mode_it_is_given(tmp_path: Path) -> None:
    replace_text(str(tmp_path / "file"), "x", 0o600)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600


def test_what_fails_half_way_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")

    def pieces() -> Iterator[bytes]:
        yield b"half"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(str(file), pieces())
    assert (file.read_text(), os.listdir(tmp_path)) == ("before", ["file"])


def test_an_output_is_the_users_own_whatever_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("before")
    file.chmod(0o666)
    write(str(file), [b"a", b"", b"b"])
    assert (file.read_bytes(), file.stat().st_mode & 0o777) == (b"ab", 0o600)
    with pytest.raises(CliError, match=r"open .*/none/file: no such file or directory"):
        write(str(tmp_path / "none" / "file"), [b"a"])
