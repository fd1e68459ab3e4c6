"""Pipes of a container's process are taken back only if they are the ones that it was given."""

import os
import subprocess
from pathlib import Path

from sampan.runtime import recovery
from sampan.runtime.recovery import Inodes


def holder(stdin: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(["sleep", "1000"], stdin=stdin, stdout=subprocess.DEVNULL)


def found(stdin: int) -> set[str]:
    """What is found of a process that was given a pipe of this number as stdin."""
    process = holder(stdin)
    try:
        ends = recovery.reopen_pipes(process.pid, Inodes(stdin=os.fstat(stdin).st_ino))
        for fd in ends.values():
            os.close(fd)
        return set(ends)
    finally:
        process.kill()
        process.wait(10)


def test_its_own_pipe_is_taken_back() -> None:
    reader, writer = os.pipe()
    try:
        assert found(reader) == {"stdin"}
    finally:
        os.close(reader)
        os.close(writer)


def test_what_only_has_the_number_is_not(tmp_path: Path) -> None:
    """Inode numbers are easily made to agree: the container may make as many files, FIFOs and devices as it likes."""
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "file", tmp_path / "fifo", Path("/dev/zero")):
        fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            assert found(fd) == set(), path
        finally:
            os.close(fd)
