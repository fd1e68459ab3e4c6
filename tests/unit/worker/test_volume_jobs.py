"""What workers do to volumes: an image's directory copied as it is, a tree given to a user."""

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from sampan.worker.tree_jobs import JOBS, Refused
from tests.unit.worker.test_view import in_child, tree

__all__ = ["tree"]

pytestmark = pytest.mark.root


def run(name: str, args: dict[str, Any], fds: list[int]) -> str:
    """A job's refusal, "" when it does what it is asked for."""
    told, tell = os.pipe()

    def work() -> None:
        try:
            JOBS[name](args, fds, lambda _: None)
        except Refused as refusal:
            os.write(tell, refusal.message.encode())

    assert in_child(work) == 1
    os.close(tell)
    with os.fdopen(told) as file:
        return file.read()


def test_a_directory_is_copied(tree: dict[str, Any], tmp_path: Path) -> None:
    lower, target = tmp_path / "lower/data", tmp_path / "target"
    for place in (lower, lower / "sub", target):
        place.mkdir()
    (lower / "f").write_bytes(b"content" + bytes(100_000))
    os.link(lower / "f", lower / "hard")
    (lower / "sub/setuid").write_text("x")
    (lower / "link").symlink_to("../../nowhere")
    os.mkfifo(lower / "pipe")
    os.mknod(lower / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    for path, uid, mode in ((lower, 7, 0o1770), (lower / "f", 5, 0o640), (lower / "sub/setuid", 6, 0o4755)):
        os.chown(path, uid, uid + 1)
        path.chmod(mode)
        os.setxattr(path, "user.x", b"\0value")
    os.lchown(lower / "link", 9, 9)
    os.utime(lower / "f", (1, 1_234_567_890))
    (tmp_path / "lower/way").symlink_to("/data")
    (tmp_path / "upper/etc").mkdir()
    (tmp_path / "upper/etc/file").touch()
    fds = [os.open(target, os.O_RDONLY)]
    places = [{"path": "/way", "only_directory": True}]
    assert run("volume_fill", {"view": {**tree, "own": []}, "places": places}, fds) == ""
    for name in (".", "f", "hard", "sub", "sub/setuid", "link", "pipe", "null"):
        one, other = os.lstat(lower / name), os.lstat(target / name)
        assert (one.st_mode, one.st_uid, one.st_gid, one.st_rdev) == (other.st_mode, other.st_uid, other.st_gid, other.st_rdev), name
    assert (target / "f").read_bytes() == (lower / "f").read_bytes()
    assert (target / "f").stat().st_ino == (target / "hard").stat().st_ino
    assert (target / "f").stat().st_mtime == 1_234_567_890
    assert os.readlink(target / "link") == "../../nowhere"
    for name in (".", "f", "sub/setuid"):
        assert os.getxattr(target / name, "user.x") == b"\0value"
    os.close(fds[0])


@pytest.mark.parametrize(
    ("path", "only_directory", "words"),
    [
        ("/nowhere/x", True, ""),
        ("/file", False, ""),
        ("/file/x", True, ""),
        ("/file", True, "cannot mount volume over existing file, file exists /file"),
        ("/loop", True, "failed to populate volume: /loop: too many levels of symbolic links"),
        ("/../../outside", True, ""),
    ],
)
def test_where_there_is_nothing_to_copy(tree: dict[str, Any], tmp_path: Path, path: str, only_directory: bool, words: str) -> None:
    (tmp_path / "lower/file").touch()
    (tmp_path / "lower/loop").symlink_to("loop")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    (tmp_path / "target").mkdir(mode=0o711)
    fds = [os.open(tmp_path / "target", os.O_RDONLY)]
    places = [{"path": path, "only_directory": only_directory}]
    assert run("volume_fill", {"view": {**tree, "own": []}, "places": places}, fds) == words
    assert os.listdir(tmp_path / "target") == []
    os.close(fds[0])


def test_a_tree_is_given_to_a_user(tree: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "lower/etc").mkdir()
    (tmp_path / "lower/etc/passwd").write_text("web:x:33:44::/:/bin/sh\n")
    place = tmp_path / "given"
    deep = place / "/".join(["d"] * 40)
    deep.mkdir(parents=True)
    (place / "link").symlink_to(tmp_path / "lower/etc/passwd")
    (deep / "f").touch()
    fds = [os.open(place, os.O_RDONLY)]
    assert run("tree_chown", {"view": {**tree, "own": []}, "user": "web"}, fds) == ""
    assert {(os.lstat(path).st_uid, os.lstat(path).st_gid) for path in (place, place / "link", deep, deep / "f")} == {(33, 44)}
    assert os.stat(tmp_path / "lower/etc/passwd").st_uid == 0
    words = "unable to find user nobody: no matching entries in passwd file"
    assert run("tree_chown", {"view": {**tree, "own": []}, "user": "nobody"}, fds) == words
    os.close(fds[0])
