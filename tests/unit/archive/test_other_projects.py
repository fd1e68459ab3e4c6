"""A tree whose top hands a project on to what is moved into it, which what is below is not of: EXDEV (linux/fs.h, FS_PROJINHERIT_FL)."""

import errno
import os
import struct
from pathlib import Path
from typing import Any

import pytest

from sampan.archive import trees

INHERITED = 0x20000000


def test_a_directory_of_another_project_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system here has no projects: its part is played."""
    (tmp_path / "top/a/b/c").mkdir(parents=True)
    flags = INHERITED
    rename = os.rename

    def refused(old: Any, new: Any, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if flags & INHERITED:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    def told(fd: int, request: int, argument: bytes) -> bytes:
        nonlocal flags
        if request == trees._FS_IOC_GETFLAGS:
            return struct.pack("i4x", flags)
        assert request == trees._FS_IOC_SETFLAGS
        flags = struct.unpack("i4x", argument)[0]
        return argument

    monkeypatch.setattr(os, "rename", refused)
    monkeypatch.setattr(trees.fcntl, "ioctl", told)
    trees.remove_path(tmp_path / "top")
    assert not (tmp_path / "top").exists()
    assert flags == 0
