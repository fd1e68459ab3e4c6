"""`docker cp` out of a container: only what was asked for is written, as the caller's, and nothing that was there is touched."""

import os
import stat
from pathlib import Path

import pytest

from sampan.archive import writer
from sampan.archive.extract import TreeExtractor
from sampan.archive.reader import BLOCKDEV, CHAR, HARDLINK, REGULAR
from sampan.cli.copying import Place, local_destination, unpack
from sampan.cli.http import CliError
from sampan.linux import permissions
from sampan.linux.permissions import Permissions
from tests.support.tars import tar


def copied(archive: bytes, source: str, target: Path) -> None:
    unpack([archive], Place(source, exists=True), local_destination(str(target)))


@pytest.mark.parametrize("other", ["b", "../b", "/b", "a/../b", ".ssh/authorized_keys", "ab", "."])
def test_what_was_not_asked_for_is_refused(tmp_path: Path, other: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises(CliError, match=r"not asked for|outside of the root"):
        copied(tar(("f", "a", "1"), ("f", other, "evil")), "/a", target)
    assert os.listdir(target) == ["a"]
    assert os.listdir(tmp_path) == ["target"]


def test_what_was_asked_for_is_taken(tmp_path: Path) -> None:
    copied(tar(("d", "a/"), ("f", "a/b", "1"), ("h", "a/c", "a/b"), ("l", "a/l", "../..")), "/x/a", tmp_path)
    assert sorted(os.listdir(tmp_path / "a")) == ["b", "c", "l"]
    copied(tar(("d", "./"), ("f", "./e", "1")), "/x/.", tmp_path)
    copied(tar(("d", "/"), ("d", "/etc"), ("f", "/etc/f", "1")), "/", tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["a", "e", "new"]
    assert (tmp_path / "new/etc/f").read_text() == "1"


def test_a_new_name(tmp_path: Path) -> None:
    copied(tar(("d", "a/"), ("f", "a/b", "1"), ("h", "a/c", "a/b")), "/a", tmp_path / "z")
    assert sorted(os.listdir(tmp_path / "z")) == ["b", "c"]
    with pytest.raises(CliError, match="not asked for"):
        copied(tar(("f", "z", "1")), "/a", tmp_path / "y")


def test_no_name_leads_through_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(CliError, match="symbolic links"):
        copied(tar(("d", "a"), ("l", "a/l", "../there"), ("f", "a/l/evil", "1")), "/a", tmp_path)
    assert os.listdir(tmp_path / "there") == []


def test_what_is_there_is_not_linked_to(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("existing", "a/existing"):
        (tmp_path / name).write_text("mine")
        (tmp_path / name).chmod(0o600)
        with pytest.raises(CliError, match="no such file"):
            copied(tar(("d", "a"), ("h", "a/x", name), mode=0o666), "/a", tmp_path)
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert (tmp_path / name).stat().st_nlink == 1


@pytest.mark.root
def test_no_right_of_the_callers_is_given_away(tmp_path: Path) -> None:
    capability = b"\1\0\0\2\0\4" + bytes(14)
    entries = [
        writer.header(b"a/theirs", REGULAR, mode=0o6755, uid=1000, gid=1000, size=0, xattrs={b"security.capability": capability}),
        writer.header(b"a/ours", REGULAR, mode=0o6755, uid=0, gid=0, size=0),
        writer.header(b"a/device", CHAR, mode=0o666, major=1, minor=5),
        writer.header(b"a/disk", BLOCKDEV, mode=0o666, major=8, minor=0),
        writer.header(b"a/link", HARDLINK, mode=0o6755, uid=0, gid=0, link=b"a/theirs"),
    ]
    copied(b"".join(entries) + writer.END, "/a", tmp_path)
    assert sorted(os.listdir(tmp_path / "a")) == ["link", "ours", "theirs"]
    assert stat.S_IMODE((tmp_path / "a/theirs").stat().st_mode) == 0o755
    assert stat.S_IMODE((tmp_path / "a/ours").stat().st_mode) == 0o6755
    assert os.listxattr(tmp_path / "a/theirs") == []


@pytest.mark.parametrize("native", [True, False])
def test_a_mode_is_never_set_through_a_symlink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    if not native:
        monkeypatch.setattr(permissions, "_has_fchmodat2", lambda: False)
    (tmp_path / "secret").write_text("1")
    (tmp_path / "secret").chmod(0o600)
    (tmp_path / "fifo").symlink_to("secret")
    os.mkfifo(tmp_path / "real")
    directory = os.open(tmp_path, os.O_RDONLY)
    with Permissions() as chmod:
        with pytest.raises(OSError, match=r"not supported|Too many levels"):
            chmod.set(directory, b"fifo", 0o666)
        chmod.set(directory, b"real", 0o4642)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "real").stat().st_mode) == 0o4642
    os.close(directory)


def test_a_directory_swapped_for_a_symlink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the owner of the directory can, in a container that runs."""
    import io

    from sampan.archive.reader import TarReader
    from sampan.archive.source import Source

    secret = tmp_path / "secret"
    secret.write_text("1")
    secret.chmod(0o600)
    (tmp_path / "target").mkdir()
    real = os.mkdir

    def swapped(name: bytes, mode: int, *, dir_fd: int) -> None:
        real(name, mode, dir_fd=dir_fd)
        os.rmdir(name, dir_fd=dir_fd)
        os.symlink("../secret", name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "mkdir", swapped)
    directory = os.open(tmp_path / "target", os.O_RDONLY)
    with (
        TreeExtractor(directory, None, owner=(-1, -1)) as extractor,
        pytest.raises(OSError, match=r"not supported|Too many levels"),
    ):
        extractor.apply(TarReader(Source(io.BytesIO(tar(("d", "d"), mode=0o777)).read)))
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    os.close(directory)
